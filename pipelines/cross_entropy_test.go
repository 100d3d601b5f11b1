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

// labelsFor returns labels of all kinds: classes, ignored and invalid ones.
func labelsFor(rows, v int) []int32 {
	labels := make([]int32, rows)
	for i := range labels {
		switch labels[i] = int32(i * 7919 % v); i % 6 {
		case 2:
			labels[i] = -1
		case 5:
			labels[i] = []int32{int32(v), -2, math.MinInt32, math.MaxInt32}[i/6%4]
		}
	}
	return labels
}

// crossEntropyRun is the results of a run.
type crossEntropyRun struct {
	losses, sums, dlogits []float32
	invalid               uint32
}

// runCrossEntropy computes losses and sums, and the gradient in place and in another range. The logits of rows without a
// label are NaN.
func runCrossEntropy(t *testing.T, r ref.CrossEntropyArgs) crossEntropyRun {
	t.Helper()
	gpu := gputest.New(t)
	c, err := NewCrossEntropy(gpu.Dev, CrossEntropyConfig{V: r.V})
	require.NoError(t, err)
	defer c.Close()
	rows := r.Items * r.N
	logits := append([]float32(nil), r.Logits...)
	for i := range logits {
		if label := r.Labels[i/r.V]; label < 0 || int(label) >= r.V {
			logits[i] = float32(math.NaN())
		}
	}
	a := CrossEntropyArgs{
		Logits: inputAt(gpu, "logits", logits, wordAlign), Labels: inputAt(gpu, "labels", r.Labels, wordAlign), Losses: gpu.Out("losses", 4*rows), Sums: gpu.Out("sums", 8*r.Items),
		DLogits: gpu.Out("dlogits", 4*rows*r.V), Upstream: gpu.In("upstream", []float32{r.Upstream}), InvalidLabels: gpu.InOut("invalid", []uint32{3}),
		Items: r.Items, N: r.N,
	}
	inPlace, lossOnly := a, a
	inPlace.Logits = gpu.InOut("logits and dlogits", logits)
	inPlace.DLogits, inPlace.Losses, inPlace.Sums, inPlace.InvalidLabels = inPlace.Logits, gpu.Out("losses 2", 4*rows), vk.Range{}, gpu.InOut("invalid 2", []uint32{0})
	lossOnly.DLogits, lossOnly.Upstream, lossOnly.Losses, lossOnly.InvalidLabels = vk.Range{}, vk.Range{}, gpu.Out("losses 3", 4*rows), gpu.InOut("invalid 3", []uint32{0})
	lossOnly.Sums = gpu.Out("sums 3", 8*r.Items)
	sumsOnly := CrossEntropyArgs{Labels: a.Labels, Losses: inPlace.Losses, Sums: gpu.Out("sums 2", 8*r.Items), Items: r.Items, N: r.N}
	gpu.Run(func(list *vk.CommandList) error {
		return firstError(c.Record(list, a), c.Record(list, inPlace), c.Record(list, sumsOnly), c.Record(list, lossOnly))
	})
	for _, same := range [][2]string{{"dlogits", "logits and dlogits"}, {"losses", "losses 2"}, {"losses", "losses 3"}, {"sums", "sums 2"}, {"sums", "sums 3"}} {
		require.Equal(t, gpu.Uint32(same[0]), gpu.Uint32(same[1]), same)
	}
	assert.Equal(t, gpu.Uint32("invalid 2"), gpu.Uint32("invalid 3"))
	assert.Equal(t, gpu.Uint32("invalid")[0], 3+gpu.Uint32("invalid 2")[0])
	return crossEntropyRun{gpu.Float32("losses"), gpu.Float32("sums"), gpu.Float32("dlogits"), gpu.Uint32("invalid 2")[0]}
}

