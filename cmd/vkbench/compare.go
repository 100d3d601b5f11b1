package main

import (
	"fmt"
	"slices"

	"github.com/colt5-vulkan/colt5/internal/ref"
)

// comparison collects what a case's results are like.
type comparison struct {
	worst    quantity // of all, that with the largest part of its bound
	problems []string
}

// quantity is the error of a result, and its bound.
type quantity struct {
	name       string
	err, bound float64
}

func (c *comparison) problem(format string, args ...any) {
	c.problems = append(c.problems, fmt.Sprintf(format, args...))
}

// near compares floats within a bound.
func (c *comparison) near(name string, got []float32, want []float64, bound float64) {
	e := ref.MaxErr(got, want)
	if c.worst.name == "" || e.Rel/bound > c.worst.err/c.worst.bound {
		c.worst = quantity{name, e.Rel, bound}
	}
	if err := e.Within(bound); err != nil {
		c.problem("%s: %v", name, err)
	}
}

// same compares integers.
func (c *comparison) same(name string, got, want []int32) {
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

// filled lists the filled slots among count from at on, by rising token.
func filled(indices []int32, scores []float32, at, count int) []int {
	var list []int
	for i := at; i < at+count; i++ {
		if scores[i] != 0 {
			list = append(list, i)
		}
	}
	slices.SortStableFunc(list, func(a, b int) int { return int(indices[a]) - int(indices[b]) })
	return list
}

func pick[T any](from []T, places []int) []T { return pickRows(from, places, 1) }

func pickRows[T any](from []T, places []int, width int) []T {
	list := make([]T, 0, len(places)*width)
	for _, p := range places {
		list = append(list, from[p*width:(p+1)*width]...)
	}
	return list
}

func floats(x []float32) []float64 {
	y := make([]float64, len(x))
	for i, v := range x {
		y[i] = float64(v)
	}
	return y
}
