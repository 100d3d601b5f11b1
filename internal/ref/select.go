package ref

import (
	"cmp"
	"fmt"
	"slices"
)

// Selection is what [Select] chose. The filled slots of a row come first.
type Selection struct {
	Indices []int32 // [Rows, K] columns, by falling logit; 0 in an empty slot
	Valid   []uint8 // [Rows, K] routed mask: 1 filled, 0 empty
	Count   []int32 // [Rows] filled slots of the row
}

// Select is the hard top-k of each row.
//
//	logits [Rows, N]    mask [Rows, N] optional    indices, filled [Rows, K]    count [Rows]
//
// It takes the k valid entries with the largest logit, the largest first; of
// equal logits the lower index wins (-0 equals +0). A masked entry is never
// taken: with fewer than k valid entries the last slots stay empty. k may
// exceed N. A NaN ranks below -Inf, and as equal to any other NaN.
func Select(logits []float32, mask []uint8, rows, n, k int) Selection {
	return selectRows(logits, mask, rows, n, k)
}

// SelectWindows is the hard top-k of prefixes of each row: window m chooses
// from the first min(m * prefix, n) entries, so window 0 chooses none.
//
//	logits [Items * Routes, N]    mask [Items, N] optional    indices, filled [Items, Windows, Routes, K]    count [Items, Windows, Routes]
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

// maskOf is a piece of a mask that may be absent.
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

// largest returns the indices of the up to k largest valid entries, in order.
// It collects candidates and cuts them back to k whenever their number has
// doubled, so a long row is read once and never sorted as a whole.
func topIndices[T Float](row []T, mask []uint8, k int) []int32 {
	before := func(i, j int32) int {
		if c := cmp.Compare(row[j], row[i]); c != 0 {
			return c
		}
		return cmp.Compare(i, j)
	}
	var found []int32
	cut := func() {
		slices.SortFunc(found, before)
		found = found[:min(k, len(found))]
	}
	full := false
	var least T // once k are held: a later entry must be larger, as ties go to the earlier one
	for i, v := range row {
		if !isValid(mask, i) || full && v <= least {
			continue
		}
		found = append(found, int32(i))
		if len(found) >= 2*k {
			cut()
			full, least = true, row[found[k-1]]
		}
	}
	cut()
	return found
}
