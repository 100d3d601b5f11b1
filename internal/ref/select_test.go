package ref

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestSelectHandComputed(t *testing.T) {
	inf, zero := float32(math.Inf(1)), float32(math.Copysign(0, -1))
	for _, c := range []struct {
		name    string
		logits  []float32
		mask    []uint8
		k       int
		indices []int32
		count   int
	}{
		{"plain", []float32{1, 5, 3, 4}, nil, 2, []int32{1, 3}, 2},
		{"ties go to the lower index", []float32{1, 5, 5, 5}, nil, 2, []int32{1, 2}, 2},
		{"all equal", []float32{2, 2, 2, 2}, nil, 3, []int32{0, 1, 2}, 3},
		{"minus zero equals zero", []float32{-1, zero, 0, zero}, nil, 3, []int32{1, 2, 3}, 3},
		{"infinities", []float32{-inf, 0, inf, -inf}, nil, 3, []int32{2, 1, 0}, 3},
		{"masked", []float32{9, 5, 3, 4}, []uint8{0, 1, 1, 1}, 2, []int32{1, 3}, 2},
		{"fewer than k", []float32{9, 5, 3, 4}, []uint8{0, 0, 1, 1}, 3, []int32{3, 2, 0}, 2},
		{"none", []float32{9, 5, 3, 4}, []uint8{0, 0, 0, 0}, 2, []int32{0, 0}, 0},
		{"k = n", []float32{1, 5, 3, 4}, nil, 4, []int32{1, 3, 2, 0}, 4},
		{"k > n", []float32{1, 5, 3, 4}, nil, 6, []int32{1, 3, 2, 0, 0, 0}, 4},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := Select(c.logits, c.mask, 1, 4, c.k)
			assert.Equal(t, c.indices, got.Indices)
			assert.Equal(t, []int32{int32(c.count)}, got.Count)
			for j, f := range got.Valid {
				assert.Equal(t, j < c.count, f == 1)
			}
		})
	}
	assertPanics(t, "ref: Select: len(logits) is 3, want 4", func() { Select(make([]float32, 3), nil, 2, 2, 1) })
	assertPanics(t, "ref: Select: len(mask) is 1, want 3", func() { Select(make([]float32, 3), make([]uint8, 1), 3, 1, 1) })
	assertPanics(t, "ref: Select: k is 0, want at least 1", func() { Select(make([]float32, 3), nil, 3, 1, 0) })
}

func TestSelectWindowsHandComputed(t *testing.T) {
	logits := []float32{1, 5, 3, 5, 9, 2, 2, 8, 7, 0} // two rows of one item
	got := SelectWindows(logits, nil, 1, 2, 5, 2, 4, 2)
	assert.Equal(t, []int32{0, 0, 0, 0, 1, 0, 0, 1, 1, 3, 2, 3, 4, 1, 2, 3}, got.Indices)
	assert.Equal(t, []int32{0, 0, 2, 2, 2, 2, 2, 2}, got.Count)
	assert.Equal(t, []uint8{0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}, got.Valid)
	got = SelectWindows(logits, []uint8{0, 1, 0, 0, 1, 1, 0, 0, 1, 1}, 2, 1, 5, 2, 3, 3) // two items
	assert.Equal(t, []int32{0, 0, 1, 0, 4, 1, 0, 0, 0, 0, 3, 0}, got.Indices)
	assert.Equal(t, []int32{0, 1, 2, 0, 1, 2}, got.Count)
	assertPanics(t, "ref: SelectWindows: len(logits) is 10, want 9", func() { SelectWindows(logits, nil, 3, 1, 3, 1, 1, 1) })
	assertPanics(t, "ref: SelectWindows: len(mask) is 1, want 5", func() { SelectWindows(logits, make([]uint8, 1), 1, 2, 5, 1, 1, 1) })
}

// TestSelectAgainstSort compares with a stable sort of the whole row, on rows with many ties.
func TestSelectAgainstSort(t *testing.T) {
	const rows = 5
	for _, n := range []int{1, 2, 31, 300} {
		logits, mask := normal(uint64(n), rows*n, 3), randomMask(uint64(n), rows*n, 0.6)
		for i, v := range logits {
			logits[i] = float32(math.Round(float64(v)))
		}
		for _, m := range [][]uint8{nil, mask} {
			for _, k := range []int{1, 2, n/2 + 1, n, n + 3} {
				t.Run(fmt.Sprintf("n=%d/k=%d/mask=%t", n, k, m != nil), func(t *testing.T) {
					got := Select(logits, m, rows, n, k)
					for r := range rows {
						var order []int32
						for i := range n {
							if isValid(m, r*n+i) {
								order = append(order, int32(i))
							}
						}
						slices.SortStableFunc(order, func(i, j int32) int { return int(logits[r*n+int(j)] - logits[r*n+int(i)]) })
						order = order[:min(k, len(order))]
						assert.EqualValues(t, len(order), got.Count[r])
						assert.Equal(t, append(order, make([]int32, k-len(order))...), got.Indices[r*k:(r+1)*k])
					}
				})
			}
		}
	}
}
