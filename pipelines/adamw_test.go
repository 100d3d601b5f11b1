package pipelines

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/internal/ref"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// stateWords returns the words of an optimiser's state, for a kernel that reads it.
func stateWords(s OptimizerStateWords) []uint32 {
	f := math.Float32bits
	return []uint32{s.Steps, s.Updates, s.Good, s.Skip, f(s.Scale), f(s.Factor), f(s.Rate), f(s.StepSize), f(s.Inverse), f(s.Loss), f(s.Norm), f(s.Labels), 0, 0, 0, 0}
}

// adamWState is the state at step t with its reference's numbers.
func adamWState(a ref.AdamWArgs) OptimizerStateWords {
	return OptimizerStateWords{
		Factor: float32(a.Factor), Rate: float32(a.Rate), StepSize: float32(a.Rate / a.Correction1), Inverse: float32(1 / a.Correction2),
	}
}

// moments returns elements of v: squares.
func moments(seed uint64, n int) []float32 {
	v := normal(seed, n)
	for i := range v {
		v[i] *= v[i]
	}
	return v
}

// adamWArgs makes the memory of a step over parameters: "p0", "p1", .. , and "g", "m" and "v" with guard values in the paddings.
// Those of which all elements decay decay.
func adamWArgs(gpu *gputest.Harness, list []ref.AdamWArgs, s OptimizerStateWords) AdamWArgs {
	var a AdamWArgs
	var g, m, v []float32
	for i, p := range list {
		n := len(p.P)
		a.Parameters = append(a.Parameters, AdamWParameter{P: gpu.InOut(fmt.Sprint("p", i), p.P), N: n, Decays: p.Decayed == n})
		padding := []float32{77, 77, 77}[:(4-n%4)%4]
		g, m, v = slices.Concat(g, p.G, padding), slices.Concat(m, p.M, padding), slices.Concat(v, p.V, padding)
	}
	a.Table, a.State = gpu.In("table", AdamWTable(a.Parameters)), gpu.In("state", stateWords(s))
	a.G, a.M, a.V = gpu.In("g", g), gpu.InOut("m", m), gpu.InOut("v", v)
	return a
}

// All sizes are parameters of one step, some of which decay.
func TestAdamW(t *testing.T) {
	for _, step := range []float64{1, 10, 100000} {
		t.Run(fmt.Sprintf("step %v", step), func(t *testing.T) { testAdamW(t, step, 5, 1, 1023, 2, 1025, 3, 1024, 4, 4099, 2048, 70001, 1) })
	}
}

func testAdamW(t *testing.T, step float64, sizes ...int) {
	var list []ref.AdamWArgs
	for i, n := range sizes {
		seed := uint64(4 * i)
		a := ref.AdamWArgs{
			P: normal(seed+1, n), G: normal(seed+2, n), M: normal(seed+3, n), V: moments(seed+4, n),
			Beta1: 0.9, Beta2: 0.999, Eps: 1e-8, Decay: 0.1, Decayed: i % 2 * n, Factor: 0.37, Rate: 0.25,
			Correction1: 1 - math.Pow(0.9, step), Correction2: 1 - math.Pow(0.999, step),
		}
		if step == 1 {
			clear(a.M)
			clear(a.V)
			a.G[n/2] = 0 // 0 / (0 + eps)
			a.G[n-1] = 1e-6
		}
		list = append(list, a)
	}
	gpu, c := gputest.New(t), list[0]
	w, err := NewAdamW(gpu.Dev, AdamWConfig{Beta1: c.Beta1, Beta2: c.Beta2, Eps: c.Eps, Decay: c.Decay})
	require.NoError(t, err)
	defer w.Close()
	args := adamWArgs(gpu, list, adamWState(c))
	gpu.Run(func(list *vk.CommandList) error { return w.Record(list, args) })
	allM, allV, first := gpu.Float32("m"), gpu.Float32("v"), 0
	for i, a := range list {
		n := len(a.P)
		p, m, v := ref.AdamW(a)
		p32, m32, v32 := ref.AdamW32(a)
		assert.NoError(t, ref.MaxErr(gpu.Float32(fmt.Sprint("p", i)), p).Within(ref.Bound(p32, p, 1e-6)), "p of %d", n)
		assert.NoError(t, ref.MaxErr(allM[first:][:n], m).Within(ref.Bound(m32, m, 1e-7)), "m of %d", n)
		assert.NoError(t, ref.MaxErr(allV[first:][:n], v).Within(ref.Bound(v32, v, 1e-7)), "v of %d", n)
		for first += n; first%4 != 0; first++ {
			assert.Equal(t, []float32{77, 77}, []float32{allM[first], allV[first]}, "the padding after %d", n)
		}
	}
	assert.Len(t, allM, first)
}

