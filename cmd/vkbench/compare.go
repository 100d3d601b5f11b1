package main

import (
	"fmt"
	"slices"

	"github.com/colt5-vulkan/colt5/internal/golden"
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

// routing is the shape of a routing, for comparing it.
type routing struct {
	batch, routes, n, k, dim int
	block                    int // tokens that route on their own; n / block of them in a row
	mask                     []uint8
}

// routed compares what a router decided with a golden route: logits where the tokens are real, soft scores, and, block by block, the
// set of chosen tokens with their scores. y, if there is one, are the chosen tokens times their scores.
func (c *comparison) routed(of *golden.Case, name string, r routing, got values, y *golden.Tensor) error {
	want, ok := of.Routes[name]
	if !ok {
		return fmt.Errorf("the case has no route %q", name)
	}
	if r.n%r.block != 0 {
		return fmt.Errorf("%d tokens in blocks of %d: golden cases have whole blocks only", r.n, r.block)
	}
	blocks := r.n / r.block
	logits, expected := r.byBlock(got.floats["logits"]), want.Logits.Float64s()
	for i, real := range r.byBlock(r.real()) {
		if real == 0 && i < len(expected) && i < len(logits) {
			logits[i], expected[i] = 0, 0
		}
	}
	c.near("logits", logits, expected, of.ScoreBound())
	c.near("scores_all", r.byBlock(got.floats["scores_all"]), want.ScoresAll.Float64s(), of.ScoreBound())

	slots := r.k / blocks
	indices, scores := got.ints["indices"], got.floats["scores"]
	if len(want.Indices.I32) != len(indices) || y != nil && len(y.F32) != len(indices)*r.dim {
		return fmt.Errorf("the route has %d slots, want %d", len(indices), len(want.Indices.I32))
	}
	var chosen rows
	for at := 0; at < len(indices); at += slots {
		ours, theirs := filled(indices, scores, at, slots), filled(want.Indices.I32, want.Scores.F32, at, slots)
		if err := ref.SameSet(pick(indices, ours), pick(want.Indices.I32, theirs)); err != nil {
			c.problem("indices of block %d: %v", at/slots, err)
			return nil // rows of other tokens cannot be compared
		}
		chosen.add(ours, theirs)
	}
	if len(chosen.ours) == 0 {
		return nil
	}
	c.near("scores", pick(scores, chosen.ours), floats(pick(want.Scores.F32, chosen.theirs)), of.ScoreBound())
	if y != nil {
		c.near("y", pickRows(got.floats["tokens"], chosen.ours, r.dim), floats(pickRows(y.F32, chosen.theirs, r.dim)), of.OutputBound("y"))
	}
	return nil
}

// rows pairs slots that hold the same token.
type rows struct{ ours, theirs []int }

func (r *rows) add(ours, theirs []int) {
	r.ours, r.theirs = append(r.ours, ours...), append(r.theirs, theirs...)
}

// real is the mask of all tokens, a row for each route.
func (r routing) real() []float32 {
	all := make([]float32, r.batch*r.routes*r.n)
	for i := range all {
		all[i] = 1
		if r.mask != nil {
			all[i] = float32(r.mask[i/r.n/r.routes*r.n+i%r.n])
		}
	}
	return all
}

// byBlock reorders [batch, routes, blocks, n] to [batch, blocks, routes, n], the order of golden rows.
func (r routing) byBlock(x []float32) []float32 {
	blocks := r.n / r.block
	y := make([]float32, 0, len(x))
	for i := range r.batch {
		for j := range blocks {
			for route := range r.routes {
				y = append(y, x[((i*r.routes+route)*blocks+j)*r.block:][:r.block]...)
			}
		}
	}
	return y
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
