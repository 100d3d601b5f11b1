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

// gradientArgs returns the arguments of the CPU reference. Lists name a row at most once.
func (c routedCase) gradientArgs() (a ref.RoutedAttentionArgs, dy []float32) {
	a = c.args()
	for i := range a.KeyScores {
		if c.unitScores {
			a.KeyScores[i] = 1
		}
	}
	rng := rand.New(rand.NewPCG(11, uint64(c.keys)))
	for first := 0; first < len(a.Indices); first += c.keys {
		rows := rng.Perm(c.rows)
		for i := range c.keys {
			index := []int32{-1, int32(c.rows), math.MaxInt32, math.MinInt32}[i%4]
			if i < len(rows) && c.validKeys >= 0 && i%9 != 8 {
				index = int32(rows[i])
			}
			if a.Valid != nil && a.Valid[first+i] == 0 {
				index = int32(rows[0]) // routers give empty slots an index that another slot has too
			}
			a.Indices[first+i] = index
		}
	}
	return a, c.Precision.roundAll(normal(21, len(a.Q)))
}

// isEmpty reports whether a query slot is empty.
func isEmpty(a ref.RoutedAttentionArgs, slot int) bool {
	return a.QueryValid != nil && a.QueryValid[slot] == 0 || a.QueryScores != nil && a.QueryScores[slot] == 0
}

// routedGrads are the gradients that the kernels compute. Null has a part for each list.
type routedGrads = ref.RoutedAttentionGradsOf[float32]

// backwardSizes are the sizes that the scratch memory depends on.
func (c routedCase) backwardSizes() RoutedAttentionBackwardArgs {
	return RoutedAttentionBackwardArgs{Lists: c.lists, Queries: c.queries, KeysPerList: c.keys, PerItem: max(c.perItem, 1), KVRows: c.rows}
}

// backward computes on the device. Rows of empty queries are NaN there.
func (c routedCase) backward(t *testing.T, r *RoutedAttentionBackward, gpu *gputest.Harness, a ref.RoutedAttentionArgs, dy []float32) routedGrads {
	t.Helper()
	p, row, offset := c.Precision, c.Heads*c.DimHead, rowAlign(c.DimHead)
	poisoned, forward := a, a
	if p != F32 {
		forward.Round = p.round // as the forward kernel, whose result this is
	}
	y := ref.RoutedAttention32(forward)
	poisoned.Q, dy = append([]float32{}, a.Q...), append([]float32{}, dy...)
	for slot := range c.lists * c.queries {
		for i := slot * row; i < (slot+1)*row && isEmpty(a, slot); i++ {
			poisoned.Q[i], dy[i], y[i] = float32(math.NaN()), float32(math.NaN()), float32(math.NaN())
		}
	}
	f := c.upload(gpu, poisoned)
	if c.unitScores {
		f.KeyScores = vk.Range{}
	}
	output := func(name string, elements int) vk.Range {
		if elements == 0 {
			return vk.Range{}
		}
		return outputAt(gpu, name, elements, offset)
	}
	g := RoutedAttentionBackwardArgs{
		Q: f.Q, KV: f.KV, Indices: f.Indices, Valid: f.Valid, KeyScores: f.KeyScores, QueryValid: f.QueryValid, QueryScores: f.QueryScores, Null: f.Null,
		Lists: f.Lists, Queries: f.Queries, KeysPerList: f.KeysPerList, PerItem: f.PerItem, KVRows: f.KVRows, WindowSize: f.WindowSize,
		Y: inputAt(gpu, "result", encode(p, y), offset), DY: inputAt(gpu, "dy", encode(p, dy), offset), DQ: p.outputAt(gpu, "dq", len(a.Q), offset), DKV: p.outputAt(gpu, "dkv", len(a.KV), offset), DNull: output("dnull", c.lists*2*row),
		DKeyScores: output("dkey scores", len(a.KeyScores)), DQueryScores: output("dquery scores", len(a.QueryScores)),
		Scratch: gpu.Out("scratch", int(RoutedAttentionBackwardScratch(c.RoutedAttentionConfig, c.backwardSizes()))),
	}
	gpu.Run(func(list *vk.CommandList) error { return r.Record(list, g) })
	got := routedGrads{Q: p.outputFrom(t, gpu, "dq", offset), KV: p.outputFrom(t, gpu, "dkv", offset), Null: outputFrom(t, gpu, "dnull", offset)}
	if a.KeyScores != nil {
		got.KeyScores = outputFrom(t, gpu, "dkey scores", offset)
	}
	if a.QueryScores != nil {
		got.QueryScores = outputFrom(t, gpu, "dquery scores", offset)
	}
	return got
}

