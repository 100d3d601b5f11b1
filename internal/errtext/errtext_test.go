package errtext

import (
	"strings"
	"testing"
	"unicode"

	"github.com/stretchr/testify/assert"
)

func TestQuote(t *testing.T) {
	digits := strings.Repeat("0123456789", 100)
	for s, want := range map[string]string{
		"":                       `""`,
		"to_q.weight":            `"to_q.weight"`,
		"a b":                    `"a b"`,
		"é":                      `"é"`,
		"\x00\x1b[31m\n\u202e\"": `"\x00\x1b[31m\n\u202e\""`,
		"\xff":                   `"\xff"`,
		digits[:94]:              `"` + digits[:94] + `"`,
		digits[:95]:              `"` + digits[:58] + `"..."` + digits[64:95] + `"`,
		digits:                   `"` + digits[:58] + `"..."` + digits[969:1000] + `"`,
	} {
		assert.Equal(t, want, Quote(s))
	}
}

// TestQuoteIsSafe: whatever the text, the result is short and printable.
func TestQuoteIsSafe(t *testing.T) {
	for _, part := range []string{"\x1b]8;;http://x\x1b\\", "\U0010ffff", "é", "\xff", "\"", "\n", "\u2028", "\ufffd", "a"} {
		for n := range 150 {
			q := Quote(strings.Repeat(part, n))
			assert.LessOrEqual(t, len(q), 96, "%q %d", part, n)
			assert.False(t, strings.ContainsFunc(q, func(r rune) bool { return !unicode.IsPrint(r) }), "%q", q)
		}
	}
}

func FuzzQuote(f *testing.F) {
	f.Add("a\x1b\n")
	f.Fuzz(func(t *testing.T, s string) {
		q := Quote(s)
		assert.LessOrEqual(t, len(q), 96)
		assert.False(t, strings.ContainsFunc(q, func(r rune) bool { return !unicode.IsPrint(r) }), "%q", q)
	})
}

func TestName(t *testing.T) {
	for s, want := range map[string]string{
		"layers.0.0.light-attn/to_qkv.weight": "layers.0.0.light-attn/to_qkv.weight",
		"":                                    `""`,
		"a b":                                 `"a b"`,
		"é":                                   `"é"`,
		"a; b is missing":                     `"a; b is missing"`,
	} {
		assert.Equal(t, want, Name(s))
	}
	assert.Equal(t, Quote(strings.Repeat("a", 97)), Name(strings.Repeat("a", 97)))
}

func TestShape(t *testing.T) {
	assert.Equal(t, "[]", Shape([]int{}))
	assert.Equal(t, "[1 2 3 4 5 6 7 8]", Shape([]int64{1, 2, 3, 4, 5, 6, 7, 8}))
	assert.Equal(t, "[1 2 3 4 5 6 7 8 ..] (9 dimensions)", Shape([]int64{1, 2, 3, 4, 5, 6, 7, 8, 9}))
}

func TestProblems(t *testing.T) {
	var p Problems
	assert.NoError(t, p.Err())
	for i := range 300 {
		p.Addf("%d is bad", i)
		switch i {
		case 0:
			assert.EqualError(t, p.Err(), "0 is bad")
		case 2:
			assert.EqualError(t, p.Err(), "0 is bad; 1 is bad; 2 is bad")
		}
	}
	assert.EqualError(t, p.Err(), "0 is bad; 1 is bad; 2 is bad; ... and 297 more")
	assert.Equal(t, 300, p.Count())
}

func TestMerge(t *testing.T) {
	list := func(kind string, n int) (p Problems) {
		for i := range n {
			p.Addf("%s%d", kind, i)
		}
		return p
	}
	assert.NoError(t, Merge())
	assert.NoError(t, Merge(Problems{}, Problems{}))
	assert.EqualError(t, Merge(list("a", 2)), "a0; a1")
	assert.EqualError(t, Merge(Problems{}, list("a", 9), list("b", 1)), "a0; b0; a1; ... and 7 more")
	assert.EqualError(t, Merge(list("a", 1), list("b", 300), list("c", 2)), "a0; b0; c0; ... and 300 more")
}
