package route

import (
	"unicode"
	"unicode/utf8"
)

// textRun is a sequence of characters that are all heavy or all light. A character is heavy if one of its bytes is.
type textRun struct {
	Text  string
	Heavy bool
}

// runs splits a part of the text into runs, and replaces characters that cannot be shown; see shownChar.
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
		list[len(list)-1].Text += string(shownChar(c))
	}
	return list
}

// shownChar replaces control characters other than a line break and a tab, characters that would show the text after
// them in another order, and those that are no text in any document. Bytes that are not UTF-8 are U+FFFD already.
func shownChar(c rune) rune {
	if c == '\n' || c == '\t' {
		return c
	}
	if unicode.IsControl(c) || unicode.Is(unicode.Bidi_Control, c) || c&0xfffe == 0xfffe || c >= 0xfdd0 && c <= 0xfdef {
		return '·'
	}
	return c
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
		out = append(out, shownChar(c))
	}
	return string(out)
}
