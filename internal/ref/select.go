package ref

import (
	"cmp"
	"fmt"
	"slices"
)

// Selection is what [Select] chose. The filled slots of a row come first.
type Selection struct {
	Indices []int32 // [Rows, K] columns, by falling logit; 0 in an empty slot
	Filled  []uint8 // [Rows, K] routed mask: 1 filled, 0 empty
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
			best := largest(logits[r*n:(r+1)*n], m, k)
			s.Count[r] = int32(copy(s.Indices[r*k:(r+1)*k], best))
			for j := range best {
				s.Filled[r*k+j] = 1
			}
		}
	})
	return s
}

// largest returns the indices of the up to k largest valid entries, in order.
// It collects candidates and cuts them back to k whenever their number has
// doubled, so a long row is read once and never sorted as a whole.
func largest[T Float](row []T, mask []uint8, k int) []int32 {
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
		if !valid(mask, i) || full && v <= least {
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
