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

// scoreGradient is a gradient of the scores of gathered rows.
type scoreGradient struct {
	b, n, k, c                 int
	add, indices, score, valid bool
}

func (g scoreGradient) test(t *testing.T) {
	gpu := gputest.New(t)
	kernel, err := NewGatherBackward(gpu.Dev, GatherBackwardConfig{C: g.c, Add: g.add})
	require.NoError(t, err)
	defer kernel.Close()
	slots := g.b * g.k
	x, dy, base := normal(1, g.b*g.n*g.c), normal(2, slots*g.c), normal(3, slots)
	a := GatherBackwardArgs{B: g.b, N: g.n, K: g.k}
	// The reference has scores, whose gradients do not depend on them, and slots that exist only.
	r := ref.GatherArgs{X: x, Indices: make([]int32, slots), Score: make([]float32, slots), Valid: make([]uint8, slots), B: g.b, N: g.n, C: g.c, K: g.k}
	indices, score, valid := make([]int32, slots), normal(4, slots), make([]uint32, slots)
	for i := range slots {
		indices[i], valid[i] = int32(i*7%(g.n+3)-1), uint32(i%5<<29)
		switch i % 11 {
		case 3:
			score[i] = 0
		case 6:
			score[i] = float32(math.Copysign(0, -1))
		case 8:
			indices[i] = math.MinInt32
		}
		index := int32(i % g.k)
		if g.indices {
			index = indices[i]
		}
		exists := index >= 0 && int(index) < g.n && !(g.score && score[i] == 0) && !(g.valid && valid[i] == 0)
		if exists {
			r.Indices[i], r.Valid[i], r.Score[i] = index, 1, 1
		} else {
			dy[i*g.c] = float32(math.NaN()) // must not be read
		}
	}
	if g.indices {
		a.Indices = inputAt(gpu, "indices", indices, wordAlign)
	}
	if g.score {
		a.Score = inputAt(gpu, "score", score, wordAlign)
	}
	if g.valid {
		a.Valid = inputAt(gpu, "valid", valid, wordAlign)
	}
	a.X, a.DY = inputAt(gpu, "x", x, wordAlign), inputAt(gpu, "dy", dy, wordAlign)
	if g.add {
		a.DScore = gpu.InOut("dscore", base)
	} else {
		a.DScore = gpu.Out("dscore", 4*slots)
	}
	gpu.Run(func(list *vk.CommandList) error { return kernel.Record(list, a) })
	_, want := ref.GatherBackward(r, dy)
	_, naive := ref.GatherBackward32(r, dy)
	for i, v := range base {
		if g.add {
			want[i] += float64(v)
			naive[i] += v
		}
	}
	got := gpu.Float32("dscore")
	assert.NoError(t, ref.MaxErr(got, want).Within(ref.Bound(naive, want, 1e-6)))
	for i, v := range r.Valid {
		if v == 0 {
			assert.EqualValues(t, want[i], got[i], "slot %d", i)
		}
	}
}

func TestGatherBackward(t *testing.T) {
	for _, g := range []scoreGradient{
		{1, 1, 1, 1, false, true, false, false}, {1, 1, 1, 3, true, false, false, false}, {2, 40, 13, 31, false, true, false, true},
		{3, 20, 20, 32, true, false, true, true}, {2, 77, 66, 33, false, true, true, false}, {1, 300, 129, 512, true, true, true, true},
		{2, 7, 7, 100, false, false, false, true}, {1, 9, 5, 4099, false, true, true, true}, {1, 5000, 3001, 4, true, true, false, true},
	} {
		t.Run(fmt.Sprintf("%+v", g), g.test)
	}
}

// The bits of a slot do not depend on the batch or on its position.
func TestGatherBackwardBits(t *testing.T) {
	const n, k, c = 37, 23, 130
	run := func(b int, x, dy []float32, indices []int32) []float32 {
		gpu := gputest.New(t)
		kernel, err := NewGatherBackward(gpu.Dev, GatherBackwardConfig{C: c})
		require.NoError(t, err)
		defer kernel.Close()
		slots := len(indices)
		a := GatherBackwardArgs{X: gpu.In("x", x), Indices: gpu.In("indices", indices), DY: gpu.In("dy", dy), DScore: gpu.Out("dscore", 4*slots), B: b, N: n, K: slots / b}
		gpu.Run(func(list *vk.CommandList) error { return kernel.Record(list, a) })
		return gpu.Float32("dscore")
	}
	x, dy, indices := normal(1, 2*n*c), normal(2, 2*k*c), make([]int32, 2*k)
	for i := range indices {
		indices[i] = int32(i * 5 % n)
	}
	all := run(2, x, dy, indices)
	for _, slot := range []int{k, k + 1, 2*k - 1} {
		assert.Equal(t, all[slot:slot+1], run(1, x[n*c:], dy[slot*c:][:c], indices[slot:slot+1]), "slot %d", slot)
	}
}

func TestGatherBackwardBadInput(t *testing.T) {
	gpu := gputest.New(t)
	_, err := NewGatherBackward(gpu.Dev, GatherBackwardConfig{})
	assert.ErrorContains(t, err, "C is 0, want 1")
	g, err := NewGatherBackward(gpu.Dev, GatherBackwardConfig{C: 4})
	require.NoError(t, err)
	x, indices, dscore := gpu.In("x", normal(1, 24)), gpu.In("indices", []int32{1, 2, 3}), gpu.Out("dscore", 12)
	good := GatherBackwardArgs{X: x, Indices: indices, DY: x.Slice(0, 48), DScore: dscore, B: 1, N: 6, K: 3}
	assertRejected(t, gpu, good, g.Record, []badArgs[GatherBackwardArgs]{
		{"B is 0, want 1", func(a *GatherBackwardArgs) { a.B = 0 }},
		{"N is 6, want K, 3, without indices", func(a *GatherBackwardArgs) { a.Indices = vk.Range{} }},
		{"x has 96 bytes, want [B 1, N 5, C 4] f32, 80 bytes", func(a *GatherBackwardArgs) { a.N = 5 }},
		{"indices has 96 bytes, want [B 1, K 3] i32, 12 bytes", func(a *GatherBackwardArgs) { a.Indices = x }},
		{"score has 96 bytes, want [B 1, K 3] f32, 12 bytes", func(a *GatherBackwardArgs) { a.Score = x }},
		{"valid has 96 bytes, want [B 1, K 3] u32, 12 bytes", func(a *GatherBackwardArgs) { a.Valid = x }},
		{"dy is missing, want [B 1, K 3, C 4] f32, 48 bytes", func(a *GatherBackwardArgs) { a.DY = vk.Range{} }},
		{"dscore has 8 bytes, want [B 1, K 3] f32, 12 bytes", func(a *GatherBackwardArgs) { a.DScore = dscore.Slice(0, 8) }},
	})
	require.NoError(t, g.Close())
	require.NoError(t, g.Close())
}
