package colt5

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// splitTokens computes every token once, with all its neighbours and at most 1/64 more rows.
func TestSplitTokens(t *testing.T) {
	for _, test := range []struct{ items, n, most, block, before, after int }{
		{1, 1, 1, 1, 1, 1}, {3, 40, 100, 8, 1, 1}, {3, 40, 130, 8, 1, 1}, {2, 140, 64, 8, 1, 0}, {1, 65536, 32768, 64, 1, 1}, {2, 65536, 32768, 128, 1, 0},
		{1, 65500, 32768, 64, 1, 1}, {1, 1 << 20, 32768, 64, 1, 1}, {1, 100000, 30000, 100, 2, 2}, {1, 33000, 32768, 64, 1, 1},
	} {
		next := make([]int, test.items) // the first token of each item that is not computed yet
		groups := splitTokens(test.items, test.n, test.most, test.block, test.before, test.after)
		assert.Len(t, groups, countGroups(test.items, test.n, test.most, test.block))
		for _, s := range groups {
			for item := s.item; item < s.item+s.items; item++ {
				require.Equal(t, next[item], s.from, "%+v %+v", test, s)
				next[item] += s.count
			}
			first, end := max(0, s.from-test.before*test.block), min(test.n, s.from+s.count+test.after*test.block)
			assert.LessOrEqual(t, s.first, first, "%+v %+v", test, s)
			assert.GreaterOrEqual(t, s.first+s.rows, end, "%+v %+v", test, s)
			assert.GreaterOrEqual(t, s.first, 0, "%+v %+v", test, s)
			assert.LessOrEqual(t, s.first+s.rows, test.n, "%+v %+v", test, s)
			assert.LessOrEqual(t, s.rows, (end-first)*65/64, "%+v %+v", test, s)
			if s.items == 1 && s.rows < test.n && end-first >= 64*127 {
				assert.Zero(t, s.rows%128, "%+v %+v: not whole tiles", test, s)
			}
		}
		for _, end := range next {
			assert.Equal(t, test.n, end, "%+v", test)
		}
	}
}
