package pipelines

import (
	"fmt"
	"slices"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/internal/ref"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The router's schedule, and that of TopK.
var (
	routerSchedule = CoorDescentConfig{Iters: 20, Eps: 0.03, EpsInit: 4, EpsDecay: 0.7}
	topKSchedule   = CoorDescentConfig{Iters: 20, Eps: 0.1}
)

// descentCase is a problem, with the arguments of CoorDescentArgs.
type descentCase struct {
	config                        CoorDescentConfig
	s                             []float32
	mask                          []uint8
	rows, n, routes, block, whole int
	k                             float64
	state                         bool
}

// blocks calls f for each block of each row with its k.
func (c descentCase) blocks(f func(row, from, to int, k float64)) {
	size := c.n
	if c.block > 0 {
		size = c.block
	}
	for row := range c.rows {
		for from := 0; from < c.n; from += size {
			to, k := min(from+size, c.n), c.k
			if to-from < size {
				k = min(k, float64(to-from))
			}
			f(row, from, to, k)
		}
	}
}

// part is the logits and the mask of a block.
func (c descentCase) part(row, from, to int) (s []float32, mask []uint8) {
	s = c.s[row*c.n+from : row*c.n+to]
	if c.mask != nil {
		row /= max(c.routes, 1)
		mask = c.mask[row*c.n+from : row*c.n+to]
	}
	return s, mask
}

// reference is the scores in float64 and in plain float32.
func (c descentCase) reference() (want []float64, naive []float32) {
	rc := ref.CoorDescentConfig{Iters: c.config.Iters, Eps: c.config.Eps, EpsInit: c.config.EpsInit, EpsDecay: c.config.EpsDecay}
	if rc.EpsDecay == 0 {
		rc.EpsDecay = 1
	}
	c.blocks(func(row, from, to int, k float64) {
		s, mask := c.part(row, from, to)
		if to-from <= c.whole {
			for i := range s {
				v := 1.0
				if mask != nil && mask[i] == 0 {
					v = 0
				}
				want, naive = append(want, v), append(naive, float32(v))
			}
			return
		}
		rc.K = k
		want = append(want, ref.CoorDescent(s, mask, 1, to-from, rc)...)
		naive = append(naive, ref.CoorDescent32(s, mask, 1, to-from, rc)...)
	})
	return want, naive
}

// args puts the problem on the bench.
func (c descentCase) args(lab *gputest.Lab, d *CoorDescent) CoorDescentArgs {
	a := CoorDescentArgs{
		Logits: lab.In("logits", c.s), Scores: lab.Out("scores", 4*len(c.s)),
		Rows: c.rows, N: c.n, Routes: c.routes, BlockSize: c.block, K: c.k, WholeUpTo: c.whole,
	}
	if c.mask != nil {
		a.Mask = lab.In("mask", c.mask)
	}
	if c.state {
		size := c.n
		if c.block > 0 {
			size = c.block
		}
		a.State = lab.Out("state", 16*c.rows*((c.n+size-1)/size)*c.config.Iters)
	}
	if bytes := d.Scratch(c.rows, c.n, c.block); bytes > 0 {
		a.Scratch = lab.Out("scratch", int(bytes))
	}
	return a
}

// run runs the problem, checks the scores and that the right kernel ran, and returns the scores.
func (c descentCase) run(t *testing.T, lab *gputest.Lab) []float32 {
	t.Helper()
	d, err := NewCoorDescent(lab.Dev, c.config)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, d.Close()) })
	a := c.args(lab, d)
	lab.Run(func(t *vk.Tape) error { return d.Record(t, a) })
	kernels := []string{"coor_descent"}
	if !a.Scratch.IsZero() {
		kernels = slices.Repeat([]string{"coor_descent_long"}, c.config.Iters+1)
	}
	assert.Equal(t, kernels, lab.Dispatches())
	got := lab.Float32("scores")
	want, naive := c.reference()
	e, bound := ref.MaxErr(got, want), ref.Bound(naive, want, 1e-6)
	fmt.Printf("%-60s err %.2g bound %.2g\n", t.Name(), e.Rel, bound)
	assert.NoError(t, e.Within(bound))
	for i, v := range got {
		if want[i] == 0 && v != 0 && want[i] != float64(naive[i]) || v < 0 || v > 1 {
			t.Fatalf("score %d is %g, want %g", i, v, want[i])
		}
	}
	if c.mask != nil {
		c.blocks(func(row, from, to int, _ float64) {
			_, mask := c.part(row, from, to)
			for i, m := range mask {
				if m == 0 && got[row*c.n+from+i] != 0 {
					t.Fatalf("row %d: the masked entry %d scores %g", row, from+i, got[row*c.n+from+i])
				}
			}
		})
	}
	return got
}

func scaled(x []float32, factor float32) []float32 {
	for i := range x {
		x[i] *= factor
	}
	return x
}

// someMask hides about a third of n entries; the bytes that are not 0 are not all 1.
func someMask(seed uint64, n int) []uint8 {
	mask := make([]uint8, n)
	for i, v := range normal(seed, n) {
		if v < 0.43 {
			mask[i] = 1 + uint8(i%2)*127
		}
	}
	return mask
}

func TestCoorDescentSizes(t *testing.T) {
	lab := gputest.Open(t)
	limit := 0 // of what one workgroup does
	for n := 1; planCoorDescent(lab.Dev.Caps(), n).quads > 0; n *= 2 {
		limit = n
	}
	for _, n := range []int{
		1, 2, 3, 4, 5, 7, 63, 64, 65, 127, 255, 256, 257, 509, 1023, 1024, 1025, 2048, 4093, 4096, 4100, 8192, 16383, 16385, 20011,
		limit - 1, limit, limit + 1, limit + 4096, 2*limit + 3,
	} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			rows := 3
			c := descentCase{config: routerSchedule, s: scaled(normal(uint64(n), rows*n), 4), rows: rows, n: n, k: float64(n)/16 + 0.3}
			c.run(t, gputest.Open(t))
		})
		t.Run(fmt.Sprintf("%d masked", n), func(t *testing.T) {
			rows := 3
			c := descentCase{config: topKSchedule, s: scaled(normal(uint64(n), rows*n), 2), rows: rows, n: n, k: max(1, float64(n)/9)}
			c.mask = someMask(uint64(n), rows*n)
			clear(c.mask[n : 2*n]) // a row without any entry
			c.run(t, gputest.Open(t))
		})
	}
}
