package pipelines

import (
	"fmt"
	"math"
	"slices"
	"sort"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/golden"
	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/internal/ref"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The schedules of the router and of TopK.
var (
	routerSchedule = CoorDescentConfig{Iters: 20, Eps: 0.03, EpsInit: 4, EpsDecay: 0.7}
	topKSchedule   = CoorDescentConfig{Iters: 20, Eps: 0.1}
)

// descentCase is a problem on rows or blocks. Its fields are those of CoorDescentArgs.
type descentCase struct {
	config                                CoorDescentConfig
	logits                                []float32
	mask                                  []uint8
	rows, n, routes, block, selectAllUpTo int
	k                                     float64
	state                                 bool
}

// blockSize is the length of a block, or of a row if there are no blocks.
func (c descentCase) blockSize() int {
	if c.block > 0 {
		return c.block
	}
	return c.n
}

// blocks calls f for each block of each row with its k.
func (c descentCase) blocks(f func(row, from, to int, k float64)) {
	size := c.blockSize()
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

// segment is the logits and the mask of a block.
func (c descentCase) segment(row, from, to int) (s []float32, mask []uint8) {
	s = c.logits[row*c.n+from : row*c.n+to]
	if c.mask != nil {
		row /= max(c.routes, 1)
		mask = c.mask[row*c.n+from : row*c.n+to]
	}
	return s, mask
}

// reference returns the scores in float64 and in plain float32.
func (c descentCase) reference() (want []float64, naive []float32) {
	rc := ref.CoorDescentConfig{Iters: c.config.Iters, Eps: c.config.Eps, EpsInit: c.config.EpsInit, EpsDecay: c.config.EpsDecay}
	if rc.EpsDecay == 0 {
		rc.EpsDecay = 1
	}
	c.blocks(func(row, from, to int, k float64) {
		s, mask := c.segment(row, from, to)
		if to-from <= c.selectAllUpTo {
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

// args makes the ranges of the problem.
func (c descentCase) args(gpu *gputest.Harness, d *CoorDescent) CoorDescentArgs {
	a := CoorDescentArgs{
		Logits: gpu.In("logits", c.logits), Scores: gpu.Out("scores", 4*len(c.logits)),
		Rows: c.rows, N: c.n, Routes: c.routes, BlockSize: c.block, K: c.k, SelectAllUpTo: c.selectAllUpTo,
	}
	if c.mask != nil {
		a.Mask = gpu.In("mask", c.mask)
	}
	if c.state {
		a.State = gpu.Out("state", 16*c.rows*((c.n+c.blockSize()-1)/c.blockSize())*c.config.Iters)
	}
	if bytes := d.Scratch(c.rows, c.n, c.block); bytes > 0 {
		a.Scratch = gpu.Out("scratch", int(bytes))
	}
	return a
}

// openCoorDescent returns a kernel that is closed when the test ends.
func openCoorDescent(t *testing.T, gpu *gputest.Harness, config CoorDescentConfig) *CoorDescent {
	t.Helper()
	d, err := NewCoorDescent(gpu.Dev, config)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, d.Close()) })
	return d
}

// run runs the problem, checks the scores and which kernel ran, and returns the scores.
func (c descentCase) run(t *testing.T, gpu *gputest.Harness) []float32 {
	t.Helper()
	d := openCoorDescent(t, gpu, c.config)
	a := c.args(gpu, d)
	gpu.Run(func(list *vk.CommandList) error { return d.Record(list, a) })
	kernels := []string{"coor_descent"}
	if !a.Scratch.IsZero() {
		kernels = slices.Repeat([]string{"coor_descent_long"}, c.config.Iters+1)
	}
	assert.Equal(t, kernels, gpu.StepNames())
	got := gpu.Float32("scores")
	want, naive := c.reference()
	e, bound := ref.MaxErr(got, want), ref.Bound(naive, want, 1e-6)
	assert.NoError(t, e.Within(bound))
	for i, v := range got {
		if v < 0 || v > 1 || want[i] == 0 && v != 0 {
			t.Fatalf("score %d is %g, want %g", i, v, want[i])
		}
	}
	if c.mask != nil {
		c.blocks(func(row, from, to int, _ float64) {
			_, mask := c.segment(row, from, to)
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

// randomMask masks about a third of n entries. Bytes of valid entries are 1 or 128.
func randomMask(seed uint64, n int) []uint8 {
	mask := make([]uint8, n)
	for i, v := range normal(seed, n) {
		if v < 0.43 {
			mask[i] = 1 + uint8(i%2)*127
		}
	}
	return mask
}

// longestInRegisters is the longest segment that one workgroup holds in registers.
func longestInRegisters(caps vk.Caps) int {
	return sort.Search(1<<20, func(n int) bool { return planCoorDescent(limitsOfCaps(caps), n+1, true).vec4PerThread == 0 })
}

func TestCoorDescentSizes(t *testing.T) {
	limit := longestInRegisters(gputest.Device(t).Caps())
	sizes := []int{
		1, 2, 3, 4, 5, 7, 63, 64, 65, 127, 255, 256, 257, 509, 1023, 1024, 1025, 2048, 4093, 4096, 4100, 8192, 16383, 16385, 20011,
		limit - 1, limit, limit + 1, limit + 4096, 2*limit + 3,
	}
	if testing.Short() { // all sizes take 20 s; those of 257 to 512 entries share their kernels with other tests
		sizes = []int{509, limit + 1}
	}
	for _, n := range sizes {
		const rows = 3
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			c := descentCase{config: routerSchedule, logits: scaled(normal(uint64(n), rows*n), 4), rows: rows, n: n, k: float64(n)/16 + 0.3}
			c.run(t, gputest.New(t))
		})
		if testing.Short() && n > limit {
			continue
		}
		t.Run(fmt.Sprintf("%d masked", n), func(t *testing.T) {
			c := descentCase{config: topKSchedule, logits: scaled(normal(uint64(n), rows*n), 2), rows: rows, n: n, k: max(1, float64(n)/9)}
			c.mask = randomMask(uint64(n), rows*n)
			clear(c.mask[n : 2*n]) // a row without a valid entry
			c.run(t, gputest.New(t))
		})
	}
}

// The longest row that the library supports.
func TestCoorDescentLongRow(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 7 s")
	}
	const n = 4194304
	c := descentCase{config: CoorDescentConfig{Iters: 4, Eps: 0.1, EpsInit: 1, EpsDecay: 0.5}, logits: scaled(normal(5, n), 3), rows: 1, n: n, k: 1024 * 9 / 8}
	c.run(t, gputest.New(t))
}

// Every kind of schedule, on a segment in registers and on a long one.
func TestCoorDescentSchedules(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles kernels for 1 s on CPU drivers")
	}
	limit := longestInRegisters(gputest.Device(t).Caps())
	for i, config := range []CoorDescentConfig{
		{Iters: 1, Eps: 0.5},
		{Iters: 1, Eps: 0.03, EpsInit: 4, EpsDecay: 0.7}, // the eps of the scores differs from that of the iteration
		{Iters: 2, Eps: 0.03, EpsInit: 4, EpsDecay: 0.7},
		{Iters: 3, Eps: 1, EpsInit: 2, EpsDecay: 0.5},
		{Iters: 50, Eps: 1},
		{Iters: 50, Eps: 0.1, EpsInit: 0.01}, // raised to Eps
		{Iters: 50, Eps: 0.03, EpsInit: 4, EpsDecay: 0.7},
		{Iters: 200, Eps: 0.02, EpsInit: 10, EpsDecay: 0.97},
		{Iters: 6, Eps: 1e-4},
		{Iters: 500, Eps: 1e-3, EpsInit: 4, EpsDecay: 0.999}, // the product of many factors
	} {
		for _, n := range []int{500, limit + 100} {
			for _, k := range []float64{1, 72} {
				if gputest.Reduced() && n > limit && i%2 == 0 {
					continue // all take 20 s
				}
				t.Run(fmt.Sprintf("%+v n %d k %g", config, n, k), func(t *testing.T) {
					c := descentCase{config: config, logits: scaled(normal(uint64(n), n), 3), rows: 1, n: n, k: k}
					c.run(t, gputest.New(t))
				})
			}
		}
	}
}

func TestCoorDescentEdges(t *testing.T) {
	limit := longestInRegisters(gputest.Device(t).Caps())
	fill := func(n int, f func(i int) float32) []float32 {
		s := make([]float32, n)
		for i := range s {
			s[i] = f(i)
		}
		return s
	}
	inf := float32(math.Inf(1))
	for _, test := range []struct {
		name string
		k    float64
		f    func(i int) float32
	}{
		{"all equal", 5, func(int) float32 { return -3.25 }},
		{"ties", 8, func(i int) float32 { return float32(i % 5) }},
		{"all at the bound", 64, func(i int) float32 { return float32(i%3) * 1e-3 }},
		{"k is n", 509, func(i int) float32 { return float32(i%97) / 16 }},
		{"k more than n", 1e6, func(i int) float32 { return float32(i%97) / 16 }},
		{"k below 1", 0.5, func(i int) float32 { return float32(i%97) / 16 }},
		{"k tiny", 1e-6, func(i int) float32 { return float32(i%97) / 16 }},
		{"large", 9, func(i int) float32 { return float32(i%101-50) * 200 }},
		{"far from 0", 9, func(i int) float32 { return 1e4 + float32(i%101)/8 }},
		{"far below 0", 9, func(i int) float32 { return -1e4 + float32(i%101)/8 }},
		{"huge", 9, func(i int) float32 { return float32(i%101-50) * 2e28 }},
		{"one huge", 1, func(i int) float32 { return float32(i/500*500) * 2e27 }},
		{"minus infinity", 9, func(i int) float32 {
			if i%3 == 0 {
				return -inf
			}
			return float32(i%97) / 16
		}},
		{"denormal", 9, func(i int) float32 { return float32(i%97) * 1e-44 }},
	} {
		for _, n := range []int{509, limit + 513} {
			for _, config := range []CoorDescentConfig{routerSchedule, topKSchedule} {
				if gputest.Reduced() && (n > limit || config != routerSchedule) {
					continue // long segments take 5 s
				}
				t.Run(fmt.Sprintf("%s n %d eps %g", test.name, n, config.Eps), func(t *testing.T) {
					c := descentCase{config: config, logits: fill(n, test.f), rows: 1, n: n, k: test.k}
					c.run(t, gputest.New(t))
				})
			}
		}
	}
}

// Blocks with a shorter last block, routes that share a mask, and blocks that select all. A block has the scores that
// it has as a row.
func TestCoorDescentBlocks(t *testing.T) {
	limit := longestInRegisters(gputest.Device(t).Caps())
	for _, test := range []struct{ rows, n, routes, block, selectAllUpTo int }{
		{4, 100, 2, 32, 0},
		{6, 101, 3, 37, 27}, // the last block has 27 entries and selects all
		{6, 101, 3, 37, 26},
		{2, 64, 1, 64, 64},
		{2, 64, 2, 100, 0}, // blocks longer than the row
		{4, 1031, 4, 256, 7},
		{2, 96, 2, 1, 0},
		{2, 3*limit + 5, 2, limit + 4, 0},
		{2, 2*limit + 70, 2, limit + 36, limit - 2}, // the last block fits one workgroup, but takes the path of the full one
		{1, limit + 9, 1, 0, limit + 9},
	} {
		for _, state := range []bool{false, true} {
			if testing.Short() && (state || test.n > 2000) {
				continue
			}
			t.Run(fmt.Sprintf("%+v state %v", test, state), func(t *testing.T) {
				c := descentCase{
					config: CoorDescentConfig{Iters: 8, Eps: 0.05, EpsInit: 1, EpsDecay: 0.5}, logits: scaled(normal(11, test.rows*test.n), 3),
					rows: test.rows, n: test.n, routes: test.routes, block: test.block, selectAllUpTo: test.selectAllUpTo, k: 4.5, state: state,
				}
				c.mask = randomMask(12, test.rows*test.n/test.routes)
				got := c.run(t, gputest.New(t))
				if test.block == 0 || test.n > 2000 {
					return
				}
				full := test.n / test.block * test.block // entries in full blocks
				if full == 0 {
					return
				}
				alone := c
				alone.rows, alone.n, alone.block, alone.routes = 1, test.block, 0, 0
				from := c.n*(c.rows-1) + full - test.block // the last block of full length
				alone.logits = c.logits[from : from+test.block]
				from = c.n*(c.rows/c.routes-1) + full - test.block
				alone.mask = c.mask[from : from+test.block]
				from = c.n*(c.rows-1) + full - test.block
				assert.Equal(t, got[from:from+test.block], alone.run(t, gputest.New(t)))
			})
		}
	}
}

// Scores may overwrite the logits.
func TestCoorDescentInPlace(t *testing.T) {
	limit := longestInRegisters(gputest.Device(t).Caps())
	for _, n := range []int{130, 512, limit + 2} {
		if testing.Short() && n > limit {
			continue // takes 2 s
		}
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			c := descentCase{config: topKSchedule, logits: normal(3, 2*n), rows: 2, n: n, k: 10}
			want := c.run(t, gputest.New(t))
			gpu := gputest.New(t)
			d := openCoorDescent(t, gpu, c.config)
			a := CoorDescentArgs{Logits: gpu.InOut("logits and scores", c.logits), Rows: 2, N: n, K: 10}
			a.Scores = a.Logits
			if bytes := d.Scratch(2, n, 0); bytes > 0 {
				a.Scratch = gpu.Out("scratch", int(bytes))
			}
			gpu.Run(func(list *vk.CommandList) error { return d.Record(list, a) })
			assert.Equal(t, want, gpu.Float32("logits and scores"))
		})
	}
}

func TestCoorDescentGolden(t *testing.T) {
	if testing.Short() {
		t.Skip("TestCoorDescentSizes has the same kernels; vkbench verifies a golden case")
	}
	paths, err := golden.Cases("../testdata/golden")
	require.NoError(t, err)
	cases := 0
	for _, path := range paths {
		g, err := golden.Load(path)
		require.NoError(t, err)
		if g.Module != "CoordinateDescent" {
			continue
		}
		cases++
		t.Run(g.Name, func(t *testing.T) {
			var config struct {
				Iters    int     `json:"n_iters"`
				K        float64 `json:"k"`
				Eps      float64 `json:"eps"`
				EpsInit  float64 `json:"eps_init"`
				EpsDecay float64 `json:"eps_decay"`
			}
			require.NoError(t, g.DecodeConfig(&config))
			s := g.Inputs["s"]
			c := descentCase{
				config: CoorDescentConfig{config.Iters, config.Eps, config.EpsInit, config.EpsDecay},
				logits: s.F32, rows: s.Shape[0], n: s.Shape[1], k: config.K,
			}
			if mask := g.Inputs["mask"].U8; len(mask) > 0 {
				c.mask = mask
			}
			got := c.run(t, gputest.New(t))
			assert.NoError(t, ref.MaxErr(got, g.Outputs["y"].Float64s()).Within(g.OutputBound("y")))
		})
	}
	assert.Equal(t, 18, cases)
}