func (c routedCase) openBackward(t *testing.T) *RoutedAttentionBackward {
	t.Helper()
	r, err := NewRoutedAttentionBackward(gputest.Device(t), c.RoutedAttentionConfig)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, r.Close()) })
	return r
}

// nullByList returns the gradients of the null keys and values for each list.
func (c routedCase) nullByList(a, rounded ref.RoutedAttentionArgs, dy []float32) (want []float64, naive []float32) {
	for list := range c.lists {
		one := a
		one.QueryValid = make([]uint8, c.lists*c.queries)
		for slot := list * c.queries; slot < (list+1)*c.queries; slot++ {
			one.QueryValid[slot] = uint8(specBool(!isEmpty(a, slot)))
		}
		want = append(want, ref.RoutedAttentionBackward(one, dy).Null...)
		one.Round = rounded.Round
		naive = append(naive, ref.RoutedAttentionBackward32(one, dy).Null...)
	}
	if c.merged {
		mergeNulls(want, c)
		mergeNulls(naive, c)
	}
	return want, naive
}

// mergeNulls adds the gradients of the null keys and values of the lists of a set to those of its first list, and clears them.
func mergeNulls[T ref.Float](nulls []T, c routedCase) {
	row, perItem := 2*c.Heads*c.DimHead, max(c.perItem, 1)
	for list := range c.lists {
		first := list - list%perItem%mergedLists
		for i := range row {
			if list != first {
				nulls[first*row+i] += nulls[list*row+i]
				nulls[list*row+i] = 0
			}
		}
	}
}

// logitError is the effect of the rounding of logits to float32 on the gradients want. A sum of D products with rounding errors
// of 2^-24 has the error of sqrt(D) of them, like that of exact products with a query whose elements differ by as much.
func logitError(a ref.RoutedAttentionArgs, dy []float32, want ref.RoutedAttentionGrads) float64 {
	rng, change := rand.New(rand.NewPCG(12, 0)), math.Sqrt(float64(a.DimHead))*0x1p-24
	a.Q = append([]float32{}, a.Q...)
	for i := range a.Q {
		a.Q[i] = float32(float64(a.Q[i]) * (1 + change*float64(2*rng.IntN(2)-1)))
	}
	got := ref.RoutedAttentionBackward(a, dy)
	difference := func(got, want []float64) float64 {
		list := make([]float32, len(got))
		for i, v := range got {
			list[i] = float32(v)
		}
		return ref.MaxErr(list, want).Rel
	}
	return max(difference(got.Q, want.Q), difference(got.KV, want.KV))
}

// check compares gradients with the reference.
func (c routedCase) check(t *testing.T, a ref.RoutedAttentionArgs, dy []float32, got routedGrads) {
	t.Helper()
	p := c.Precision
	want := ref.RoutedAttentionBackward(a, dy)
	rounded, floor := a, 2e-6
	if p != F32 {
		rounded.Round, floor = p.round, p.gradientFloor()
	} else if c.scale != 0 { // few queries are undecided between keys, and a gradient depends on the logits of these
		floor += logitError(a, dy, want)
	}
	naive := ref.RoutedAttentionBackward32(rounded, dy)
	want.Null, naive.Null = c.nullByList(a, rounded, dy)
	compare := func(name string, got []float32, want []float64, naive []float32) {
		if want != nil {
			assert.NoError(t, ref.MaxErr(got, want).Within(ref.Bound(naive, want, floor)), name)
		}
	}
	compare("dq", got.Q, want.Q, naive.Q)
	compare("dkv", got.KV, want.KV, naive.KV)
	compare("dnull", got.Null, want.Null, naive.Null)
	compare("dkey scores", got.KeyScores, want.KeyScores, naive.KeyScores)
	compare("dquery scores", got.QueryScores, want.QueryScores, naive.QueryScores)
	row := c.Heads * c.DimHead
	for slot := range c.lists * c.queries {
		if isEmpty(a, slot) {
			assert.Equal(t, make([]float32, row), got.Q[slot*row:][:row], "the empty query %d", slot)
		}
	}
	for i, v := range got.KV {
		if want.KV[i] == 0 && a.Valid != nil && math.IsNaN(float64(a.KV[i])) && v != 0 {
			t.Fatalf("element %d of dkv, of an empty slot, is %g", i, v)
		}
	}
}

