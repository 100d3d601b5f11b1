package pipelines

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/internal/ref"
	"github.com/colt5-vulkan/colt5/vk"
)

// routedCase is a config with sizes. Its data is the same every time.
type routedCase struct {
	RoutedAttentionConfig
	lists, queries, keys, perItem, rows, prefix int
	scale                                       float32 // of the queries; 0: 1
	// validKeys are the valid key slots at the start of a list, or rows of an item; 0: three of four, random; -1: none.
	validKeys  int
	merged     bool // for the backward pass: lists are merged
	unitScores bool // for the backward pass: key scores are absent, hence 1
	gpuKernel  bool // 16-bit: test the kernel for GPUs too, which CPU drivers compile for seconds
}

// args returns the arguments of the CPU reference, with slots that are empty for each possible reason. Keys and values
// that no slot uses are NaN.
func (c routedCase) args() ref.RoutedAttentionArgs {
	h, d, slots, items := c.Heads, c.DimHead, c.lists*c.Routes*c.keys, c.lists/max(c.perItem, 1)
	rng := rand.New(rand.NewPCG(uint64(slots), uint64(c.queries)))
	a := ref.RoutedAttentionArgs{
		Q: normal(1, c.lists*c.queries*h*d), Null: normal(3, 2*h*d), Lists: c.lists, Queries: c.queries, Keys: c.keys, Heads: h, DimHead: d, Routes: c.Routes,
		PerItem: c.perItem, KVRows: c.rows, Prefix: c.prefix, ScoreValues: c.ScoreValues, ScoreKeys: c.ScoreKeys,
	}
	for i := range a.Q {
		a.Q[i] = c.Precision.round(a.Q[i] * max(c.scale, 1))
	}
	length, rows := c.keys, c.lists*c.keys*h
	if c.KeySource != KeySourceOwn {
		rows = items * c.rows * h
	}
	if c.KeySource == KeySourcePrefix {
		length, slots = c.rows, items*c.rows
	}
	a.KV = c.Precision.roundAll(normal(2, 2*rows*d))
	if c.Valid {
		a.Valid = make([]uint8, slots)
	}
	if c.ScoreValues || c.ScoreKeys {
		a.KeyScores = normal(4, slots)
	}
	for i := range slots {
		valid := c.validKeys > 0 && i%length < c.validKeys || c.validKeys == 0 && rng.IntN(4) > 0
		switch {
		case valid && c.Valid:
			a.Valid[i] = 1
		case c.Valid:
			c.poison(a.KV, i)
		}
		if a.KeyScores != nil && i%5 == 0 {
			a.KeyScores[i] = 0 // does not make the slot empty
		}
	}
	if c.KeySource == KeySourceIndexed {
		a.Indices = make([]int32, slots)
		for i := range a.Indices {
			a.Indices[i] = int32(rng.IntN(c.rows))
			if rng.IntN(9) == 0 || c.validKeys < 0 {
				a.Indices[i] = []int32{-1, int32(c.rows), math.MaxInt32, math.MinInt32}[rng.IntN(4)]
			}
		}
	}
	if c.QueryValid {
		a.QueryValid = make([]uint8, c.lists*c.queries)
		for i := range a.QueryValid {
			if rng.IntN(3) > 0 && i/c.queries != 1 { // all of list 1 are empty
				a.QueryValid[i] = 1
			}
		}
	}
	if c.ScoreQueries {
		a.QueryScores = normal(5, c.lists*c.queries)
		for i := 3; i < len(a.QueryScores); i += 7 {
			a.QueryScores[i] = 0
		}
	}
	return a
}

// poison sets the key and value of an empty slot to NaN, unless other slots share them.
func (c routedCase) poison(kv []float32, slot int) {
	row, wide := slot, 2*c.DimHead*c.Heads
	switch c.KeySource {
	case KeySourceIndexed:
		return
	case KeySourceOwn:
		list, route, j := slot/c.keys/c.Routes, slot/c.keys%c.Routes, slot%c.keys
		row, wide = (route*c.lists+list)*c.keys+j, wide/c.Routes
	}
	for i := range wide {
		kv[row*wide+i] = float32(math.NaN())
	}
}

