package route

import (
	"strings"
	"unicode/utf8"
)

// passage is a part of a text. heavy is the number of its heavy bytes.
type passage struct{ from, to, heavy int }

func (p passage) share() float64 { return float64(p.heavy) / float64(p.to-p.from) }

// passageBytes is the maximum length of a passage. A passage ends after the last line or word that fits.
const passageBytes = 240

// passages splits the text into passages.
func (t *routedText) passages() []passage {
	var list []passage
	for from := 0; from < len(t.text); {
		to := min(from+passageBytes, len(t.text))
		if to < len(t.text) {
			to = from + cutPoint(t.text[from:to])
		}
		list = append(list, passage{from, to, t.count(from, to)})
		from = to
	}
	return list
}

// cutPoint returns where a passage ends: after the last line in the second half of b, else after the last word, else
// before a character that would be split.
func cutPoint(b []byte) int {
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

// count returns the number of heavy bytes.
func (t *routedText) count(from, to int) int {
	n := 0
	for _, heavy := range t.heavy[from:to] {
		if heavy {
			n++
		}
	}
	return n
}

// density returns the share of heavy bytes in each of parts equal parts of the text.
func (t *routedText) density(parts int) []float64 {
	parts = min(parts, len(t.text))
	list := make([]float64, parts)
	for i := range list {
		from, to := i*len(t.text)/parts, (i+1)*len(t.text)/parts
		list[i] = float64(t.count(from, to)) / float64(to-from)
	}
	return list
}

// textRun is a sequence of characters that are all heavy or all light. A character is heavy if one of its bytes is.
type textRun struct {
	Text  string
	Heavy bool
}

// runs splits a part of the text into runs.
func (t *routedText) runs(from, to int) []textRun {
	var list []textRun
	for start := from; start < to; {
		heavy, end := false, start
		for end < to {
			_, width := utf8.DecodeRune(t.text[end:to])
			now := t.count(end, end+width) > 0
			if end == start {
				heavy = now
			} else if now != heavy {
				break
			}
			end += width
		}
		list = append(list, textRun{strings.ToValidUTF8(string(t.text[start:end]), "\uFFFD"), heavy})
		start = end
	}
	return list
}

// runeStart returns the start of the character at a position.
func (t *routedText) runeStart(at int) int {
	for back := at; back > max(at-utf8.UTFMax, 0) && back < len(t.text); back-- {
		if utf8.RuneStart(t.text[back]) {
			return back
		}
	}
	return at
}