// A skipped step leaves every bit as it is, whatever the gradients hold.
func TestAdamWSkip(t *testing.T) {
	const n = 1027
	gpu := gputest.New(t)
	w, err := NewAdamW(gpu.Dev, AdamWConfig{Beta1: 0.9, Beta2: 0.999, Eps: 1e-8})
	require.NoError(t, err)
	defer w.Close()
	g := normal(2, n)
	g[0], g[n-1] = float32(math.NaN()), float32(math.Inf(1))
	a := ref.AdamWArgs{P: normal(1, n), G: g, M: normal(3, n), V: moments(4, n), Decayed: n}
	args := adamWArgs(gpu, []ref.AdamWArgs{a}, OptimizerStateWords{Skip: 1, Factor: 1, Rate: 1, StepSize: 1, Inverse: 1})
	gpu.Run(func(list *vk.CommandList) error { return w.Record(list, args) })
	assert.Equal(t, a.P, gpu.Float32("p0"))
	assert.Equal(t, a.M, gpu.Float32("m")[:n])
	assert.Equal(t, a.V, gpu.Float32("v")[:n])
}

// The square of a large gradient does not overflow: at the first step every element moves by the learning rate.
func TestAdamWLarge(t *testing.T) {
	g := []float32{1, 1e10, -1e18, 1e19, -3e38, math.MaxFloat32}
	n := len(g)
	gpu := gputest.New(t)
	w, err := NewAdamW(gpu.Dev, AdamWConfig{Beta1: 0.9, Beta2: 0.999, Eps: 1e-8})
	require.NoError(t, err)
	defer w.Close()
	a := ref.AdamWArgs{P: make([]float32, n), G: g, M: make([]float32, n), V: make([]float32, n)}
	args := adamWArgs(gpu, []ref.AdamWArgs{a}, OptimizerStateWords{Factor: 1, Rate: 0.5, StepSize: 5, Inverse: 1000})
	gpu.Run(func(list *vk.CommandList) error { return w.Record(list, args) })
	for i, p := range gpu.Float32("p0") {
		assert.InEpsilon(t, math.Copysign(0.5, -float64(g[i])), p, 1e-5, "gradient %g", g[i])
	}
	for _, v := range gpu.Float32("v") {
		assert.False(t, math.IsInf(float64(v), 0))
	}
}

func TestAdamWBadInput(t *testing.T) {
	gpu := gputest.New(t)
	good := AdamWConfig{Beta1: 0.9, Beta2: 0.999, Eps: 1e-8, Decay: 0.01}
	for want, change := range map[string]func(*AdamWConfig){
		"Beta1 is 1, want at least 0 and less than 1":   func(c *AdamWConfig) { c.Beta1 = 1 },
		"Beta2 is -1, want at least 0 and less than 1":  func(c *AdamWConfig) { c.Beta2 = -1 },
		"Decay is NaN, want at least 0 and less than 3": func(c *AdamWConfig) { c.Decay = math.NaN() },
		"Eps is 0, want 1.17":                           func(c *AdamWConfig) { c.Eps = 0 },
	} {
		c := good
		change(&c)
		_, err := NewAdamW(gpu.Dev, c)
		assert.ErrorContains(t, err, want)
	}
	w, err := NewAdamW(gpu.Dev, good)
	require.NoError(t, err)
	x, y := gpu.In("x", normal(1, 8)), gpu.Out("y", 32)
	two := func(n int, p vk.Range) []AdamWParameter {
		return []AdamWParameter{{P: y.Slice(0, 12), N: 3}, {P: p, N: n}}
	}
	args := AdamWArgs{
		Parameters: two(2, y.Slice(16, 8)), Table: gpu.In("table", make([]uint32, 8)), G: x, M: y, V: y,
		State: gpu.In("state", stateWords(OptimizerStateWords{})),
	}
	assertRejected(t, gpu, args, w.Record, []badArgs[AdamWArgs]{
		{"there are 0 parameters, want at least 1", func(a *AdamWArgs) { a.Parameters = nil }},
		{"N of parameter 1 is 0, want 1 to 2147483647", func(a *AdamWArgs) { a.Parameters = two(0, y.Slice(16, 8)) }},
		{"p of parameter 1 is missing, want [N 2] f32, 8 bytes", func(a *AdamWArgs) { a.Parameters = two(2, vk.Range{}) }},
		{"p of parameter 1 starts at", func(a *AdamWArgs) { a.Parameters = two(2, y.Slice(20, 8)) }},
		{"table has 16 bytes, want AdamWTableBytes, 32 bytes", func(a *AdamWArgs) { a.Table = a.Table.Slice(0, 16) }},
		{"g has 28 bytes, want [E 8] f32, 32 bytes", func(a *AdamWArgs) { a.G = x.Slice(0, 28) }},
		{"m is missing, want [E 8] f32, 32 bytes", func(a *AdamWArgs) { a.M = vk.Range{} }},
		{"v is missing, want [E 8] f32, 32 bytes", func(a *AdamWArgs) { a.V = vk.Range{} }},
		{"state has 32 bytes, want OptimizerStateBytes, 64 bytes", func(a *AdamWArgs) { a.State = x }},
	})
	require.NoError(t, w.Close())
	require.NoError(t, w.Close())
}
