package route

import (
	"unicode/utf8"

	"github.com/colt5-vulkan/colt5/internal/cli/webpage"
)

// textRun is a sequence of characters that are all heavy or all light. A character is heavy if one of its bytes is.
type textRun struct {
	Text  string
	Heavy bool
}

// runs splits a part of the text into runs, and replaces characters that cannot be shown; see webpage.Shown.
func (t *routedText) runs(r *routing, from, to int) []textRun {
	var list []textRun
	for at := from; at < to; {
		c, width := utf8.DecodeRune(t.text[at:to])
		heavy := r.count(at, at+width) > 0
		if len(list) == 0 || list[len(list)-1].Heavy != heavy {
			list = append(list, textRun{Heavy: heavy})
		}
		at += width
		if c == '\r' && at < len(t.text) && t.text[at] == '\n' {
			continue // the line break follows
		}
		list[len(list)-1].Text += string(webpage.Shown(c))
	}
	return list
}

// printableName formats a file name, which may have any bytes.
func printableName(name string) string {
	if name == "-" {
		return "standard input"
	}
	var out []rune
	for _, c := range name {
		if c == '\n' || c == '\t' {
			c = '·'
		}
		out = append(out, webpage.Shown(c))
	}
	return string(out)
}
