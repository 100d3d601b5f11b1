package route

import (
	"cmp"
	"slices"
	"unicode/utf8"
)

// passage is a part of a text.
type passage struct{ index, from, to int }

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
		list = append(list, passage{len(list), from, to})
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
func (r *routing) count(from, to int) int {
	n := 0
	for _, heavy := range r.heavy[from:to] {
		if heavy {
			n++
		}
	}
	return n
}

// share is the share of heavy bytes.
func (r *routing) share(from, to int) float64 { return float64(r.count(from, to)) / float64(to-from) }

// best returns the passages with the largest shares, at most limit and none without a heavy byte, in the order of the
// text.
func (r *routing) best(all []passage, limit int) []passage {
	share := map[int]float64{}
	var list []passage
	for _, p := range all {
		if x := r.share(p.from, p.to); x > 0 {
			share[p.index] = x
			list = append(list, p)
		}
	}
	slices.SortStableFunc(list, func(a, b passage) int { return cmp.Compare(share[b.index], share[a.index]) })
	list = list[:min(limit, len(list))]
	slices.SortFunc(list, func(a, b passage) int { return cmp.Compare(a.from, b.from) })
	return list
}

// densityParts is the number of parts of density, on the terminal and on pages.
const densityParts = 64

// part is a part of the text, and the share of heavy bytes in it.
type part struct {
	from, to int
	share    float64
}

// density returns the share of heavy bytes in equal parts of the text.
func (r *routing) density() []part {
	n := len(r.heavy)
	list := make([]part, min(densityParts, n))
	for i := range list {
		from, to := i*n/len(list), (i+1)*n/len(list)
		list[i] = part{from, to, r.share(from, to)}
	}
	return list
}

// axisTop is the upper end of an axis for shares up to top: a round number, at most 1.
func axisTop(top float64) float64 {
	for _, decade := range []float64{0.001, 0.01, 0.1} {
		for _, step := range []float64{1, 1.5, 2, 3, 4, 5, 6, 8} {
			if x := step * decade; top > 0 && top <= x {
				return x
			}
		}
	}
	return 1
}

// topShare is the largest share.
func topShare(list []part) float64 {
	return slices.MaxFunc(list, func(a, b part) int { return cmp.Compare(a.share, b.share) }).share
}
