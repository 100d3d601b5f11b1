package pipelines

import (
	"math"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The score of an empty slot has no effect, not even NaN.
func TestRoutedAttentionEmptyScoreNaN(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles two kernels for 2 s on CPU drivers")
	}
	const queries, keys, d = 4, 10, 8
	bothKernels(t, "score", func(t *testing.T, gpuKernel bool) {
		run := func(score float32) []float32 {
			gpu := gputest.New(t)
			r, err := NewRoutedAttention(gpu.Dev, RoutedAttentionConfig{Heads: 1, DimHead: d, Routes: 1, Valid: true, ScoreValues: true, ScoreKeys: true})
			require.NoError(t, err)
			defer r.Close()
			r.kernels.gpuKernel = gpuKernel
			valid, scores := make([]uint32, keys), make([]float32, keys)
			for i := range valid {
				valid[i], scores[i] = 1, 0.5
			}
			valid[3], scores[3] = 0, score
			a := RoutedAttentionArgs{
				Q: gpu.In("q", normal(1, queries*d)), KV: gpu.In("kv", normal(2, keys*2*d)), Null: gpu.In("null", normal(3, 2*d)), Y: gpu.Out("y", 4*queries*d),
				Valid: gpu.In("valid", valid), KeyScores: gpu.In("scores", scores), Lists: 1, Queries: queries, KeysPerList: keys,
			}
			gpu.Run(func(list *vk.CommandList) error { return r.Record(list, a) })
			return gpu.Float32("y")
		}
		assert.Equal(t, run(0), run(float32(math.NaN())))
	})
}

// Loops of more than 65,534 iterations are correct on GPUs. They are an error on CPU drivers, which silently end them.
func TestRoutedAttentionManyKeys(t *testing.T) {
	const keys = 1500000
	gpu := gputest.New(t)
	r, err := NewRoutedAttention(gpu.Dev, RoutedAttentionConfig{Heads: 1, DimHead: 1, Routes: 1})
	require.NoError(t, err)
	defer r.Close()
	kv := make([]float32, 2*keys)
	for i := range keys {
		kv[2*i+1] = 1
	}
	for i := keys - 100000; i < keys; i++ {
		kv[2*i+1] = 100
	}
	a := RoutedAttentionArgs{Q: gpu.In("q", []float32{0}), KV: gpu.In("kv", kv), Null: gpu.In("null", []float32{0, 1}), Y: gpu.Out("y", 4), Lists: 1, Queries: 1, KeysPerList: keys}
	if gpu.Dev.Caps().CPU {
		assertRecordError(t, gpu, "loop iterations", func(list *vk.CommandList) error { return r.Record(list, a) })
		return
	}
	gpu.Run(func(list *vk.CommandList) error { return r.Record(list, a) })
	assert.InDelta(t, (1400001.0+100*100000)/1500001, gpu.Float32("y")[0], 1e-2)
}

func TestLinearManyInputs(t *testing.T) {
	const in = 70000
	gpu := gputest.New(t)
	l, err := NewLinear(gpu.Dev, LinearConfig{In: in, Out: 1})
	if gpu.Dev.Caps().CPU {
		assert.ErrorIs(t, err, vk.ErrUnsupported)
		return
	}
	require.NoError(t, err)
	defer l.Close()
	x := make([]float32, in)
	for i := range x {
		x[i] = 1
	}
	a := LinearArgs{X: gpu.In("x", x), W: gpu.In("w", x), Y: gpu.Out("y", 4), Batch: 1, Rows: 1}
	gpu.Run(func(list *vk.CommandList) error { return l.Record(list, a) })
	assert.Equal(t, float32(in), gpu.Float32("y")[0])
}

func TestLayerNormVeryLong(t *testing.T) {
	const c = 1500001
	gpu := gputest.New(t)
	l, err := NewLayerNorm(gpu.Dev, LayerNormConfig{C: c})
	if gpu.Dev.Caps().CPU {
		assert.ErrorIs(t, err, vk.ErrUnsupported)
		return
	}
	require.NoError(t, err)
	defer l.Close()
	x, w := make([]float32, c), make([]float32, c)
	for i := range x {
		x[i], w[i] = float32(i%2), 1
	}
	a := LayerNormArgs{X: gpu.In("x", x), Weight: gpu.In("w", w), Bias: gpu.In("b", make([]float32, c)), Y: gpu.Out("y", 4*c), Rows: 1}
	gpu.Run(func(list *vk.CommandList) error { return l.Record(list, a) })
	y := gpu.Float32("y")
	for i := range y {
		require.InDelta(t, 2*float64(i%2)-1, y[i], 1e-3, "%d", i)
	}
}

func TestCausalSelectVeryLong(t *testing.T) {
	const n, window, k = 4 << 20, 2 << 20, 2<<20 - 2
	gpu := gputest.New(t)
	s, err := NewCausalSelect(gpu.Dev, CausalSelectConfig{})
	require.NoError(t, err)
	defer s.Close()
	valid := make([]uint32, 2*k)
	for i := range valid {
		valid[i] = 1
	}
	a := CausalSelectArgs{
		Logits: gpu.In("logits", make([]float32, n)), Values: gpu.In("values", make([]float32, 2*k)), Valid: gpu.In("valid", valid),
		Indices: gpu.Out("indices", 4*2*k), QueryValid: gpu.Out("query valid", 4*2*k), B: 1, N: n, Window: window, K: k,
	}
	if gpu.Dev.Caps().CPU {
		assertRecordError(t, gpu, "loop iterations", func(list *vk.CommandList) error { return s.Record(list, a) })
		return
	}
	gpu.Run(func(list *vk.CommandList) error { return s.Record(list, a) })
	queryValid := gpu.Uint32("query valid")
	for i := range k {
		require.Equal(t, uint32(0), queryValid[i], "%d", i)
		require.Equal(t, uint32(1), queryValid[k+i], "%d", i)
	}
}