func TestRoutedAttentionBackward(t *testing.T) {
	all := func(c *RoutedAttentionConfig) {
		c.Valid, c.QueryValid, c.ScoreValues, c.ScoreKeys, c.ScoreQueries = true, true, true, true, true
	}
	indexed := func(c *RoutedAttentionConfig) { c.KeySource = KeySourceIndexed }
	prefix := func(c *RoutedAttentionConfig) { c.KeySource = KeySourcePrefix }
	valid := func(c *RoutedAttentionConfig) { c.Valid, c.QueryValid = true, true }
	scoreValues := func(c *RoutedAttentionConfig) { c.ScoreValues = true }
	scoreOthers := func(c *RoutedAttentionConfig) { c.ScoreKeys, c.ScoreQueries = true, true }
	opened := map[RoutedAttentionConfig]*RoutedAttentionBackward{}
	for _, c := range []routedCase{
		{RoutedAttentionConfig: ownKeys(1, 1, 1), lists: 1, queries: 1, keys: 1},
		{RoutedAttentionConfig: ownKeys(2, 16, 1), lists: 2, queries: 15, keys: 31},
		{RoutedAttentionConfig: ownKeys(2, 16, 1), lists: 2, queries: 16, keys: 15}, // with the null key one tile
		{RoutedAttentionConfig: ownKeys(2, 16, 1), lists: 1, queries: 17, keys: 16},
		{RoutedAttentionConfig: ownKeys(2, 16, 1), lists: 1, queries: 5, keys: 63, scale: 1e4}, // every softmax is 1 and 0
		{RoutedAttentionConfig: ownKeys(4, 7, 4), lists: 3, queries: 33, keys: 33},
		{RoutedAttentionConfig: ownKeys(4, 24, 2).with(all), lists: 2, queries: 64, keys: 65},
		{RoutedAttentionConfig: ownKeys(2, 100, 2).with(all), lists: 1, queries: 40, keys: 70},
		{RoutedAttentionConfig: ownKeys(1, 128, 1).with(valid), lists: 2, queries: 35, keys: 40},
		{RoutedAttentionConfig: ownKeys(1, 128, 1).with(valid), lists: 2, queries: 9, keys: 33, validKeys: -1},
		{RoutedAttentionConfig: ownKeys(1, 64, 1), lists: 1, queries: 70, keys: 100, scale: 30},
		{RoutedAttentionConfig: ownKeys(2, 16, 1).with(scoreValues), lists: 2, queries: 33, keys: 31},
		{RoutedAttentionConfig: ownKeys(2, 16, 1).with(scoreOthers), lists: 2, queries: 33, keys: 31},
		{RoutedAttentionConfig: ownKeys(4, 16, 2).with(all).with(indexed), lists: 6, queries: 8, keys: 45, perItem: 3, rows: 50},
		{RoutedAttentionConfig: ownKeys(4, 16, 2).with(all).with(indexed), lists: 6, queries: 8, keys: 45, perItem: 3, rows: 50, unitScores: true},
		{RoutedAttentionConfig: ownKeys(2, 33, 1).with(indexed), lists: 2, queries: 20, keys: 31, rows: 7},
		{RoutedAttentionConfig: ownKeys(2, 33, 1).with(indexed), lists: 4, queries: 40, keys: 50, perItem: 2, rows: 9, validKeys: -1},
		{RoutedAttentionConfig: ownKeys(2, 64, 2).with(valid).with(indexed), lists: 4, queries: 32, keys: 99, perItem: 4, rows: 200},
		{RoutedAttentionConfig: ownKeys(2, 16, 1).with(prefix), lists: 6, queries: 9, perItem: 3, rows: 70, prefix: 35},
		{RoutedAttentionConfig: ownKeys(2, 16, 1).with(prefix), lists: 4, queries: 32, perItem: 4, rows: 50, prefix: 32},
		{RoutedAttentionConfig: ownKeys(2, 16, 1).with(prefix), lists: 3, queries: 3, rows: 5, prefix: 4}, // no list sees a row
		{RoutedAttentionConfig: ownKeys(3, 20, 1).with(valid).with(prefix).with(func(c *RoutedAttentionConfig) { c.ScoreQueries = true }), lists: 6, queries: 31, perItem: 3, rows: 100, prefix: 40},
	} {
		if testing.Short() && c.keys != 45 {
			continue // CPU drivers compile kernels for seconds
		}
		if opened[c.RoutedAttentionConfig] == nil {
			opened[c.RoutedAttentionConfig] = c.openBackward(t)
		}
		t.Run(fmt.Sprintf("%+v", c), func(t *testing.T) {
			gpu := gputest.New(t)
			a, dy := c.gradientArgs()
			c.check(t, a, dy, c.backward(t, opened[c.RoutedAttentionConfig], gpu, a, dy))
			assert.Equal(t, c.backwardSteps(), gpu.StepNames())
		})
	}
}