func TestCrossEntropy(t *testing.T) {
	plain := func([]float32) {}
	for _, test := range []struct {
		items, n, v int
		name        string
		change      func([]float32)
	}{
		{1, 1, 1, "", plain}, {2, 7, 1, "", plain}, {2, 9, 2, "", plain}, {1, 7, 31, "", plain}, {3, 13, 32, "", plain}, {2, 33, 255, "", plain}, {2, 13, 256, "", plain},
		{1, 7, 257, "", plain}, {2, 5, 2049, "", plain}, {1, 3, 65536, "", plain}, {1, 300, 5, "", plain}, {2, 8300, 3, "", plain},
		{1, 13, 100, "ties", func(x []float32) {
			for i := range x {
				x[i] = float32(math.Round(float64(x[i])))
			}
		}},
		{1, 13, 100, "equal", func(x []float32) { clear(x) }},
		{1, 13, 300, "large", func(x []float32) {
			for i := range x {
				x[i] *= []float32{1, 1e30, 1e4, 30, 1e36}[i%5]
			}
		}},
		{1, 13, 7, "extreme", func(x []float32) {
			for i := range x {
				x[i] = []float32{math.MaxFloat32, -math.MaxFloat32, 0}[i%3]
			}
		}},
		{2, 12, 70, "excluded", func(x []float32) { // all but every third class
			for i := range x {
				if i%70%3 != 0 && i%70 != int(labelsFor(24, 70)[i/70]) {
					x[i] = float32(math.Inf(-1))
				}
			}
		}},
		{1, 12, 257, "certain", func(x []float32) { // small losses
			for row, label := range labelsFor(12, 257) {
				if label >= 0 && label < 257 {
					x[row*257+int(label)] = float32(20 + 5*row)
				}
			}
		}},
	} {
		if testing.Short() && test.v != 3 && test.v != 257 && test.v != 70 && test.v != 65536 {
			continue // CPU drivers compile a kernel for each number of classes
		}
		t.Run(fmt.Sprintf("%dx%dx%d %s", test.items, test.n, test.v, test.name), func(t *testing.T) {
			a := ref.CrossEntropyArgs{Logits: scaled(normal(1, test.items*test.n*test.v), 3), Labels: labelsFor(test.items*test.n, test.v), Items: test.items,
				N: test.n, V: test.v, Upstream: 1.75}
			test.change(a.Logits)
			got, want, naive := runCrossEntropy(t, a), ref.CrossEntropy(a), ref.CrossEntropy32(a)
			assert.EqualValues(t, want.Invalid, got.invalid)
			for i, v := range want.Losses { // Relative, so that small losses count: half an ulp of logits is that of a small loss.
				if v > math.MaxFloat32 {
					v = math.Inf(1)
				}
				require.InDelta(t, v, got.losses[i], 3e-6*v+1e-37, "loss %d", i)
			}
			if test.name != "extreme" { // where sums overflow
				assert.NoError(t, ref.MaxErr(got.sums, want.Sums).Within(ref.Bound(naive.Sums, want.Sums, 1e-6)))
			}
			assert.NoError(t, ref.MaxErr(got.dlogits, want.DLogits).Within(ref.Bound(naive.DLogits, want.DLogits, 1e-6)))
			for row, label := range a.Labels { // the gradient at the label keeps its relative accuracy too
				if label < 0 || int(label) >= a.V {
					require.Zero(t, got.losses[row])
					require.Equal(t, make([]float32, a.V), got.dlogits[row*a.V:(row+1)*a.V])
				} else if v := want.DLogits[row*a.V+int(label)]; v != 0 && v > -0.1 {
					require.InEpsilon(t, -math.Expm1(-want.Losses[row])*1.75, -float64(got.dlogits[row*a.V+int(label)]), 2e-6, "row %d", row)
				}
			}
		})
	}
}

// A long sum keeps its accuracy: the loss of 65,536 classes has a relative error of at most 1e-6.
func TestCrossEntropyManyClasses(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 1 s; TestCrossEntropy has as many classes")
	}
	const v = 65536
	for _, scale := range []float32{0, 0.01, 1, 4} {
		x := scaled(normal(5, 4*v), scale)
		labels := []int32{0, v - 1, 12345, 777}
		x[3*v+777] = 14 // a loss of about 0.06 at a scale of 0
		a := ref.CrossEntropyArgs{Logits: x, Labels: labels, Items: 4, N: 1, V: v, Upstream: 1}
		got, want := runCrossEntropy(t, a), ref.CrossEntropy(a)
		for i, loss := range want.Losses {
			assert.InEpsilon(t, loss, got.losses[i], 1e-6, "scale %g, row %d", scale, i)
		}
	}
}

// A row without a distribution gives NaN, and an excluded label an infinite loss. Other rows are not affected.
func TestCrossEntropyUndefined(t *testing.T) {
	inf, nan := float32(math.Inf(1)), float32(math.NaN())
	const v = 40
	for name, change := range map[string]func([]float32){
		"NaN": func(x []float32) { x[33] = nan }, "negative NaN": func(x []float32) { x[0] = -nan }, "infinity": func(x []float32) { x[7] = inf },
		"all excluded": func(x []float32) {
			for i := range x {
				x[i] = -inf
			}
		},
	} {
		x := normal(1, 3*v)
		change(x[v : 2*v])
		x[2*v+3] = -inf
		a := ref.CrossEntropyArgs{Logits: x, Labels: []int32{1, 2, 3}, Items: 3, N: 1, V: v, Upstream: 1}
		got, want := runCrossEntropy(t, a), ref.CrossEntropy(a)
		assert.InDelta(t, want.Losses[0], got.losses[0], 1e-6, name)
		assert.True(t, math.IsNaN(float64(got.losses[1])) && math.IsNaN(float64(got.sums[2])), name)
		assert.True(t, math.IsInf(float64(got.losses[2]), 1), name)
		for i, g := range got.dlogits {
			if i/v == 1 {
				require.True(t, math.IsNaN(float64(g)), "%s: element %d", name, i)
			} else {
				require.InDelta(t, want.DLogits[i], g, 1e-6, "%s: element %d", name, i)
			}
		}
	}
}

