package main

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/urfave/cli/v3"
)

// passage is a part of a text, and how many of its bytes are heavy.
type passage struct{ from, to, heavy int }

func (p passage) share() float64 { return float64(p.heavy) / float64(p.to-p.from) }

const passageBytes = 240 // a passage may be so long; it ends before, after the last line or word that fits

// passages cuts the text.
func (r *routedText) passages() []passage {
	var list []passage
	for from := 0; from < len(r.text); {
		to := min(from+passageBytes, len(r.text))
		if to < len(r.text) {
			to = from + cut(r.text[from:to])
		}
		list = append(list, passage{from, to, r.count(from, to)})
		from = to
	}
	return list
}

// cut finds where a passage ends: after a line of its second half, else after a word of it, else before a character that it would tear.
func cut(b []byte) int {
	half := len(b) / 2
	for _, end := range []func(byte) bool{
		func(c byte) bool { return c == '\n' }, func(c byte) bool { return c == ' ' }, func(c byte) bool { return c < utf8.RuneSelf },
	} {
		for i := len(b) - 1; i >= half; i-- {
			if end(b[i]) {
				return i + 1
			}
		}
	}
	for i := len(b) - 1; i > len(b)-utf8.UTFMax; i-- {
		if utf8.RuneStart(b[i]) {
			return i
		}
	}
	return len(b)
}

func (r *routedText) count(from, to int) int {
	n := 0
	for _, heavy := range r.heavy[from:to] {
		if heavy {
			n++
		}
	}
	return n
}

// density is the share of heavy bytes in each of so many equal parts of the text.
func (r *routedText) density(parts int) []float64 {
	parts = min(parts, len(r.text))
	list := make([]float64, parts)
	for i := range list {
		from, to := i*len(r.text)/parts, (i+1)*len(r.text)/parts
		list[i] = float64(r.count(from, to)) / float64(to-from)
	}
	return list
}

// show writes the result to stdout.
func (a *app) show(c *cli.Command, r *routedText, most int) error {
	if c.String("o") != "text" {
		return a.passageTable(c, r)
	}
	var out strings.Builder
	for _, line := range r.summary() {
		fmt.Fprintln(&out, line)
	}
	density := r.density(64)
	fmt.Fprintf(&out, "\nheavy bytes from the start of the text to its end, at most %s of a part:\n%s\n",
		percent(slices.Max(density)), bars(density))
	colours := isTerminal(a.stdout) && os.Getenv("NO_COLOR") == ""
	best := r.passages()
	all := len(best)
	slices.SortStableFunc(best, func(a, b passage) int { return cmp.Compare(b.share(), a.share()) })
	best = best[:min(most, all)]
	slices.SortFunc(best, func(a, b passage) int { return cmp.Compare(a.from, b.from) })
	fmt.Fprintf(&out, "\npassages with the largest share, %d of %d:\n", len(best), all)
	for _, p := range best {
		fmt.Fprintf(&out, "\nbyte %d, %s heavy\n%s\n", p.from, percent(p.share()), r.highlight(p, colours))
	}
	_, err := fmt.Fprint(a.stdout, out.String())
	return err
}

// summary tells in lines what was done.
func (r *routedText) summary() []string {
	c := r.config
	part := percent(float64(r.chosen) / float64(len(r.text)))
	lines := []string{
		fmt.Sprintf("bytes: %s, routed to the heavy branch: %s (%s)", thousands(len(r.text)), thousands(r.chosen), part),
		fmt.Sprintf("calls: %d of up to %d x %d x %d, up to %d heavy tokens a piece, on %s",
			r.calls, r.mostBatch, r.mostTokens, c.Dim, c.NumHeavyTokens, r.device),
		fmt.Sprintf("GPU time: router %s, feedforward %s; workspace %v, peak device memory %v",
			duration(r.routerTime), duration(r.moduleTime), size(r.workspace), size(r.deviceMemory)),
	}
	if r.router.slots > 0 {
		lines = append(lines, r.router.String())
	}
	if r.untrained {
		lines = append(lines, fmt.Sprintf("weights: untrained, made of seed %d: which passages they like is arbitrary", r.seed))
	}
	return lines
}