// upload returns the arguments of the kernel. Lists, and rows whose length is no multiple of 16 bytes, have the
// alignment of 4 bytes that they need.
func (c routedCase) upload(gpu *gputest.Harness, a ref.RoutedAttentionArgs) RoutedAttentionArgs {
	rows := func(name string, p DType, data []float32) vk.Range {
		offset := 4 * int(specBool(c.DimHead*p.Size()%16 != 0))
		return gpu.In(name, encode(p, append(make([]float32, offset/p.Size()), data...))).Slice(uint64(offset), uint64(p.Size()*len(data)))
	}
	floats := func(name string, data []float32) vk.Range {
		if data == nil {
			return vk.Range{}
		}
		return gpu.In(name, append(make([]float32, 1), data...)).Slice(4, 4*uint64(len(data)))
	}
	mask := func(name string, data []uint8) vk.Range {
		if data == nil {
			return vk.Range{}
		}
		list := []uint32{0}
		for i, b := range data {
			list = append(list, uint32(b)<<(i%32)) // any word except 0
		}
		return gpu.In(name, list).Slice(4, 4*uint64(len(data)))
	}
	g := RoutedAttentionArgs{
		Q: rows("q", c.Precision, a.Q), KV: rows("kv", c.Precision, a.KV), Null: rows("null", F32, a.Null), Y: gpu.Out("y", c.Precision.Size()*len(a.Q)),
		KeyScores: floats("key scores", a.KeyScores), QueryScores: floats("query scores", a.QueryScores),
		Valid: mask("valid", a.Valid), QueryValid: mask("query valid", a.QueryValid),
		Lists: c.lists, Queries: c.queries, KeysPerList: c.keys, PerItem: c.perItem, KVRows: c.rows, WindowSize: c.prefix,
	}
	if a.Indices != nil {
		g.Indices = gpu.In("indices", append([]int32{0}, a.Indices...)).Slice(4, 4*uint64(len(a.Indices)))
	}
	return g
}

// run computes on the device. Rows of empty queries must be unchanged; it returns zeros for them, like the CPU reference.
func (c routedCase) run(t *testing.T, a ref.RoutedAttentionArgs, gpuKernel bool) []float32 {
	t.Helper()
	gpu := gputest.New(t)
	r, err := NewRoutedAttention(gpu.Dev, c.RoutedAttentionConfig)
	require.NoError(t, err)
	defer func() { require.NoError(t, r.Close()) }()
	r.kernels.gpuKernel = gpuKernel
	g, name := c.upload(gpu, a), "routed_attention"
	switch {
	case c.Precision != F32:
		name = matrixAttention(name, c.Precision)
	case !gpuKernel:
		name += "_cpu"
	}
	gpu.Run(func(t *vk.CommandList) error { return r.Record(t, g) })
	require.Len(t, gpu.StepNames(), 1)
	assert.Contains(t, gpu.StepNames()[0], name)
	got, row := decode(c.Precision, gpu, "y"), c.Heads*c.DimHead
	for slot := range c.lists * c.queries {
		if (a.QueryValid == nil || a.QueryValid[slot] != 0) && (a.QueryScores == nil || a.QueryScores[slot] != 0) {
			continue
		}
		for i := range row {
			require.True(t, math.IsNaN(float64(got[slot*row+i])), "query %d was written", slot)
			got[slot*row+i] = 0
		}
	}
	return got
}

func ownKeys(h, d, r int) RoutedAttentionConfig {
	return RoutedAttentionConfig{Heads: h, DimHead: d, Routes: r}
}

func (c RoutedAttentionConfig) with(change func(*RoutedAttentionConfig)) RoutedAttentionConfig {
	change(&c)
	return c
}

