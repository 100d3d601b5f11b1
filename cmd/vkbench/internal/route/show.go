package route

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/command"
	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/progress"
	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/table"
	"github.com/urfave/cli/v3"
)

// show writes the result to stdout: as text with at most limit passages, or as a table.
func show(env *command.Env, c *cli.Command, t *routedText, limit int) error {
	if c.String("o") != "text" {
		return passageTable(env, c, t)
	}
	var out strings.Builder
	for _, line := range t.summary() {
		fmt.Fprintln(&out, line)
	}
	density := t.density(64)
	fmt.Fprintf(&out, "\nheavy bytes from the start of the text to its end, at most %s in a part:\n%s\n",
		percent(slices.Max(density)), bars(density))
	colors := progress.IsTerminal(env.Stdout) && os.Getenv("NO_COLOR") == ""
	best := t.passages()
	all := len(best)
	slices.SortStableFunc(best, func(a, b passage) int { return cmp.Compare(b.share(), a.share()) })
	best = best[:min(limit, all)]
	slices.SortFunc(best, func(a, b passage) int { return cmp.Compare(a.from, b.from) })
	fmt.Fprintf(&out, "\npassages with the largest share, %d of %d:\n", len(best), all)
	for _, p := range best {
		fmt.Fprintf(&out, "\nbyte %d, %s heavy\n%s\n", p.from, percent(p.share()), t.highlight(p, colors))
	}
	_, err := fmt.Fprint(env.Stdout, out.String())
	return err
}

// summary describes the calls in lines.
func (t *routedText) summary() []string {
	c := t.config
	part := percent(float64(t.selected) / float64(len(t.text)))
	lines := []string{
		fmt.Sprintf("bytes: %s, routed to the heavy branch: %s (%s)", thousands(len(t.text)), thousands(t.selected), part),
		fmt.Sprintf("calls: %d of up to %d x %d x %d, up to %d heavy tokens per segment, on %s",
			t.calls, t.maxBatch, t.maxTokens, c.Dim, c.NumHeavyTokens, t.device),
		fmt.Sprintf("GPU time: router %s, feedforward %s; workspace %v, peak device memory %v",
			duration(t.routerTime), duration(t.moduleTime), table.Size(t.workspace), table.Size(t.deviceMemory)),
	}
	if t.router.slots > 0 {
		lines = append(lines, t.router.String())
	}
	if t.untrained {
		lines = append(lines, fmt.Sprintf("weights: untrained, from seed %d: which passages they select is arbitrary", t.seed))
	}
	return lines
}

// passageTable writes a table of all passages.
func passageTable(env *command.Env, c *cli.Command, t *routedText) error {
	x, err := env.Table(c, table.Number("from", "from", 8), table.Number("bytes", "bytes", 0), table.Number("heavy", "heavy", 0),
		table.Number("heavy_share", "share", 0), table.Number("mean_logit", "mean logit", 0), table.Text("text", "text", 0))
	if err != nil {
		return err
	}
	for _, line := range t.summary() {
		x.Remark("%s", line)
	}
	for _, p := range t.passages() {
		var sum float64
		for _, x := range t.logits[p.from:p.to] {
			sum += float64(x)
		}
		length, text := p.to-p.from, strings.ToValidUTF8(string(t.text[p.from:p.to]), "\uFFFD")
		x.Row(p.from, length, p.heavy, table.Share(p.share()), sum/float64(length), text)
	}
	return x.Close()
}

// highlight formats a passage for a terminal: without control characters, and with heavy characters highlighted.
func (t *routedText) highlight(p passage, colors bool) string {
	prefix, suffix := "⟦", "⟧"
	if colors {
		prefix, suffix = "\x1b[1;30;43m", "\x1b[0m"
	}
	var out strings.Builder
	for _, x := range t.runs(p.from, p.to) {
		for line := range strings.Lines(x.Text) {
			text := strings.Map(printable, strings.TrimSuffix(line, "\n"))
			end := line[len(strings.TrimSuffix(line, "\n")):]
			if x.Heavy && end != "" {
				text += "⏎"
			}
			if x.Heavy {
				text = prefix + text + suffix
			}
			out.WriteString(text + end)
		}
	}
	lines := strings.Split(strings.Trim(out.String(), "\n"), "\n")
	return "  " + strings.Join(lines, "\n  ")
}

// printable replaces characters that a terminal would not display as themselves.
func printable(c rune) rune {
	switch {
	case unicode.IsPrint(c):
		return c
	case unicode.IsSpace(c):
		return ' '
	}
	return '·'
}

// bars draws a bar chart of one line, scaled to the largest value.
func bars(list []float64) string {
	const levels = " ▁▂▃▄▅▆▇█"
	chars, top := []rune(levels), slices.Max(list)
	var out strings.Builder
	for _, x := range list {
		level := 0
		if x > 0 {
			level = max(int(x/top*float64(len(chars)-1)+0.5), 1)
		}
		out.WriteRune(chars[level])
	}
	return out.String()
}

func percent(x float64) string { return fmt.Sprintf("%.1f %%", 100*x) }

// thousands formats a number with commas.
func thousands(n int) string {
	text := fmt.Sprint(n)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

// duration formats a GPU time; a device without timestamps reports 0.
func duration(d time.Duration) string {
	if d == 0 {
		return "unknown"
	}
	return table.Significant(table.InMillis(d)) + " ms"
}