func (a *app) passageTable(c *cli.Command, r *routedText) error {
	t, err := a.table(c, numbers("from", "from", 8), numbers("bytes", "bytes", 0), numbers("heavy", "heavy", 0),
		numbers("heavy_share", "share", 0), numbers("mean_logit", "mean logit", 0), words("text", "text", 0))
	if err != nil {
		return err
	}
	for _, line := range r.summary() {
		t.remark("%s", line)
	}
	for _, p := range r.passages() {
		var sum float64
		for _, x := range r.logits[p.from:p.to] {
			sum += float64(x)
		}
		length, text := p.to-p.from, strings.ToValidUTF8(string(r.text[p.from:p.to]), "\uFFFD")
		t.row(p.from, length, p.heavy, share(p.share()), sum/float64(length), text)
	}
	return t.close()
}

// textRun is a part of a text that is heavy throughout, or light throughout. A character is heavy if one of its bytes is.
type textRun struct {
	Text  string
	Heavy bool
}

func (r *routedText) runs(from, to int) []textRun {
	var list []textRun
	for start := from; start < to; {
		heavy, end := false, start
		for end < to {
			_, width := utf8.DecodeRune(r.text[end:to])
			now := r.count(end, end+width) > 0
			if end == start {
				heavy = now
			} else if now != heavy {
				break
			}
			end += width
		}
		list = append(list, textRun{strings.ToValidUTF8(string(r.text[start:end]), "\uFFFD"), heavy})
		start = end
	}
	return list
}

// highlight is a passage for a terminal: nothing in it can steer the terminal, and heavy characters stand out.
func (r *routedText) highlight(p passage, colours bool) string {
	before, after := "⟦", "⟧"
	if colours {
		before, after = "\x1b[1;30;43m", "\x1b[0m"
	}
	var out strings.Builder
	for _, x := range r.runs(p.from, p.to) {
		for line := range strings.Lines(x.Text) {
			text := strings.Map(printable, strings.TrimSuffix(line, "\n"))
			end := line[len(strings.TrimSuffix(line, "\n")):]
			if x.Heavy && end != "" {
				text += "⏎"
			}
			if x.Heavy {
				text = before + text + after
			}
			out.WriteString(text + end)
		}
	}
	lines := strings.Split(strings.Trim(out.String(), "\n"), "\n")
	return "  " + strings.Join(lines, "\n  ")
}

// printable replaces what a terminal would not just show.
func printable(c rune) rune {
	switch {
	case unicode.IsPrint(c):
		return c
	case unicode.IsSpace(c):
		return ' '
	}
	return '·'
}

// bars draws a list of shares, the largest one full.
func bars(list []float64) string {
	const levels = " ▁▂▃▄▅▆▇█"
	chars, most := []rune(levels), slices.Max(list)
	var out strings.Builder
	for _, x := range list {
		level := 0
		if x > 0 {
			level = max(int(x/most*float64(len(chars)-1)+0.5), 1)
		}
		out.WriteRune(chars[level])
	}
	return out.String()
}

func percent(x float64) string { return fmt.Sprintf("%.1f %%", 100*x) }

// thousands writes a number with commas.
func thousands(n int) string {
	text := fmt.Sprint(n)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

func duration(d time.Duration) string { return significant(inMillis(d)) + " ms" }

// whole moves a place in the text to the start of the character that it falls into.
func (r *routedText) whole(at int) int {
	for back := at; back > max(at-utf8.UTFMax, 0) && back < len(r.text); back-- {
		if utf8.RuneStart(r.text[back]) {
			return back
		}
	}
	return at
}