// backwardSteps are the names of the steps.
func (c routedCase) backwardSteps() []string {
	names := []string{"queries", "keys"}
	if c.unitScores {
		names = []string{"", "queries", "keys"} // the fill of ones
	}
	if c.KeySource == KeySourceIndexed {
		names = append(names, "", "table", "sum")
	}
	for _, on := range []bool{c.ScoreQueries, c.ScoreKeys || c.ScoreValues} {
		if on {
			names = append(names, "scores")
		}
	}
	for i, name := range names {
		names[i] = "routed_attention_backward_" + name
		if name == "" {
			names[i] = "fill"
		}
	}
	return names
}

// The bits of a list's gradients, or of an item's rows, do not depend on other items, nor on the number of dispatches.
func TestRoutedAttentionBackwardBits(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles kernels for 3 s on CPU drivers")
	}
	c := routedCase{RoutedAttentionConfig: RoutedAttentionConfig{Heads: 2, DimHead: 16, Routes: 1, KeySource: KeySourceIndexed, ScoreValues: true},
		lists: 4, queries: 19, keys: 37, perItem: 2, rows: 40}
	r := c.openBackward(t)
	a, dy := c.gradientArgs()
	first := c.backward(t, r, gputest.New(t), a, dy)
	r.kernels.maxFlops = 1e5
	gpu := gputest.New(t)
	assert.Equal(t, first, c.backward(t, r, gpu, a, dy))
	assert.Greater(t, len(gpu.StepNames()), 10)

	c.checkSecondItem(t, r, a, dy, first)
}

// checkSecondItem compares the gradients of the second of two items, of all arguments, with those of that item alone.
func (c routedCase) checkSecondItem(t *testing.T, r *RoutedAttentionBackward, a ref.RoutedAttentionArgs, dy []float32, first routedGrads) {
	t.Helper()
	b := a
	c.lists /= 2
	b.Lists, b.Q, b.KV, b.Indices, b.KeyScores = c.lists, a.Q[len(a.Q)/2:], a.KV[len(a.KV)/2:], a.Indices[len(a.Indices)/2:], a.KeyScores[len(a.KeyScores)/2:]
	b.Valid, b.QueryValid = a.Valid[len(a.Valid)/2:], a.QueryValid[len(a.QueryValid)/2:]
	got := c.backward(t, r, gputest.New(t), b, dy[len(dy)/2:])
	assert.Equal(t, first.Q[len(a.Q)/2:], got.Q)
	assert.Equal(t, first.KV[len(a.KV)/2:], got.KV)
	assert.Equal(t, first.Null[len(first.Null)/2:], got.Null)
	assert.Equal(t, first.KeyScores[len(a.KeyScores)/2:], got.KeyScores)
}

