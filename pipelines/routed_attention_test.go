package pipelines

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/internal/ref"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// routedCase is an attention with made-up slots.
type routedCase struct {
	RoutedAttentionConfig
	lists, queries, keys, perItem, rows, prefix int
	scale                                       float32 // of the queries; 0: 1
	empty                                       bool    // no key slot is filled
}

// args are the reference's; slots of every kind of emptiness are among them, and in the keys and values that no slot needs there are NaNs.
func (c routedCase) args() ref.RoutedAttentionArgs {
	h, d, slots := c.Heads, c.DimHead, c.lists*c.Routes*c.keys
	rng := rand.New(rand.NewPCG(uint64(slots), uint64(c.queries)))
	a := ref.RoutedAttentionArgs{
		Q: normal(1, c.lists*c.queries*h*d), Null: normal(3, 2*h*d), Lists: c.lists, Queries: c.queries, Keys: c.keys, Heads: h, Dim: d, Routes: c.Routes,
		PerItem: c.perItem, Rows: c.rows, Prefix: c.prefix, ScoreValues: c.ScoreValues, ScoreKeys: c.ScoreKeys,
	}
	for i := range a.Q {
		a.Q[i] *= max(c.scale, 1)
	}
	rows := c.lists * c.keys * h
	if c.Keys != KeysOwn {
		rows = c.lists / max(c.perItem, 1) * c.rows * h
	}
	a.KV = normal(2, 2*rows*d)
	if c.Filled {
		a.Filled = make([]uint8, slots)
		for i := range a.Filled {
			if !c.empty && rng.IntN(4) > 0 {
				a.Filled[i] = 1
			} else if c.Keys == KeysOwn {
				list, route, j := i/c.keys/c.Routes, i/c.keys%c.Routes, i%c.keys
				row := ((route*c.lists+list)*c.keys + j) * h / c.Routes
				for e := range 2 * d * h / c.Routes {
					a.KV[2*row*d+e] = float32(math.NaN())
				}
			}
		}
	}
	if c.Keys == KeysIndexed {
		a.Indices = make([]int32, slots)
		for i := range a.Indices {
			a.Indices[i] = int32(rng.IntN(c.rows))
			if rng.IntN(9) == 0 {
				a.Indices[i] = []int32{-1, int32(c.rows), math.MaxInt32, math.MinInt32}[rng.IntN(4)]
			}
		}
	}
	if c.QueryFilled {
		a.QueryFilled = make([]uint8, c.lists*c.queries)
		for i := range a.QueryFilled {
			if rng.IntN(3) > 0 && i/c.queries != 1 { // list 1 has none
				a.QueryFilled[i] = 1
			}
		}
	}
	if c.ScoreValues || c.ScoreKeys {
		a.KeyScores = normal(4, slots)
	}
	if c.ScoreQueries {
		a.QueryScores = normal(5, c.lists*c.queries)
	}
	return a
}

// filledWords are the filled words of bytes.
func filledWords(bytes []uint8) []uint32 {
	list := make([]uint32, len(bytes))
	for i, b := range bytes {
		list[i] = uint32(b)
	}
	return list
}

func (c routedCase) put(lab *gputest.Lab, a ref.RoutedAttentionArgs) RoutedAttentionArgs {
	g := RoutedAttentionArgs{
		Q: lab.In("q", a.Q), KV: lab.In("kv", a.KV), Null: lab.In("null", a.Null), Y: lab.Out("y", 4*len(a.Q)),
		Lists: c.lists, Queries: c.queries, Keys: c.keys, PerItem: c.perItem, KVRows: c.rows, Prefix: c.prefix,
	}
	if a.Indices != nil {
		g.Indices = lab.In("indices", a.Indices)
	}
	if a.Filled != nil {
		g.Filled = lab.In("filled", filledWords(a.Filled))
	}
	if a.KeyScores != nil {
		g.KeyScores = lab.In("key scores", a.KeyScores)
	}
	if a.QueryFilled != nil {
		g.QueryFilled = lab.In("query filled", filledWords(a.QueryFilled))
	}
	if a.QueryScores != nil {
		g.QueryScores = lab.In("query scores", a.QueryScores)
	}
	return g
}

