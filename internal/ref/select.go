package ref

import (
	"cmp"
	"fmt"
	"slices"
)

// Selection is the result of [Select]. The valid slots of a row come first.
type Selection struct {
	Indices []int32 // [Rows, K] columns by descending logit; 0 in an empty slot
	Valid   []uint8 // [Rows, K] routed mask: 1 valid, 0 empty
	Count   []int32 // [Rows] number of valid slots
}

// Select is the top-k of each row.
//
//	logits [Rows, N]    mask [Rows, N] optional    indices, valid [Rows, K]    count [Rows]
//
// It selects the k valid entries with the largest logits, sorted by descending logit and then by index (-0 equals +0).
// Masked entries are never selected: with fewer than k valid entries the last slots are empty. k may exceed N. A NaN
// compares less than -Inf and equal to any other NaN.
func Select(logits []float32, mask []uint8, rows, n, k int) Selection {
	return selectRows(logits, mask, rows, n, k)
}

// SelectWindows is the top-k of prefixes of each row: window m selects from the first min(m * prefix, n) entries, so
// window 0 is empty.
//
//	logits [Items * Routes, N]    mask [Items, N] optional    indices, valid [Items, Windows, Routes, K]    count [Items, Windows, Routes]
func SelectWindows(logits []float32, mask []uint8, items, routes, n, k, windows, prefix int) Selection {
	checkLen("SelectWindows", "logits", len(logits), items*routes*n)
	checkOptional("SelectWindows", "mask", mask, items*n)
	var s Selection
	for item := range items {
		for window := range windows {
			seen := min(window*prefix, n)
			for route := range routes {
				row := (item*routes + route) * n
				one := Selection{make([]int32, k), make([]uint8, k), []int32{0}}
				if seen > 0 {
					one = Select(logits[row:row+seen], maskSlice(mask, item*n, seen), 1, seen, k)
				}
				s.Indices, s.Valid, s.Count = append(s.Indices, one.Indices...), append(s.Valid, one.Valid...), append(s.Count, one.Count...)
			}
		}
	}
	return s
}

// maskSlice returns mask[from:from+count], or nil if mask is nil.
func maskSlice(mask []uint8, from, count int) []uint8 {
	if mask == nil {
		return nil
	}
	return mask[from : from+count]
}

func selectRows[T Float](logits []T, mask []uint8, rows, n, k int) Selection {
	checkLen("Select", "logits", len(logits), rows*n)
	checkOptional("Select", "mask", mask, rows*n)
	if k < 1 {
		panic(fmt.Sprintf("ref: Select: k is %d, want at least 1", k))
	}
	s := Selection{make([]int32, rows*k), make([]uint8, rows*k), make([]int32, rows)}
	parallel(rows, func(lo, hi int) {
		for r := lo; r < hi; r++ {
			var m []uint8
			if mask != nil {
				m = mask[r*n : (r+1)*n]
			}
			best := topIndices(logits[r*n:(r+1)*n], m, k)
			s.Count[r] = int32(copy(s.Indices[r*k:(r+1)*k], best))
			for j := range best {
				s.Valid[r*k+j] = 1
			}
		}
	})
	return s
}

// topIndices returns the indices of the k largest valid entries, or of all if there are fewer, in order. It collects
// candidates and reduces them to k whenever there are 2 * k, so a long row is read once and never sorted as a whole.
func topIndices[T Float](row []T, mask []uint8, k int) []int32 {
	before := func(i, j int32) int {
		if c := cmp.Compare(row[j], row[i]); c != 0 {
			return c
		}
		return cmp.Compare(i, j)
	}
	var candidates []int32
	reduce := func() {
		slices.SortFunc(candidates, before)
		candidates = candidates[:min(k, len(candidates))]
	}
	full := false
	var least T // the k-th largest candidate if full; later entries must be larger, because ties go to the lower index
	for i, v := range row {
		if !isValid(mask, i) || full && v <= least {
			continue
		}
		candidates = append(candidates, int32(i))
		if len(candidates) >= 2*k {
			reduce()
			full, least = true, row[candidates[k-1]]
		}
	}
	reduce()
	return candidates
}