func TestRoutedAttention(t *testing.T) {
	all := func(c *RoutedAttentionConfig) {
		c.Valid, c.QueryValid, c.ScoreValues, c.ScoreKeys, c.ScoreQueries = true, true, true, true, true
	}
	indexed := func(c *RoutedAttentionConfig) { c.KeySource = KeySourceIndexed }
	prefix := func(c *RoutedAttentionConfig) { c.KeySource = KeySourcePrefix }
	valid := func(c *RoutedAttentionConfig) { c.Valid, c.QueryValid = true, true }
	for _, c := range []routedCase{
		{RoutedAttentionConfig: ownKeys(1, 1, 1), lists: 1, queries: 1, keys: 1},
		{RoutedAttentionConfig: ownKeys(2, 16, 1), lists: 2, queries: 31, keys: 7},
		{RoutedAttentionConfig: ownKeys(2, 16, 2), lists: 2, queries: 32, keys: 32},
		{RoutedAttentionConfig: ownKeys(4, 16, 4), lists: 3, queries: 33, keys: 33},
		{RoutedAttentionConfig: ownKeys(4, 24, 2).with(all), lists: 2, queries: 64, keys: 65},
		{RoutedAttentionConfig: ownKeys(2, 64, 1).with(all), lists: 2, queries: 65, keys: 97},
		{RoutedAttentionConfig: ownKeys(1, 64, 1), lists: 1, queries: 70, keys: 200, scale: 30},
		{RoutedAttentionConfig: ownKeys(2, 16, 1), lists: 1, queries: 5, keys: 63, scale: 1e6},
		{RoutedAttentionConfig: ownKeys(2, 128, 2).with(all), lists: 1, queries: 40, keys: 70},
		{RoutedAttentionConfig: ownKeys(3, 17, 3).with(all), lists: 2, queries: 35, keys: 40},
		{RoutedAttentionConfig: ownKeys(2, 20, 1).with(valid), lists: 2, queries: 9, keys: 33, validKeys: -1},
		{RoutedAttentionConfig: ownKeys(2, 96, 1), lists: 1, queries: 5, keys: 64},
		{RoutedAttentionConfig: ownKeys(2, 16, 1).with(func(c *RoutedAttentionConfig) { c.ScoreValues = true }), lists: 2, queries: 33, keys: 31},
		{RoutedAttentionConfig: ownKeys(2, 16, 1).with(func(c *RoutedAttentionConfig) { c.ScoreKeys, c.ScoreQueries = true, true }), lists: 2, queries: 33, keys: 31},
		// Lists with valid slots at the start only, up to the ends of the blocks in which the kernel searches the last
		// valid slot.
		{RoutedAttentionConfig: ownKeys(2, 16, 2).with(valid), lists: 2, queries: 5, keys: 300, validKeys: 1},
		{RoutedAttentionConfig: ownKeys(2, 16, 2).with(valid), lists: 2, queries: 5, keys: 300, validKeys: 127},
		{RoutedAttentionConfig: ownKeys(2, 16, 2).with(valid), lists: 2, queries: 5, keys: 300, validKeys: 128},
		{RoutedAttentionConfig: ownKeys(2, 16, 2).with(valid), lists: 2, queries: 5, keys: 300, validKeys: 129},
		{RoutedAttentionConfig: ownKeys(2, 16, 2).with(valid), lists: 2, queries: 5, keys: 257, validKeys: 257},
		{RoutedAttentionConfig: ownKeys(4, 16, 2).with(all).with(indexed), lists: 6, queries: 8, keys: 45, perItem: 3, rows: 50},
		{RoutedAttentionConfig: ownKeys(2, 33, 1).with(indexed), lists: 2, queries: 40, keys: 31, rows: 7},
		{RoutedAttentionConfig: ownKeys(2, 64, 2).with(valid).with(indexed), lists: 4, queries: 32, keys: 129, perItem: 4, rows: 300},
		{RoutedAttentionConfig: ownKeys(2, 33, 1).with(indexed), lists: 2, queries: 40, keys: 150, rows: 9, validKeys: -1},
		{RoutedAttentionConfig: ownKeys(2, 16, 1).with(prefix), lists: 6, queries: 9, perItem: 3, rows: 70, prefix: 35},
		{RoutedAttentionConfig: ownKeys(2, 16, 1).with(prefix), lists: 4, queries: 32, perItem: 4, rows: 50, prefix: 32},
		{RoutedAttentionConfig: ownKeys(2, 16, 1).with(valid).with(prefix), lists: 6, queries: 31, perItem: 3, rows: 200, prefix: 70},
		{RoutedAttentionConfig: ownKeys(2, 16, 1).with(valid).with(prefix), lists: 6, queries: 4, perItem: 3, rows: 90, prefix: 64, validKeys: 50},
	} {
		if gputest.Reduced() && c.keys != 65 && c.keys != 45 && c.prefix != 70 || testing.Short() && c.keys != 45 {
			continue // CPU drivers compile kernels for 40 s for all cases
		}
		bothKernels(t, fmt.Sprintf("%+v", c), func(t *testing.T, gpuKernel bool) {
			if gpuKernel && (testing.Short() && gputest.Device(t).Caps().CPU || !testing.Short() && gputest.Reduced() && c.keys != 65) {
				t.Skip("compiles a kernel for 3 s on CPU drivers")
			}
			a := c.args()
			got, want, naive := c.run(t, a, gpuKernel), ref.RoutedAttention(a), ref.RoutedAttention32(a)
			assert.NoError(t, ref.MaxErr(got, want).Within(ref.Bound(naive, want, 2e-6)))
		})
	}
}

