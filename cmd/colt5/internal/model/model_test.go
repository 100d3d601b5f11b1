package model

import (
	"testing"

	"github.com/colt5-vulkan/colt5/cmd/colt5/internal/settings"
	"github.com/colt5-vulkan/colt5/colt5"
	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/safetensors"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestMain(m *testing.M) { gputest.Main(m) }

func TestSpread(t *testing.T) {
	for _, test := range []struct {
		count, steps int64
		want         []int64
	}{{3, 3, []int64{0, 1, 2}}, {3, 10, []int64{0, 3, 6}}, {1, 9, []int64{0}}} {
		for i, want := range test.want {
			assert.Equal(t, want, spread(int64(i), test.count, test.steps))
		}
	}
}

func TestCorrect(t *testing.T) {
	logits := []float32{1, 3, 2 /**/, 2, 2, 1 /**/, 0, 0, 5 /**/, 9, 9, 9}
	assert.EqualValues(t, 2, correct(logits, []int32{1, 0, 0, -1}))
	assert.EqualValues(t, 1, correct(logits, []int32{2, 1, 2, -1}), "of equal logits the first")
	assert.Zero(t, correct(nil, nil))
}

// TestChosen has two windows and two routes, and a router of a whole item.
func TestChosen(t *testing.T) {
	r := colt5.RoutingRecord{N: 6, K: 2, Routes: 2, Windows: 2, Lists: 8,
		Indices: []int32{0, 1, 2, 3 /* window 1 */, 0, 2, 0, 4 /* item 1 */, 5, 5, 5, 5, 5, 5, 5, 5},
		Scores:  []float32{1, 1, 1, 1 /*          */, 1, 1, 0, 1 /*         */, 1, 1, 1, 1, 1, 1, 1, 1}}
	assert.Equal(t, []bool{true, false, true, false, true, false}, chosen(r))
	assert.Equal(t, []int{0, 1, 1, 1, 1, 1, 1}, runs(chosen(r)))
	r = colt5.RoutingRecord{N: 4, K: 2, Routes: 1, Lists: 1, Indices: []int32{3, 0}, Scores: []float32{0.5, 0}}
	assert.Equal(t, []bool{false, false, false, true}, chosen(r))
	assert.Equal(t, []int{3, 1}, runs(chosen(r)))
	assert.Equal(t, []int{0}, runs(nil))
}

// TestSaveLoad requires the same weights under the names of the modules, and the configuration, from a file.
func TestSaveLoad(t *testing.T) {
	dev := gputest.Device(t)
	gputest.CountCase()
	ctx, path := t.Context(), t.TempDir()+"/weights.safetensors"
	c := settings.Default(settings.Classifier)
	c.Classes, c.Encoder.Dim, c.Encoder.Depth = []string{"no", "yes"}, 16, 1
	a, err := New(ctx, dev, c)
	require.NoError(t, err)
	defer a.Close()
	require.NoError(t, a.Save(ctx, path))
	s, err := Find(path)
	require.NoError(t, err)
	assert.EqualValues(t, -1, s.Step)
	s.Config.Run = nil
	assert.Equal(t, c.Identity(), s.Config)
	s.Config.Seed = 5
	b, err := New(ctx, dev, s.Config)
	require.NoError(t, err)
	defer b.Close()
	values := func(m *Model) map[string][]float32 {
		list := map[string][]float32{}
		for _, p := range m.Parameters {
			list[p.Name], err = p.Tensor.Float32(ctx)
			require.NoError(t, err)
		}
		return list
	}
	assert.NotEqual(t, values(a), values(b), "another seed")
	require.NoError(t, b.Load(ctx, path))
	assert.Equal(t, values(a), values(b))
	assert.Contains(t, values(a), "head.weight")
	assert.Contains(t, values(a), "encoder.embed.weight")

	list := []safetensors.Tensor{{Name: "x", DType: safetensors.F32, Shape: []int64{1}, Data: safetensors.Float32s([]float32{1})}}
	require.NoError(t, safetensors.Write(path, nil, list))
	assert.ErrorContains(t, b.Load(ctx, path), `the file has "x", which is no parameter of a classifier`)
	_, err = Find(path)
	assert.ErrorContains(t, err, "the metadata has no key colt5.config")
	_, err = Find(t.TempDir())
	assert.ErrorContains(t, err, "there is no checkpoint")
	_, err = Find(path + "x")
	assert.ErrorContains(t, err, "no such file")
	c.Classes = c.Classes[:1]
	_, err = New(ctx, dev, c)
	assert.ErrorContains(t, err, "there are 1 classes, want at least 2")
}
