package pipelines

import (
	"fmt"
	"math"
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

func TestAdamW(t *testing.T) {
	for _, n := range []int{1, 2, 3, 4, 5, 1023, 1024, 1025, 4099, 70001} {
		for _, step := range []float64{1, 10, 100000} {
			for _, decayed := range []int{0, n / 2 &^ 3, n} {
				t.Run(fmt.Sprintf("%d step %v decayed %d", n, step, decayed), func(t *testing.T) {
					testAdamW(t, n, step, decayed)
				})
			}
		}
	}
}

func testAdamW(t *testing.T, n int, step float64, decayed int) {
	a := ref.AdamWArgs{
		P: normal(1, n), G: normal(2, n), M: normal(3, n), V: moments(4, n),
		Beta1: 0.9, Beta2: 0.999, Eps: 1e-8, Decay: 0.1, Decayed: decayed, Factor: 0.37, Rate: 0.25,
		Correction1: 1 - math.Pow(0.9, step), Correction2: 1 - math.Pow(0.999, step),
	}
	if step == 1 {
		clear(a.M)
		clear(a.V)
		a.G[n/2] = 0 // 0 / (0 + eps)
		a.G[n-1] = 1e-6
	}
	gpu := gputest.New(t)
	w, err := NewAdamW(gpu.Dev, AdamWConfig{Beta1: a.Beta1, Beta2: a.Beta2, Eps: a.Eps, Decay: a.Decay})
	require.NoError(t, err)
	defer w.Close()
	args := AdamWArgs{
		P: gpu.InOut("p", a.P), G: gpu.In("g", a.G), M: gpu.InOut("m", a.M), V: gpu.InOut("v", a.V),
		State: gpu.In("state", stateWords(adamWState(a))), N: n, Decayed: decayed,
	}
	gpu.Run(func(list *vk.CommandList) error { return w.Record(list, args) })
	p, m, v := ref.AdamW(a)
	p32, m32, v32 := ref.AdamW32(a)
	assert.NoError(t, ref.MaxErr(gpu.Float32("p"), p).Within(ref.Bound(p32, p, 1e-6)), "p")
	assert.NoError(t, ref.MaxErr(gpu.Float32("m"), m).Within(ref.Bound(m32, m, 1e-7)), "m")
	assert.NoError(t, ref.MaxErr(gpu.Float32("v"), v).Within(ref.Bound(v32, v, 1e-7)), "v")
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
	p, m, v := normal(1, n), normal(3, n), moments(4, n)
	state := OptimizerStateWords{Skip: 1, Factor: 1, Rate: 1, StepSize: 1, Inverse: 1}
	args := AdamWArgs{
		P: gpu.InOut("p", p), G: gpu.In("g", g), M: gpu.InOut("m", m), V: gpu.InOut("v", v),
		State: gpu.In("state", stateWords(state)), N: n, Decayed: n,
	}
	gpu.Run(func(list *vk.CommandList) error { return w.Record(list, args) })
	assert.Equal(t, p, gpu.Float32("p"))
	assert.Equal(t, m, gpu.Float32("m"))
	assert.Equal(t, v, gpu.Float32("v"))
}

// The square of a large gradient does not overflow: at the first step every element moves by the learning rate.
func TestAdamWLarge(t *testing.T) {
	g := []float32{1, 1e10, -1e18, 1e19, -3e38, math.MaxFloat32}
	n := len(g)
	gpu := gputest.New(t)
	w, err := NewAdamW(gpu.Dev, AdamWConfig{Beta1: 0.9, Beta2: 0.999, Eps: 1e-8})
	require.NoError(t, err)
	defer w.Close()
	state := OptimizerStateWords{Factor: 1, Rate: 0.5, StepSize: 5, Inverse: 1000}
	args := AdamWArgs{
		P: gpu.InOut("p", make([]float32, n)), G: gpu.In("g", g), M: gpu.InOut("m", make([]float32, n)), V: gpu.InOut("v", make([]float32, n)),
		State: gpu.In("state", stateWords(state)), N: n,
	}
	gpu.Run(func(list *vk.CommandList) error { return w.Record(list, args) })
	for i, p := range gpu.Float32("p") {
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
	x, y := gpu.In("x", normal(1, 6)), gpu.Out("y", 24)
	args := AdamWArgs{P: y, G: x, M: y, V: y, State: gpu.In("state", stateWords(OptimizerStateWords{})), N: 6, Decayed: 6}
	assertRejected(t, gpu, args, w.Record, []badArgs[AdamWArgs]{
		{"N is 0, want 1 to 17179869184", func(a *AdamWArgs) { a.N = 0 }},
		{"p is missing, want [N 6] f32, 24 bytes", func(a *AdamWArgs) { a.P = vk.Range{} }},
		{"g has 20 bytes, want [N 6] f32, 24 bytes", func(a *AdamWArgs) { a.G = x.Slice(0, 20) }},
		{"m is missing, want [N 6] f32, 24 bytes", func(a *AdamWArgs) { a.M = vk.Range{} }},
		{"v is missing, want [N 6] f32, 24 bytes", func(a *AdamWArgs) { a.V = vk.Range{} }},
		{"state has 24 bytes, want OptimizerStateBytes, 64 bytes", func(a *AdamWArgs) { a.State = x }},
		{"Decayed is 5, want a multiple of 4 up to N, 6, or N", func(a *AdamWArgs) { a.Decayed = 5 }},
		{"Decayed is 8, want", func(a *AdamWArgs) { a.Decayed = 8 }},
		{"Decayed is -4, want", func(a *AdamWArgs) { a.Decayed = -4 }},
	})
	require.NoError(t, w.Close())
	require.NoError(t, w.Close())
}