func TestRoutedAttention(t *testing.T) {
	own := func(h, d, r int) RoutedAttentionConfig { return RoutedAttentionConfig{Heads: h, DimHead: d, Routes: r} }
	all := func(c RoutedAttentionConfig) RoutedAttentionConfig {
		c.Filled, c.QueryFilled, c.ScoreValues, c.ScoreKeys, c.ScoreQueries = true, true, true, true, true
		return c
	}
	indexed := func(c RoutedAttentionConfig) RoutedAttentionConfig { c.Keys = KeysIndexed; return c }
	prefix := func(c RoutedAttentionConfig) RoutedAttentionConfig { c.Keys = KeysPrefix; return c }
	filled := func(c RoutedAttentionConfig) RoutedAttentionConfig { c.Filled, c.QueryFilled = true, true; return c }
	for _, c := range []routedCase{
		{RoutedAttentionConfig: own(1, 1, 1), lists: 1, queries: 1, keys: 1},
		{RoutedAttentionConfig: own(2, 16, 1), lists: 2, queries: 31, keys: 7},
		{RoutedAttentionConfig: own(2, 16, 2), lists: 2, queries: 32, keys: 32},
		{RoutedAttentionConfig: own(4, 16, 4), lists: 3, queries: 33, keys: 33},
		{RoutedAttentionConfig: all(own(4, 24, 2)), lists: 2, queries: 64, keys: 65},
		{RoutedAttentionConfig: all(own(2, 64, 1)), lists: 2, queries: 65, keys: 97},
		{RoutedAttentionConfig: own(1, 64, 1), lists: 1, queries: 70, keys: 200, scale: 30},
		{RoutedAttentionConfig: all(own(2, 128, 2)), lists: 1, queries: 40, keys: 70},
		{RoutedAttentionConfig: all(own(3, 17, 3)), lists: 2, queries: 35, keys: 40},
		{RoutedAttentionConfig: filled(own(2, 20, 1)), lists: 2, queries: 9, keys: 33, empty: true},
		{RoutedAttentionConfig: own(2, 96, 1), lists: 1, queries: 5, keys: 64},
		{RoutedAttentionConfig: indexed(all(own(4, 16, 2))), lists: 6, queries: 8, keys: 45, perItem: 3, rows: 50},
		{RoutedAttentionConfig: indexed(own(2, 33, 1)), lists: 2, queries: 40, keys: 31, rows: 7},
		{RoutedAttentionConfig: indexed(filled(own(2, 64, 2))), lists: 4, queries: 32, keys: 129, perItem: 4, rows: 300},
		{RoutedAttentionConfig: prefix(own(2, 16, 1)), lists: 6, queries: 9, perItem: 3, rows: 70, prefix: 35},
		{RoutedAttentionConfig: prefix(own(1, 64, 1)), lists: 4, queries: 33, perItem: 4, rows: 50, prefix: 32},
	} {
		c.QueryFilled = c.QueryFilled || c.Keys == KeysPrefix
		both(t, fmt.Sprintf("%+v", c), func(t *testing.T, tiled bool) {
			lab := gputest.Open(t)
			a := c.args()
			r, err := NewRoutedAttention(lab.Dev, c.RoutedAttentionConfig)
			require.NoError(t, err)
			defer r.Close()
			r.kernels.tiled = tiled
			g := c.put(lab, a)
			lab.Run(func(t *vk.Tape) error { return r.Record(t, g) })
			want, naive := ref.RoutedAttention(a), ref.RoutedAttention32(a)
			got := lab.Float32("y")
			for i := range a.QueryFilled { // the rows of empty queries are left alone
				if a.QueryFilled[i] == 0 {
					row := got[i*c.Heads*c.DimHead:][:c.Heads*c.DimHead]
					for j, v := range row {
						require.True(t, math.IsNaN(float64(v)), "query %d was written", i)
						row[j] = 0
					}
				}
			}
			assert.NoError(t, ref.MaxErr(got, want).Within(ref.Bound(naive, want, 2e-6)))
		})
	}
}

// With no key a query gets its head's null value, exactly.
func TestRoutedAttentionNullAlone(t *testing.T) {
	lab := gputest.Open(t)
	c := routedCase{RoutedAttentionConfig: RoutedAttentionConfig{Heads: 2, DimHead: 20, Routes: 1, Filled: true}, lists: 1, queries: 3, keys: 40, empty: true}
	a := c.args()
	r, err := NewRoutedAttention(lab.Dev, c.RoutedAttentionConfig)
	require.NoError(t, err)
	defer r.Close()
	g := c.put(lab, a)
	lab.Run(func(t *vk.Tape) error { return r.Record(t, g) })
	for i := range c.queries {
		assert.Equal(t, a.Null[2*20:], lab.Float32("y")[i*40:][:40])
	}
}

// Other lists, and whether the work goes in one dispatch or in several, change no bit.
func TestRoutedAttentionBits(t *testing.T) {
	lab := gputest.Open(t)
	c := routedCase{RoutedAttentionConfig: RoutedAttentionConfig{Heads: 2, DimHead: 16, Routes: 2, Filled: true}, lists: 3, queries: 70, keys: 50}
	a := c.args()
	r, err := NewRoutedAttention(lab.Dev, c.RoutedAttentionConfig)
	require.NoError(t, err)
	defer r.Close()
	g := c.put(lab, a)
	lab.Run(func(t *vk.Tape) error { return r.Record(t, g) })
	first := append([]float32(nil), lab.Float32("y")...)
	r.kernels.limit = 1e5
	lab.Run(func(t *vk.Tape) error { return r.Record(t, g) })
	assert.Greater(t, len(lab.Dispatches()), 3)
	assert.Equal(t, first, lab.Float32("y"))

	other := gputest.Open(t)
	list := c.queries * c.Heads * c.DimHead
	for i := range a.Q[:list] {
		a.Q[i] = -a.Q[i]
	}
	g = c.put(other, a)
	other.Run(func(t *vk.Tape) error { return r.Record(t, g) })
	assert.NotEqual(t, first[:list], other.Float32("y")[:list])
	assert.Equal(t, first[list:], other.Float32("y")[list:])
}

