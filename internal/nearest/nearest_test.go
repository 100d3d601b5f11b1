package nearest

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestOf(t *testing.T) {
	words := []string{"linear", "select", "topk", "topk_differentiable", "coor_descent", "coordinate_descent", "vit", "o"}
	for word, want := range map[string]string{
		"lineer": "linear", "liner": "linear", "lniear": "linear", "Linear": "linear", "linearr": "linear", "topkk": "topk", "coor_decsent": "coor_descent",
		"cordinate_descent": "coordinate_descent", "vti": "vit", "vt": "vit", "nonsense": "", "": "", "rmsnorm": "", "x": "", "ab": "", "abc": "",
	} {
		assert.Equal(t, want, Of(word, words), word)
	}
	assert.Empty(t, Of("linear", nil))
	assert.Equal(t, "aab", Of("aa", []string{"aab", "aac"}), "the first of several")
}

func TestDistance(t *testing.T) {
	for _, test := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"", "abc", 3}, {"abc", "", 3}, {"abc", "abc", 0}, {"abc", "acb", 1}, {"abc", "bc", 1}, {"abc", "axc", 1}, {"kitten", "sitting", 3}} {
		assert.Equal(t, test.want, distance(test.a, test.b), "%s %s", test.a, test.b)
	}
}
