package colt5

import (
	"flag"
	"fmt"
	"strconv"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// checkRandom checks a property for random values: few of them with -short, many in make test-full. A failure is reduced
// to a small case.
func checkRandom(t *testing.T, short, usual, full int, property func(t *testing.T, r *rapid.T)) {
	n := usual
	switch {
	case testing.Short():
		n = 5 * short // rapid divides by 5
	case !gputest.Reduced():
		n = full
	}
	checks := flag.Lookup("rapid.checks")
	if checks.Value.String() == checks.DefValue {
		require.NoError(t, flag.Set("rapid.checks", strconv.Itoa(n)))
		defer flag.Set("rapid.checks", checks.DefValue)
	}
	ran := 0
	defer func() { require.GreaterOrEqual(t, ran, short) }()
	rapid.Check(t, func(r *rapid.T) {
		ran++
		var drawn any
		ok := t.Run("", func(t *testing.T) {
			defer func() { // rapid ends a property by a panic, which must not be one of the subtest
				if drawn = recover(); drawn != nil {
					t.SkipNow()
				}
			}()
			property(t, r)
		})
		if drawn != nil {
			panic(drawn)
		}
		if !ok {
			r.Fatal("failed")
		}
	})
}

// TestRandomFeedForwards compares random feedforwards with the CPU reference, forward and backward.
func TestRandomFeedForwards(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 1 s")
	}
	checkRandom(t, 2, 12, 150, func(t *testing.T, r *rapid.T) {
		c := feedForwardCase{
			b: rapid.IntRange(1, 4).Draw(r, "b"), n: rapid.IntRange(1, 70).Draw(r, "n"), dim: rapid.SampledFrom(inShortMode([]int{smallDim}, []int{4, 7})).Draw(r, "dim"),
			soft: rapid.Bool().Draw(r, "soft"), mask: rapid.Bool().Draw(r, "mask"), cosine: rapid.Bool().Draw(r, "cosine"),
		}
		c.heavy = rapid.IntRange(1, c.n+2).Draw(r, "heavy")
		if rapid.Bool().Draw(r, "blocks") {
			c.block = c.heavy + rapid.IntRange(0, 9).Draw(r, "block")
		}
		c.check(t)
	})
}

// TestRandomAttentions compares random attentions with the CPU reference, forward and backward. Their kernels are those of
// TestAttentionReference, because compiling others takes seconds.
func TestRandomAttentions(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles kernels for 4 s on CPU drivers")
	}
	checkRandom(t, 2, 10, 150, func(t *testing.T, r *rapid.T) {
		c := primeAttention()
		if rapid.Bool().Draw(r, "rotary") {
			c = rotaryAttention()
		}
		n := rapid.IntRange(1, 70).Draw(r, "n")
		c.NumHeavyTokensQ, c.NumHeavyTokensKV = rapid.IntRange(1, n+2).Draw(r, "queries"), rapid.IntRange(1, n+2).Draw(r, "keys")
		if rapid.Bool().Draw(r, "blocks") {
			c.Router.RouteBlockSize = max(c.NumHeavyTokensQ, c.NumHeavyTokensKV) + rapid.IntRange(0, 9).Draw(r, "block")
		}
		if rapid.Bool().Draw(r, "soft") {
			useSoftScores(&c.Router)
			c.RouterStraightThrough, c.MultiplyKeysByScore, c.MultiplyQueriesByScore = false, true, true
		}
		c.UseNullQTokens, c.HasLightAttn = rapid.Bool().Draw(r, "null queries"), rapid.Bool().Draw(r, "light")
		checkAttention(t, c, rapid.IntRange(1, 4).Draw(r, "b"), n, rapid.Bool().Draw(r, "mask"))
	})
}

// matrix is a tensor [items, rows, columns] of a random graph, with the CPU's values and gradients. They are small
// integers, so float32 is exact.
type matrix struct {
	value      *Tensor
	rows       int
	data, grad []float32
	backward   func() // adds its gradient to those of what it was computed from
}

