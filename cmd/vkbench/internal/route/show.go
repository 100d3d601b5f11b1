package route

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/colt5-vulkan/colt5/internal/cli/command"
	"github.com/colt5-vulkan/colt5/internal/cli/progress"
	"github.com/colt5-vulkan/colt5/internal/cli/table"
	"github.com/urfave/cli/v3"
)

// show writes the result to stdout: as text with at most limit passages, or as a table.
func show(env *command.Env, c *cli.Command, t *routedText, limit int) error {
	if c.String("o") != "text" {
		return passageTable(env, c, t)
	}
	r := t.router()
	var out strings.Builder
	for _, line := range t.lines() {
		fmt.Fprintln(&out, line)
	}
	density := r.density()
	fmt.Fprintf(&out, "\n%s\n", strings.Join(chart(density, len(t.text)), "\n"))
	colors := progress.IsTerminal(env.Stdout) && os.Getenv("NO_COLOR") == ""
	all := t.passages()
	best := r.best(all, limit)
	fmt.Fprintf(&out, "\npassages with the largest share, %d of %d:\n", len(best), len(all))
	for _, p := range best {
		fmt.Fprintf(&out, "\nbyte %s, %s heavy\n%s\n", thousands(p.from), percent(r.share(p.from, p.to)), t.highlight(p, colors))
	}
	_, err := fmt.Fprint(env.Stdout, out.String())
	return err
}

// summary describes the calls in lines.
func (t *routedText) summary() []string {
	with := "with routing records"
	if t.cpu {
		with += " and, on this CPU driver, the compilation of kernels"
	}
	return []string{
		fmt.Sprintf("calls: %d of up to %d x %s bytes, on %s", t.calls, t.maxBatch, thousands(t.maxTokens), t.device),
		fmt.Sprintf("GPU time, %s: %s; workspace %v, peak device memory %v", with, duration(t.time), table.Size(t.workspace),
			table.Size(t.deviceMemory)),
	}
}

// lines are all lines about the model, the calls and the shown router.
func (t *routedText) lines() []string {
	return slices.Concat(t.model.about, t.summary(), t.router().summary())
}

// summary describes what the router selected in lines.
func (r *routing) summary() []string {
	of := "of a segment"
	if r.routes > 1 {
		of = fmt.Sprintf("of a segment in each of %d routes; a byte is heavy if a route selects it", r.routes)
	}
	name := "router " + r.name
	if r.name == demoRouter {
		name = "the router"
	}
	lines := []string{
		name + " selects " + r.purpose(),
		fmt.Sprintf("heavy bytes: %s of %s (%s), up to %s %s", thousands(r.selected), thousands(len(r.heavy)),
			percent(float64(r.selected)/float64(len(r.heavy))), thousands(r.most), of),
	}
	if r.sums.slots > 0 {
		return append(lines, "routing: "+r.sums.String())
	}
	return append(lines, "routing: none, because no segment has more bytes than the router selects")
}

// purpose says what a router's tokens are for.
func (r *routing) purpose() string {
	switch {
	case strings.HasSuffix(r.name, "kv_router"):
		return "keys and values of the heavy attention"
	case strings.HasSuffix(r.name, "q_router"):
		return "queries of the heavy attention"
	}
	return "tokens of the heavy feedforward"
}

// passageTable writes a table of all passages.
func passageTable(env *command.Env, c *cli.Command, t *routedText) error {
	x, err := env.Table(c, table.Number("from", "from", 8), table.Number("bytes", "bytes", 0), table.Number("heavy", "heavy", 0),
		table.Number("heavy_share", "share", 0), table.Number("mean_logit", "mean logit", 0), table.Text("text", "text", 0),
		table.Hidden("router"))
	if err != nil {
		return err
	}
	r := t.router()
	for _, line := range t.lines() {
		x.Remark("%s", line)
	}
	for _, p := range t.passages() {
		var sum float64
		for _, x := range r.logits[p.from:p.to] {
			sum += float64(x)
		}
		length := p.to - p.from
		x.Row(p.from, length, r.count(p.from, p.to), table.Share(r.share(p.from, p.to)), sum/float64(length),
			table.Untrusted(strings.ToValidUTF8(string(t.text[p.from:p.to]), "\uFFFD")), r.name)
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
	for _, x := range t.runs(t.router(), p.from, p.to) {
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

// legend explains the bars of density, on the terminal and on pages.
func legend(density []part, n int) string {
	parts := fmt.Sprintf("%d equal parts of the text, of about %s", len(density), command.Count((n+len(density)-1)/len(density), "byte"))
	if len(density) == n {
		parts = "the bytes of the text"
	}
	return fmt.Sprintf("share of heavy bytes in %s; the largest is %s", parts, percent(topShare(density)))
}

// chart draws a bar chart of one line for a terminal, with a legend above and an axis of bytes below.
func chart(density []part, n int) []string {
	const levels = " ▁▂▃▄▅▆▇█"
	chars, top := []rune(levels), axisTop(topShare(density))
	var bars strings.Builder
	for _, p := range density {
		level := 0
		if p.share > 0 {
			level = max(int(p.share/top*float64(len(chars)-1)+0.5), 1)
		}
		bars.WriteRune(chars[level])
	}
	last := "byte " + thousands(n-1)
	return []string{
		legend(density, n), fmt.Sprintf("(a full block, █, is %s)", percent(top)), bars.String(),
		"└" + strings.Repeat("─", max(len(density)-2, 0)) + "┘",
		fmt.Sprintf("byte 0%*s", max(len(density)-len("byte 0"), len(last)+2), last),
	}
}

func percent(x float64) string { return fmt.Sprintf("%.1f %%", 100*x) }

// thousands formats a number with commas.
func thousands(n int) string { return table.Thousands(strconv.Itoa(n)) }

// duration formats a GPU time; a device without timestamps reports 0.
func duration(d time.Duration) string {
	if d == 0 {
		return "unknown"
	}
	return table.Time(table.InMillis(d))
}