// Without a valid key the result is exactly the null value of the head.
func TestRoutedAttentionNoValidKey(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles kernels for 5 s on CPU drivers")
	}
	for _, c := range []routedCase{
		{RoutedAttentionConfig: ownKeys(2, 16, 1).with(func(c *RoutedAttentionConfig) { c.Valid = true }), lists: 1, queries: 3, keys: 40, validKeys: -1},
		{RoutedAttentionConfig: ownKeys(2, 33, 1).with(func(c *RoutedAttentionConfig) { c.KeySource = KeySourceIndexed }), lists: 1, queries: 40, keys: 40, rows: 5, validKeys: -1},
		{RoutedAttentionConfig: ownKeys(2, 16, 1).with(func(c *RoutedAttentionConfig) { c.KeySource = KeySourcePrefix }), lists: 1, queries: 3, rows: 5, prefix: 4},
	} {
		bothKernels(t, fmt.Sprintf("%+v", c), func(t *testing.T, gpuKernel bool) {
			a := c.args()
			got, row := c.run(t, a, gpuKernel), c.Heads*c.DimHead
			for i := range c.queries {
				assert.Equal(t, a.Null[row:], got[i*row:][:row])
			}
		})
	}
}

// The bits of a list do not depend on other lists, on the number of dispatches, or on the number of queries.
func TestRoutedAttentionBits(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles kernels for 4 s on CPU drivers")
	}
	bothKernels(t, "bits", func(t *testing.T, gpuKernel bool) { testRoutedBits(t, F32, gpuKernel) })
}

func testRoutedBits(t *testing.T, p DType, gpuKernel bool) {
	gpu := gputest.New(t)
	c := routedCase{RoutedAttentionConfig: ownKeys(2, 16, 1).with(func(c *RoutedAttentionConfig) { c.Valid = true }), lists: 3, queries: 70, keys: 150}
	c.Precision = p
	a := c.args()
	r, err := NewRoutedAttention(gpu.Dev, c.RoutedAttentionConfig)
	require.NoError(t, err)
	defer r.Close()
	r.kernels.gpuKernel = gpuKernel
	g := c.upload(gpu, a)
	gpu.Run(func(t *vk.CommandList) error { return r.Record(t, g) })
	first := decode(p, gpu, "y")
	r.kernels.maxFlops = 3e5
	gpu.Run(func(t *vk.CommandList) error { return r.Record(t, g) })
	assert.Greater(t, len(gpu.StepNames()), 3)
	assert.Equal(t, first, decode(p, gpu, "y"))

	few, row := c, c.Heads*c.DimHead
	few.queries = 3 // which have a smaller tile
	b := a
	b.Q, b.Queries = nil, few.queries
	for list := range c.lists {
		b.Q = append(b.Q, a.Q[(list*c.queries+41)*row:][:few.queries*row]...)
	}
	got := few.run(t, b, gpuKernel)
	for list := range c.lists {
		assert.Equal(t, first[(list*c.queries+41)*row:][:few.queries*row], got[list*few.queries*row:][:few.queries*row])
	}

	list := c.queries * row
	for i := range a.Q[:list] {
		a.Q[i] = -a.Q[i]
	}
	for i := range a.Valid[:c.keys] {
		a.Valid[i] = a.Valid[i] * uint8(i%2)
	}
	got = c.run(t, a, gpuKernel)
	assert.NotEqual(t, first[:list], got[:list])
	assert.Equal(t, first[list:], got[list:])
}

// Empty key slots change no bit, neither at the end of a list nor whole tiles of them between others.
func TestRoutedAttentionPadding(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles kernels for 2 s on CPU drivers")
	}
	bothKernels(t, "padding", func(t *testing.T, gpuKernel bool) { testRoutedPadding(t, F32, gpuKernel) })
}

func testRoutedPadding(t *testing.T, p DType, gpuKernel bool) {
	short := routedCase{RoutedAttentionConfig: ownKeys(2, 16, 1).with(func(c *RoutedAttentionConfig) { c.Valid = true }), lists: 1, queries: 40, keys: 96, validKeys: 96}
	short.Precision = p
	a := short.args()
	first := short.run(t, a, gpuKernel)
	long := short
	long.keys = 700
	b := long.args()
	copy(b.KV, a.KV)
	for i := range b.Valid {
		b.Valid[i] = uint8(1 - specBool(i >= short.keys))
	}
	assert.Equal(t, first, long.run(t, b, gpuKernel))
	// A gap of 128 empty slots after slot 63: keys that were in one tile, of at most 64, still are.
	clear(b.Valid)
	row := 2 * short.Heads * short.DimHead
	for i := range short.keys {
		to := i + 128*int(specBool(i >= 64))
		b.Valid[to] = 1
		copy(b.KV[to*row:][:row], a.KV[i*row:][:row])
	}
	assert.Equal(t, first, long.run(t, b, gpuKernel))
}

// bothKernels tests the kernel for GPUs and, on a CPU driver, also the kernel for CPU drivers.
func bothKernels(t *testing.T, name string, test func(t *testing.T, gpuKernel bool)) {
	t.Run(name, func(t *testing.T) { test(t, true) })
	if limitsOf(gputest.Device(t)).CPU {
		t.Run(name+" cpu", func(t *testing.T) { test(t, false) })
	}
}
