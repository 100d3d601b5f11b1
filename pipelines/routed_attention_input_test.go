package pipelines

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/vk"
)

func TestRoutedAttentionBadInput(t *testing.T) {
	gpu := gputest.New(t)
	for _, test := range []struct {
		want   string
		config RoutedAttentionConfig
	}{
		{"Heads is 0, want 1", RoutedAttentionConfig{DimHead: 16, Routes: 1}},
		{"DimHead is 0, want 1 to 128", RoutedAttentionConfig{Heads: 2, Routes: 1}},
		{"DimHead is 129, want 1 to 128", RoutedAttentionConfig{Heads: 2, DimHead: 129, Routes: 1}},
		{"Routes is 0, want a divisor of Heads, 2", RoutedAttentionConfig{Heads: 2, DimHead: 16}},
		{"Routes is 3, want a divisor of Heads, 2", RoutedAttentionConfig{Heads: 2, DimHead: 16, Routes: 3}},
		{"KeySource is 9, want KeySourceOwn", RoutedAttentionConfig{Heads: 2, DimHead: 16, Routes: 1, KeySource: 9}},
		{"KeySource is KeySourcePrefix, want one route", RoutedAttentionConfig{Heads: 2, DimHead: 16, Routes: 2, KeySource: KeySourcePrefix}},
		{"KeySource is KeySourcePrefix, want one route and no ScoreValues", RoutedAttentionConfig{Heads: 2, DimHead: 16, Routes: 1, KeySource: KeySourcePrefix, ScoreValues: true}},
		{"KeySource is KeySourcePrefix, want one route and no ScoreValues or ScoreKeys", RoutedAttentionConfig{Heads: 2, DimHead: 16, Routes: 1, KeySource: KeySourcePrefix, ScoreKeys: true}},
	} {
		_, err := NewRoutedAttention(gpu.Dev, test.config)
		assert.ErrorContains(t, err, test.want)
	}
	c := routedCase{RoutedAttentionConfig: RoutedAttentionConfig{Heads: 2, DimHead: 4, Routes: 2, KeySource: KeySourceIndexed, Valid: true, QueryValid: true}, lists: 2, queries: 3, keys: 5, perItem: 2, rows: 6}
	r, err := NewRoutedAttention(gpu.Dev, c.RoutedAttentionConfig)
	require.NoError(t, err)
	defer r.Close()
	good, big := c.upload(gpu, c.args()), gpu.In("big", make([]float32, 400))
	for _, test := range []struct {
		want   string
		change func(*RoutedAttentionArgs)
	}{
		{"Lists is 0, want 1", func(a *RoutedAttentionArgs) { a.Lists = 0 }},
		{"Queries is 0, want 1", func(a *RoutedAttentionArgs) { a.Queries = 0 }},
		{"KeysPerList is 0, want 1", func(a *RoutedAttentionArgs) { a.KeysPerList = 0 }},
		{"M is 0, want 1", func(a *RoutedAttentionArgs) { a.KVRows = 0 }},
		{"PerItem is 3, want a divisor of Lists, 2", func(a *RoutedAttentionArgs) { a.PerItem = 3 }},
		{"WindowSize is 1, want 0", func(a *RoutedAttentionArgs) { a.WindowSize = 1 }},
		{"[Lists 2, Queries 2000000000, H 2] makes 8000000000 rows, want 4294967295 at most", func(a *RoutedAttentionArgs) { a.Queries = 2e9 }},
		{"[Lists 2, R 2, KeysPerList 2000000000] makes 8000000000 rows, want", func(a *RoutedAttentionArgs) { a.KeysPerList = 2e9 }},
		{"M 2000000000, H 2, 2 2] makes 8000000000 rows, want", func(a *RoutedAttentionArgs) { a.KVRows = 2e9 }},
		{"PerItem is -2, want 1", func(a *RoutedAttentionArgs) { a.PerItem = -2 }},
		{"q starts at byte 264 of its buffer, want a multiple of 16", func(a *RoutedAttentionArgs) { a.Q = big.Slice(8, 192) }},
		{"kv starts at byte 260 of its buffer, want a multiple of 16", func(a *RoutedAttentionArgs) { a.KV = big.Slice(4, 384) }},
		{"y starts at byte 268 of its buffer, want a multiple of 16", func(a *RoutedAttentionArgs) { a.Y = big.Slice(12, 192) }},
		{"null starts at byte 260 of its buffer, want a multiple of 16", func(a *RoutedAttentionArgs) { a.Null = big.Slice(4, 64) }},
		{"indices starts at byte 258 of its buffer, want a multiple of 4", func(a *RoutedAttentionArgs) { a.Indices = big.Slice(2, 80) }},
		{"valid starts at byte 257 of its buffer, want a multiple of 4", func(a *RoutedAttentionArgs) { a.Valid = big.Slice(1, 80) }},
		{"query valid starts at byte 259 of its buffer, want a multiple of 4", func(a *RoutedAttentionArgs) { a.QueryValid = big.Slice(3, 24) }},
		{"q is missing, want [Lists 2, Queries 3, H 2, D 4] f32, 192 bytes", func(a *RoutedAttentionArgs) { a.Q = vk.Range{} }},
		{"kv has 192 bytes, want [Items 1, M 6, H 2, 2 2, D 4] f32, 384 bytes", func(a *RoutedAttentionArgs) { a.KV = a.Q }},
		{"indices is missing, want [Lists 2, R 2, KeysPerList 5] i32, 80 bytes", func(a *RoutedAttentionArgs) { a.Indices = vk.Range{} }},
		{"valid is missing, want [Lists 2, R 2, KeysPerList 5] u32", func(a *RoutedAttentionArgs) { a.Valid = vk.Range{} }},
		{"key scores has 80 bytes, want none", func(a *RoutedAttentionArgs) { a.KeyScores = a.Valid }},
		{"query valid is missing, want [Lists 2, Queries 3] u32, 24 bytes", func(a *RoutedAttentionArgs) { a.QueryValid = vk.Range{} }},
		{"query scores has 24 bytes, want none", func(a *RoutedAttentionArgs) { a.QueryScores = a.QueryValid }},
		{"null is missing, want [2 2, H 2, D 4] f32, 64 bytes", func(a *RoutedAttentionArgs) { a.Null = vk.Range{} }},
		{"y has 64 bytes, want [Lists 2, Queries 3, H 2, D 4] f32", func(a *RoutedAttentionArgs) { a.Y = a.Null }},
	} {
		a := good
		test.change(&a)
		assertRecordError(t, gpu, test.want, func(t *vk.CommandList) error { return r.Record(t, a) })
	}
	require.NoError(t, r.Close())
	assertRecordError(t, gpu, "closed", func(t *vk.CommandList) error { return r.Record(t, good) })
}
