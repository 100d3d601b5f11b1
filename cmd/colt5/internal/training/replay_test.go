package training

import (
	"bytes"
	"slices"
	"testing"

	"github.com/colt5-vulkan/colt5/cmd/colt5/internal/model"
	"github.com/colt5-vulkan/colt5/cmd/colt5/internal/settings"
	"github.com/colt5-vulkan/colt5/colt5"
	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/safetensors"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestMain(m *testing.M) { gputest.Main(m) }

// replayConfig has windows of 8 bytes, of which 3 are queries, and lists of 10 keys in two routes.
func replayConfig() settings.Config {
	c := settings.Default(settings.LM)
	t := c.Transformer
	t.Dim, t.Depth, t.LightHeads, t.HeavyHeads, t.LightDimHead, t.HeavyDimHead, t.LightWindowSize = 16, 2, 2, 2, 8, 8, 8
	t.NumHeavyTokensQ, t.NumHeavyTokensKV, t.NumRoutedKV, t.CausalQueryRouting = 3, 10, 2, false
	c.Batch, c.Length, c.Run.Steps = 2, 24, 1
	return c
}

// fileOf writes records as such a file: lists of windows from the second on, with a byte that no window may select, or its own
// last one, in empty slots.
func fileOf(t *testing.T, c settings.Config, records []colt5.RoutingRecord) string {
	windows := c.Length / 8
	var list []safetensors.Tensor
	for i, r := range records {
		count := r.K
		if r.Windows == 0 {
			count /= windows
		}
		var tokens []int32
		for first := 0; first < len(r.Indices); first += count {
			window := first / count / r.Routes % windows
			for slot := first; slot < first+count && window > 0; slot++ {
				switch {
				case r.Scores[slot] == 0:
					tokens = append(tokens, int32(c.Length-1))
				case r.Windows == 0:
					tokens = append(tokens, r.Indices[slot]-int32(window*8))
				default:
					tokens = append(tokens, r.Indices[slot])
				}
			}
		}
		list = append(list, safetensors.Tensor{Name: tensorName(i), DType: safetensors.I32, Shape: []int64{int64(len(tokens) / count), int64(count)},
			Data: safetensors.Int32s(tokens)})
	}
	path := t.TempDir() + "/replay.safetensors"
	require.NoError(t, safetensors.Write(path, nil, list))
	return path
}

// TestReplayFile: the file of what a model selects is read as the records of its run, which then gives the same bits.
func TestReplayFile(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles kernels for 4 s on CPU drivers")
	}
	gputest.CountCase()
	dev, ctx, c := gputest.Device(t), t.Context(), replayConfig()
	m, err := model.New(ctx, dev, c)
	require.NoError(t, err)
	defer m.Close()
	ids, err := colt5.FromSlice(ctx, dev, bytes.Repeat([]byte("a text of 16 byte"), 3)[:48], 2, 24)
	require.NoError(t, err)
	defer ids.Close()
	logits, err := colt5.NewTensor(dev, colt5.F32, 2, 24, 256)
	require.NoError(t, err)
	defer logits.Close()
	run := func(o colt5.GraphOptions) []float32 {
		require.NoError(t, m.Graph.Run(ctx, map[string]*colt5.Tensor{"ids": ids, "logits": logits}, o))
		y, err := logits.Float32(ctx)
		require.NoError(t, err)
		return y
	}
	var own []colt5.RoutingRecord
	want := run(colt5.GraphOptions{Routing: &own})
	require.Len(t, own, 4)
	r, err := openReplay(fileOf(t, c, own), c)
	require.NoError(t, err)
	defer r.close()
	records, err := r.step(0)
	require.NoError(t, err)
	for i, got := range records {
		assert.Equal(t, own[i].Router, got.Router)
		assert.Equal(t, [2]int{own[i].Lists, own[i].K}, [2]int{got.Lists, got.K})
		assert.Equal(t, own[i].Indices, got.Indices)
		assert.Equal(t, own[i].Scores, got.Scores)
	}
	assert.Equal(t, want, run(colt5.GraphOptions{Replay: records}))
	records[0].Indices[3] = 8 + (records[0].Indices[3]+1)%8
	for slices.Contains(records[0].Indices[4:6], records[0].Indices[3]) {
		records[0].Indices[3] = 8 + (records[0].Indices[3]+1)%8
	}
	assert.NotEqual(t, want, run(colt5.GraphOptions{Replay: records}))
}

func TestReplayErrors(t *testing.T) {
	for _, test := range []struct {
		change func(c *settings.Config)
		want   string
	}{
		{func(c *settings.Config) { c.Length = 25 }, "the length is 25, want a multiple of the window of routing, 8, and more than one window"},
		{func(c *settings.Config) { c.Length = 8 }, "the length is 8, want"},
		{func(c *settings.Config) { c.Transformer.NumHeavyTokensQ = 8 }, "8 of the 8 bytes of a window are queries, want fewer"},
		{func(c *settings.Config) { c.Run.Steps = 2 }, "the file has 4 tensors, want 8: 2 steps of 4 routers"},
		{func(c *settings.Config) { c.Length, c.Transformer.Depth = 48, 2 }, "000000, step 0 of AutoregressiveTransformer.layers.0.attn.q_router, is I32[4 3], want I32[10 3]"},
		{func(c *settings.Config) { c.Transformer.NumHeavyTokensKV = 9 }, "000001, step 0 of AutoregressiveTransformer.layers.0.attn.kv_router, is I32[8 10], want I32[8 9]"},
		{func(c *settings.Config) {}, ""},
	} {
		c, empty := replayConfig(), func(lists, k, windows, routes int) colt5.RoutingRecord {
			return colt5.RoutingRecord{Lists: lists, K: k, Windows: windows, Routes: routes, Indices: make([]int32, lists*k), Scores: make([]float32, lists*k)}
		}
		q, kv := empty(2, 9, 0, 1), empty(12, 10, 3, 2)
		path := fileOf(t, c, []colt5.RoutingRecord{q, kv, q, kv})
		test.change(&c)
		r, err := openReplay(path, c)
		if test.want != "" {
			assert.ErrorContains(t, err, test.want)
			continue
		}
		require.NoError(t, err)
		_, err = r.step(0)
		assert.EqualError(t, err, "000000: a list of window 1 has token 23, want 0 to 7")
		require.NoError(t, r.close())
	}
	kv := replayedRouter{items: 1, routes: 1, windows: 2, window: 4, count: 2}
	_, err := kv.record([]int32{0, 8})
	assert.EqualError(t, err, "a list of window 1 has token 8, want 0 to 7")
	_, err = kv.record([]int32{0, -1})
	assert.EqualError(t, err, "a list of window 1 has token -1, want 0 to 7")
	other := []safetensors.Tensor{{Name: "0", DType: safetensors.I32, Shape: []int64{1}, Data: safetensors.Int32s([]int32{0})}}
	path := t.TempDir() + "/other.safetensors"
	require.NoError(t, safetensors.Write(path, nil, other))
	c := replayConfig()
	c.Transformer.Depth, c.Transformer.NumHeavyTokensKV = 1, 24
	_, err = openReplay(path, c)
	assert.EqualError(t, err, "the file has no tensor 000000, want 000000 to 000000")
	_, err = openReplay(path+"x", c)
	assert.ErrorContains(t, err, "no such file")
}