// Results of an item do not depend on its place in a batch.
func TestCrossEntropyBits(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles kernels for 1 s on CPU drivers")
	}
	const n, v = 517, 129
	a := ref.CrossEntropyArgs{Logits: normal(1, n*v), Labels: labelsFor(n, v), Items: 1, N: n, V: v, Upstream: 0.3}
	alone := runCrossEntropy(t, a)
	a.Items, a.Logits, a.Labels = 2, append(normal(2, n*v), a.Logits...), append(labelsFor(n, v), a.Labels...)
	both := runCrossEntropy(t, a)
	assert.Equal(t, alone.losses, both.losses[n:])
	assert.Equal(t, alone.sums, both.sums[2:])
	assert.Equal(t, alone.dlogits, both.dlogits[n*v:])
}

func TestCrossEntropyBadInput(t *testing.T) {
	gpu := gputest.New(t)
	_, err := NewCrossEntropy(gpu.Dev, CrossEntropyConfig{})
	assert.ErrorContains(t, err, "CrossEntropy: V is 0, want 1")
	if gpu.Dev.Caps().CPU {
		_, err = NewCrossEntropy(gpu.Dev, CrossEntropyConfig{V: 1 << 29})
		assert.ErrorContains(t, err, "a row of 536870912 classes needs 6291459 loop iterations")
	}
	c, err := NewCrossEntropy(gpu.Dev, CrossEntropyConfig{V: 4})
	require.NoError(t, err)
	logits, labels, out, one := gpu.In("logits", normal(1, 24)), gpu.In("labels", make([]int32, 6)), gpu.Out("out", 24), gpu.InOut("one", []uint32{0})
	good := CrossEntropyArgs{Logits: logits, Labels: labels, Losses: out, InvalidLabels: one, Items: 2, N: 3}
	assertRejected(t, gpu, good, c.Record, []badArgs[CrossEntropyArgs]{
		{"Items is 0, want 1", func(a *CrossEntropyArgs) { a.Items = 0 }},
		{"N is -1, want 1", func(a *CrossEntropyArgs) { a.N = -1 }},
		{"N is 16777217, want at most 16777216", func(a *CrossEntropyArgs) { a.N = 1<<24 + 1 }},
		{"logits has 24 bytes, want [Items 2, N 3, V 4] f32, 96 bytes", func(a *CrossEntropyArgs) { a.Logits = labels }},
		{"labels is missing, want [Items 2, N 3] i32, 24 bytes", func(a *CrossEntropyArgs) { a.Labels = vk.Range{} }},
		{"losses is missing, want [Items 2, N 3] f32, 24 bytes", func(a *CrossEntropyArgs) { a.Losses = vk.Range{} }},
		{"sums has 24 bytes, want [Items 2, Sums 2] f32, 16 bytes", func(a *CrossEntropyArgs) { a.Sums = out }},
		{"dlogits has 24 bytes, want [Items 2, N 3, V 4] f32, 96 bytes", func(a *CrossEntropyArgs) { a.DLogits = out }},
		{"upstream has 4 bytes, want none without dlogits", func(a *CrossEntropyArgs) { a.Upstream = one }},
		{"upstream has 24 bytes, want [Values 1] f32, 4 bytes", func(a *CrossEntropyArgs) { a.DLogits, a.Upstream = logits, out }},
		{"dlogits has 0 bytes and invalid labels 4, want none without logits", func(a *CrossEntropyArgs) { a.Logits = vk.Range{} }},
		{"sums is missing, want [Items 2, Sums 2] f32, 16 bytes", func(a *CrossEntropyArgs) { a.Logits, a.InvalidLabels = vk.Range{}, vk.Range{} }},
		{"invalid labels is missing, want [Counts 1] u32, 4 bytes", func(a *CrossEntropyArgs) { a.InvalidLabels = vk.Range{} }},
	})
	require.NoError(t, c.Close())
	require.NoError(t, c.Close())
}