func TestSelectManySlots(t *testing.T) {
	const k = 17 << 20
	gpu := gputest.New(t)
	s, err := NewSelect(gpu.Dev, SelectConfig{Sorted: true})
	require.NoError(t, err)
	defer s.Close()
	a := SelectArgs{Logits: gpu.In("logits", []float32{1, 2, 3}), Indices: gpu.Out("indices", 4*k), Valid: gpu.Out("valid", 4*k), Rows: 1, N: 3, K: k, EmptyIndex: -1}
	if gpu.Dev.Caps().CPU {
		assertRecordError(t, gpu, "loop iterations", func(list *vk.CommandList) error { return s.Record(list, a) })
		return
	}
	gpu.Run(func(list *vk.CommandList) error { return s.Record(list, a) })
	for i, v := range gpu.Uint32("valid") {
		want := uint32(0)
		if i < 3 {
			want = 1
		}
		require.Equal(t, want, v, "%d", i)
	}
}

// Every number of keys that Record accepts is processed completely.
func TestRoutedAttentionAllKeys(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 3 s")
	}
	for _, c := range []struct{ d, keys int }{{128, 14000}, {128, 100000}, {16, 200000}} {
		if testing.Short() && c.keys == 100000 {
			continue // takes 4 s
		}
		gpu := gputest.New(t)
		r, err := NewRoutedAttention(gpu.Dev, RoutedAttentionConfig{Heads: 1, DimHead: c.d, Routes: 1})
		require.NoError(t, err)
		kv := make([]float32, 2*c.keys*c.d)
		for i := c.keys - 100; i < c.keys; i++ {
			kv[(2*i+1)*c.d] = 100
		}
		a := RoutedAttentionArgs{Q: gpu.In("q", make([]float32, c.d)), KV: gpu.In("kv", kv), Null: gpu.In("null", make([]float32, 2*c.d)), Y: gpu.Out("y", 4*c.d), Lists: 1, Queries: 1, KeysPerList: c.keys}
		list, err := gpu.Dev.NewCommandList(vk.CommandListConfig{Name: "keys"})
		require.NoError(t, err)
		err = r.Record(list, a)
		if err == nil {
			require.NoError(t, gpu.Dev.Upload(t.Context(), vk.Transfer{Range: a.KV, Data: vk.Bytes(kv)}, vk.Transfer{Range: a.Q, Data: vk.Bytes(make([]float32, c.d))},
				vk.Transfer{Range: a.Null, Data: vk.Bytes(make([]float32, 2*c.d))}))
			require.NoError(t, list.Run(t.Context()))
			y := make([]float32, c.d)
			require.NoError(t, gpu.Dev.Download(t.Context(), vk.Transfer{Range: a.Y, Data: vk.Bytes(y)}))
			assert.InEpsilon(t, 100*100/float64(c.keys+1), y[0], 1e-3, "%+v %v", c, list.StepNames())
		} else {
			assert.ErrorIs(t, err, vk.ErrUnsupported)
			t.Log(c, err)
		}
		require.NoError(t, list.Close())
		require.NoError(t, r.Close())
	}
}

// Loops that a CPU driver would silently end early are errors there, in every kernel.
func TestIterationLimit(t *testing.T) {
	dev := gputest.Device(t)
	if !dev.Caps().CPU {
		t.Skip("other devices have no such limit")
	}
	const long = 1 << 29
	_, norm := NewRMSNorm(dev, RMSNormConfig{C: long})
	_, layer := NewLayerNorm(dev, LayerNormConfig{C: long})
	_, logits := NewRouterLogits(dev, RouterLogitsConfig{C: long, R: 1})
	_, product := NewLinear(dev, LinearConfig{In: maxCPUIterations + 1, Out: 1})
	_, patch := NewPatchEmbed(dev, PatchEmbedConfig{Channels: 1, Height: 1 << 14, Width: 1 << 14, PatchHeight: 1 << 14, PatchWidth: 1 << 14})
	for name, err := range map[string]error{"rmsnorm": norm, "layernorm": layer, "router_logits": logits, "linear": product, "patch_embed": patch} {
		assert.ErrorIs(t, err, vk.ErrUnsupported, name)
		assert.ErrorContains(t, err, "loop iterations, CPU drivers allow 60000", name)
	}
	list, err := dev.NewCommandList(vk.CommandListConfig{Name: "rows"})
	require.NoError(t, err)
	defer list.Close()
	_, rows := rowGroups(list, "Gather", long, 1)
	assert.ErrorContains(t, rows, "pipelines: Gather: not supported by this device: a row of 536870912 floats needs 524288 loop iterations")
	_, rows = rowGroups(list, "Gather", 4096, 1)
	assert.NoError(t, rows)
}
