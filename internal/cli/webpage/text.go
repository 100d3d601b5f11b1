package webpage

import "unicode"

// Shown replaces control characters other than a line break and a tab, characters that would show the text after them in
// another order, and those that are no text in any document. Bytes that are not UTF-8 are U+FFFD already.
func Shown(c rune) rune {
	if c == '\n' || c == '\t' {
		return c
	}
	if unicode.IsControl(c) || unicode.Is(unicode.Bidi_Control, c) || c&0xfffe == 0xfffe || c >= 0xfdd0 && c <= 0xfdef {
		return '·'
	}
	return c
}