func TestRoutedAttentionBackwardBadInput(t *testing.T) {
	gpu := gputest.New(t)
	for want, c := range map[string]RoutedAttentionConfig{
		"RoutedAttentionBackward: DimHead is 0, want 1 to 128":          {Heads: 2, Routes: 1},
		"RoutedAttentionBackward: Routes is 3, want a divisor of Heads": {Heads: 2, DimHead: 16, Routes: 3},
	} {
		_, err := NewRoutedAttentionBackward(gpu.Dev, c)
		assert.ErrorContains(t, err, want)
	}
	config := RoutedAttentionConfig{Heads: 2, DimHead: 4, Routes: 1, KeySource: KeySourceIndexed, ScoreValues: true, ScoreQueries: true}
	assert.Zero(t, RoutedAttentionBackwardScratch(config, RoutedAttentionBackwardArgs{Queries: 1, KeysPerList: 1, KVRows: 1}))
	sizes := RoutedAttentionBackwardArgs{Lists: 2, Queries: 3, KeysPerList: 4, KVRows: 4}
	assert.EqualValues(t, 192+48+64+32+512+32, RoutedAttentionBackwardScratch(config, sizes))
	r, err := NewRoutedAttentionBackward(gpu.Dev, config)
	require.NoError(t, err)
	x, y := gpu.In("x", normal(1, 256)), gpu.Out("y", 4096)
	good := RoutedAttentionBackwardArgs{
		Q: x.Slice(0, 192), KV: x.Slice(0, 512), Indices: x.Slice(0, 32), KeyScores: x.Slice(0, 32), QueryScores: x.Slice(0, 24), Null: x.Slice(0, 64),
		Lists: 2, Queries: 3, KeysPerList: 4, KVRows: 4, Y: x.Slice(0, 192), DY: x.Slice(0, 192), DQ: y.Slice(0, 192), DKV: y.Slice(192, 512), DNull: y.Slice(704, 128),
		DKeyScores: y.Slice(832, 32), DQueryScores: y.Slice(864, 24), Scratch: y.Slice(1024, RoutedAttentionBackwardScratch(config, sizes)),
	}
	list, err := gpu.Dev.NewCommandList(vk.CommandListConfig{Name: "good"})
	require.NoError(t, err)
	require.NoError(t, r.Record(list, good))
	require.NoError(t, list.Close())
	assertRejected(t, gpu, good, r.Record, []badArgs[RoutedAttentionBackwardArgs]{
		{"Lists is 0, want 1", func(a *RoutedAttentionBackwardArgs) { a.Lists = 0 }},
		{"PerItem is 3, want a divisor of Lists, 2", func(a *RoutedAttentionBackwardArgs) { a.PerItem = 3 }},
		{"WindowSize is 2, want 0", func(a *RoutedAttentionBackwardArgs) { a.WindowSize = 2 }},
		{"kv is missing, want [Items 2, M 4, H 2, 2 2, D 4] f32", func(a *RoutedAttentionBackwardArgs) { a.KV = vk.Range{} }},
		{"valid has 32 bytes, want none", func(a *RoutedAttentionBackwardArgs) { a.Valid = a.Indices }},
		{"y is missing, want [Lists 2, Queries 3, H 2, D 4] f32", func(a *RoutedAttentionBackwardArgs) { a.Y = vk.Range{} }},
		{"dy has 24 bytes, want [Lists 2, Queries 3, H 2, D 4] f32", func(a *RoutedAttentionBackwardArgs) { a.DY = a.QueryScores }},
		{"dq is missing, want [Lists 2, Queries 3, H 2, D 4] f32", func(a *RoutedAttentionBackwardArgs) { a.DQ = vk.Range{} }},
		{"dkv has 192 bytes, want [Items 2, M 4, H 2, 2 2, D 4] f32", func(a *RoutedAttentionBackwardArgs) { a.DKV = a.DQ }},
		{"dnull has 192 bytes, want [Lists 2, 2 2, H 2, D 4] f32", func(a *RoutedAttentionBackwardArgs) { a.DNull = a.DQ }},
		{"dkey scores is missing, want [Lists 2, R 1, KeysPerList 4] f32", func(a *RoutedAttentionBackwardArgs) { a.DKeyScores = vk.Range{} }},
		{"dquery scores is missing, want [Lists 2, Queries 3] f32", func(a *RoutedAttentionBackwardArgs) { a.DQueryScores = vk.Range{} }},
		{"scratch has 32 bytes, want RoutedAttentionBackwardScratch", func(a *RoutedAttentionBackwardArgs) { a.Scratch = a.DKeyScores }},
	})
	require.NoError(t, r.Close())
	require.NoError(t, r.Close())
}
