package verify

import (
	"bytes"
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/colt5-vulkan/colt5/internal/ref"
)

// comparison collects the differences between results and a golden case.
type comparison struct {
	worst    quantity // the one with the largest ratio of error to bound
	output   float64  // the largest absolute difference of an output
	problems []string
	note     string // what to know about a case that passed; "": nothing
}

// quantity is the relative error of a result and its bound.
type quantity struct {
	name       string
	err, bound float64
}

func (c *comparison) problem(format string, args ...any) {
	c.problems = append(c.problems, fmt.Sprintf(format, args...))
}

// remark is the remark of a case that passed; nil: none.
func (c *comparison) remark() any {
	if c.note == "" {
		return nil
	}
	return c.note
}

// withinBound requires floats within a relative bound.
func (c *comparison) withinBound(name string, got []float32, want []float64, bound float64) {
	c.within(name, ref.MaxErr(got, want), bound)
}

// outputWithinBound requires an output within a relative bound.
func (c *comparison) outputWithinBound(name string, got []float32, want []float64, bound float64) {
	e := ref.MaxErr(got, want)
	if math.IsInf(e.Rel, 0) {
		c.output = e.Rel
	} else {
		c.output = max(c.output, math.Abs(e.Got-e.Want))
	}
	c.within(name, e, bound)
}

func (c *comparison) within(name string, e ref.Error, bound float64) {
	if c.worst.name == "" || e.Rel/bound > c.worst.err/c.worst.bound {
		c.worst = quantity{name, e.Rel, bound}
	}
	if err := e.Within(bound); err != nil {
		c.problem("%s: %v", name, err)
	}
}

// sameBits requires equal bits of two runs.
func (c *comparison) sameBits(a, b values, problem string) {
	for _, name := range slices.Sorted(maps.Keys(a.bits)) {
		if !bytes.Equal(a.bits[name], b.bits[name]) {
			c.problem("%s: %s", name, problem)
		}
	}
}

// equalInts requires equal integers.
func (c *comparison) equalInts(name string, got, want []int32) {
	if len(got) != len(want) {
		c.problem("%s: %d elements, want %d", name, len(got), len(want))
		return
	}
	for i := range got {
		if got[i] != want[i] {
			c.problem("%s: element %d is %d, want %d", name, i, got[i], want[i])
			return
		}
	}
}

// validSlots returns the valid slots among slots at .. at + count - 1, ordered by token.
func validSlots(indices []int32, scores []float32, at, count int) []int {
	var list []int
	for i := at; i < at+count; i++ {
		if scores[i] != 0 {
			list = append(list, i)
		}
	}
	slices.SortStableFunc(list, func(a, b int) int { return int(indices[a]) - int(indices[b]) })
	return list
}

// pick returns the elements at some positions.
func pick[T any](from []T, positions []int) []T { return pickRows(from, positions, 1) }

// pickRows returns the rows at some positions.
func pickRows[T any](from []T, positions []int, width int) []T {
	list := make([]T, 0, len(positions)*width)
	for _, p := range positions {
		list = append(list, from[p*width:(p+1)*width]...)
	}
	return list
}

func float64s(x []float32) []float64 {
	y := make([]float64, len(x))
	for i, v := range x {
		y[i] = float64(v)
	}
	return y
}