func TestRoutedAttentionBadInput(t *testing.T) {
	lab := gputest.Open(t)
	for _, test := range []struct {
		want   string
		config RoutedAttentionConfig
	}{
		{"Heads is 0, want 1", RoutedAttentionConfig{DimHead: 16, Routes: 1}},
		{"DimHead is 0, want 1 to 128", RoutedAttentionConfig{Heads: 2, Routes: 1}},
		{"DimHead is 129, want 1 to 128", RoutedAttentionConfig{Heads: 2, DimHead: 129, Routes: 1}},
		{"Routes is 0, want a divisor of Heads, 2", RoutedAttentionConfig{Heads: 2, DimHead: 16}},
		{"Routes is 3, want a divisor of Heads, 2", RoutedAttentionConfig{Heads: 2, DimHead: 16, Routes: 3}},
		{"Keys is 9, want KeysOwn", RoutedAttentionConfig{Heads: 2, DimHead: 16, Routes: 1, Keys: 9}},
		{"Keys is KeysPrefix, want one route", RoutedAttentionConfig{Heads: 2, DimHead: 16, Routes: 2, Keys: KeysPrefix}},
		{"Keys is KeysPrefix, want one route, and no Filled", RoutedAttentionConfig{Heads: 2, DimHead: 16, Routes: 1, Keys: KeysPrefix, Filled: true}},
	} {
		_, err := NewRoutedAttention(lab.Dev, test.config)
		assert.ErrorContains(t, err, test.want)
	}
	c := routedCase{RoutedAttentionConfig: RoutedAttentionConfig{Heads: 2, DimHead: 4, Routes: 2, Keys: KeysIndexed, Filled: true, QueryFilled: true}, lists: 2, queries: 3, keys: 5, perItem: 2, rows: 6}
	r, err := NewRoutedAttention(lab.Dev, c.RoutedAttentionConfig)
	require.NoError(t, err)
	defer r.Close()
	good := c.put(lab, c.args())
	for _, test := range []struct {
		want   string
		change func(*RoutedAttentionArgs)
	}{
		{"Lists is 0, want 1", func(a *RoutedAttentionArgs) { a.Lists = 0 }},
		{"Queries is 0, want 1", func(a *RoutedAttentionArgs) { a.Queries = 0 }},
		{"Keys is 0, want 1", func(a *RoutedAttentionArgs) { a.Keys = 0 }},
		{"M is 0, want 1", func(a *RoutedAttentionArgs) { a.KVRows = 0 }},
		{"PerItem is 3, want a divisor of Lists, 2", func(a *RoutedAttentionArgs) { a.PerItem = 3 }},
		{"Prefix is 1, want 0", func(a *RoutedAttentionArgs) { a.Prefix = 1 }},
		{"q is missing, want [Lists 2, Queries 3, H 2, D 4] f32, 192 bytes", func(a *RoutedAttentionArgs) { a.Q = vk.Range{} }},
		{"kv has 192 bytes, want [Items 1, M 6, H 2, 2 2, D 4] f32, 384 bytes", func(a *RoutedAttentionArgs) { a.KV = a.Q }},
		{"indices is missing, want [Lists 2, R 2, Keys 5] i32, 80 bytes", func(a *RoutedAttentionArgs) { a.Indices = vk.Range{} }},
		{"filled is missing, want [Lists 2, R 2, Keys 5] u32", func(a *RoutedAttentionArgs) { a.Filled = vk.Range{} }},
		{"key scores has 80 bytes, want none", func(a *RoutedAttentionArgs) { a.KeyScores = a.Filled }},
		{"query filled is missing, want [Lists 2, Queries 3] u32, 24 bytes", func(a *RoutedAttentionArgs) { a.QueryFilled = vk.Range{} }},
		{"query scores has 24 bytes, want none", func(a *RoutedAttentionArgs) { a.QueryScores = a.QueryFilled }},
		{"null is missing, want [2 2, H 2, D 4] f32, 64 bytes", func(a *RoutedAttentionArgs) { a.Null = vk.Range{} }},
		{"y has 64 bytes, want [Lists 2, Queries 3, H 2, D 4] f32", func(a *RoutedAttentionArgs) { a.Y = a.Null }},
	} {
		a := good
		test.change(&a)
		badRecord(t, lab, test.want, func(t *vk.Tape) error { return r.Record(t, a) })
	}
	require.NoError(t, r.Close())
	badRecord(t, lab, "closed", func(t *vk.Tape) error { return r.Record(t, good) })
}

// both tests the kernel of GPUs and, on a CPU driver, the one for these.
func both(t *testing.T, name string, test func(t *testing.T, tiled bool)) {
	t.Run(name, func(t *testing.T) { test(t, true) })
	if gputest.Device(t).Caps().CPU {
		t.Run(name+" cpu", func(t *testing.T) { test(t, false) })
	}
}