// TestRandomGraphs compares graphs of random sums, parts and concatenations with the CPU, forward and backward, bit for
// bit.
func TestRandomGraphs(t *testing.T) {
	checkRandom(t, 20, 100, 1000, func(t *testing.T, r *rapid.T) {
		gputest.CountCase()
		fx := newFixture(t)
		g := fx.graph()
		items, columns := rapid.IntRange(1, 3).Draw(r, "items"), 4*rapid.IntRange(1, 3).Draw(r, "columns")
		var all []*matrix
		add := func(m matrix) *matrix {
			m.grad = make([]float32, len(m.data))
			all = append(all, &m)
			return &m
		}
		width := func(rows int) int { return rows * columns }
		inputs, tensors := []*matrix{}, feed{}
		for i := range rapid.IntRange(1, 3).Draw(r, "inputs") {
			rows, name := rapid.IntRange(1, 5).Draw(r, "rows"), fmt.Sprint("x", i)
			data := make([]float32, items*width(rows))
			for j := range data {
				data[j] = float32((i+3)*j%17) - 8
			}
			inputs = append(inputs, add(matrix{value: g.Input(name, F32, 0, 0, columns), rows: rows, data: data}))
			tensors[name] = fx.floats(data, items, rows, columns)
		}
		// part is columns of rows [first, first + count) of an item.
		part := func(list []float32, rows, item, first, count int) []float32 {
			return list[item*width(rows)+width(first):][:width(count)]
		}
		// join computes a concatenation of parts, and gives back its gradients.
		type source struct {
			of           *matrix
			first, count int
		}
		join := func(value *Tensor, list ...source) *matrix {
			rows := 0
			for _, s := range list {
				rows += s.count
			}
			m := add(matrix{value: value, rows: rows, data: make([]float32, items*width(rows))})
			for item := range items {
				at := 0
				for _, s := range list {
					copy(part(m.data, rows, item, at, s.count), part(s.of.data, s.of.rows, item, s.first, s.count))
					at += s.count
				}
			}
			m.backward = func() {
				for item := range items {
					at := 0
					for _, s := range list {
						to := part(s.of.grad, s.of.rows, item, s.first, s.count)
						for j, v := range part(m.grad, rows, item, at, s.count) {
							to[j] += v
						}
						at += s.count
					}
				}
			}
			return m
		}
		pick := func(label string) *matrix { return all[rapid.IntRange(0, len(all)-1).Draw(r, label)] }
		for range rapid.IntRange(1, 8).Draw(r, "nodes") {
			a := pick("a")
			switch rapid.IntRange(0, 2).Draw(r, "operation") {
			case 0: // a sum of two that have the same shape
				b := pick("b")
				if b.rows != a.rows {
					b = a
				}
				sum := make([]float32, len(a.data))
				for i := range sum {
					sum[i] = a.data[i] + b.data[i]
				}
				m := add(matrix{value: g.Add(a.value, b.value), rows: a.rows, data: sum})
				m.backward = func() {
					for i, v := range m.grad {
						a.grad[i] += v
						b.grad[i] += v
					}
				}
			case 1:
				first := rapid.IntRange(0, a.rows-1).Draw(r, "first")
				count := rapid.IntRange(1, a.rows-first).Draw(r, "count")
				join(g.Rows(a.value, first, count), source{a, first, count})
			case 2:
				b := pick("b")
				join(g.Concat(1, a.value, b.value), source{a, 0, a.rows}, source{b, 0, b.rows})
			}
		}
		y := all[len(all)-1]
		g.Output("y", y.value)
		out := fx.tensor(F32, items, y.rows, columns)
		tensors["y"] = out
		for i := range y.grad {
			y.grad[i] = float32(i%5) - 2
		}
		back := &Backward{Upstream: feed{"y": fx.floats(y.grad, items, y.rows, columns)}, Inputs: feed{}}
		for i, x := range inputs {
			back.Inputs[fmt.Sprint("x", i)] = fx.tensor(F32, items, x.rows, columns)
		}
		require.NoError(t, g.Run(t.Context(), tensors, GraphOptions{Backward: back}))
		require.Equal(t, y.data, fx.read(out))
		for i := len(all) - 1; i >= 0; i-- {
			if all[i].backward != nil {
				all[i].backward()
			}
		}
		for i, x := range inputs {
			require.Equal(t, x.grad, fx.read(back.Inputs[fmt.Sprint("x", i)]), "gradient of x%d", i)
		}
	})
}
