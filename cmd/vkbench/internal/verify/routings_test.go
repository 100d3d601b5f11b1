package verify

import (
	"slices"
	"strings"
	"testing"

	"github.com/colt5-vulkan/colt5/colt5"
	"github.com/colt5-vulkan/colt5/internal/golden"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// example is a routing record and a golden case with the same routing.
type example struct {
	c      *golden.Case
	record colt5.RoutingRecord
}

func newExample(module string, route golden.Routing, r colt5.RoutingRecord) example {
	c := &golden.Case{Module: module, Inputs: map[string]golden.Tensor{}, Routings: map[string]golden.Routing{r.Router: route}}
	return example{c, r}
}

func floatsOf(shape []int, data ...float32) golden.Tensor {
	return golden.Tensor{Shape: shape, F32: data}
}

// blockExample has one item with two routes and two blocks of three tokens, each selecting two. Token 1 is masked. The
// order of slots differs.
func blockExample() example {
	p := newExample("ConditionalRoutedCrossAttention", golden.Routing{
		Indices: golden.Tensor{Shape: []int{1, 2, 4}, I32: []int32{0, 2, 3, 4, 2, 0, 5, 4}},
		Scores:  floatsOf([]int{1, 2, 4}, 1, 1, 1, .5, 1, 1, 1, 1),
		Logits: floatsOf([]int{4, 3},
			3, 99, 2, // block 0, route 0
			1, 99, 4, // route 1
			8, 7, 6, // block 1
			5, 6, 7),
		ScoresAll: floatsOf([]int{4, 3}, 1, 0, 1, .2, 0, 1, 1, .5, .1, .1, .9, 1),
	}, colt5.RoutingRecord{
		Router: "kv_router", Lists: 2, K: 4, Routes: 2, Block: 3,
		Indices: []int32{2, 0, 3, 4, 0, 2, 4, 5}, Scores: []float32{1, 1, 1, .5, 1, 1, 1, 1},
		Logits:     []float32{3, -5, 2, 8, 7, 6, 1, -5, 4, 5, 6, 7},
		SoftScores: []float32{1, 0, 1, 1, .5, .1, .2, 0, 1, .1, .9, 1},
	})
	p.c.Inputs["context"] = golden.Tensor{}
	p.c.Inputs["context_mask"] = golden.Tensor{U8: []uint8{1, 0, 1, 1, 1, 1}}
	return p
}

const autoregressive = "ConditionalRoutedAutoregressiveAttention"

// windowExample has queries of five tokens in windows of two: three windows, the first without queries, the last
// padded.
func windowExample() example {
	return newExample(autoregressive, golden.Routing{
		Indices:   golden.Tensor{Shape: []int{2, 1}, I32: []int32{1, 0}},
		Scores:    floatsOf([]int{2, 1}, 1, 1),
		Logits:    floatsOf([]int{2, 2}, 3, 4, 5, 0),
		ScoresAll: floatsOf([]int{2, 2}, .5, 1, 1, 0),
	}, colt5.RoutingRecord{
		Router: "q_router", Lists: 1, K: 3, Routes: 1, Block: 2, Indices: []int32{0, 3, 4}, Scores: []float32{0, 1, 1},
		Logits: []float32{9, 9, 3, 4, 5}, SoftScores: []float32{.7, .7, .5, 1, 1},
	})
}

// prefixExample has the keys of the same tokens: in each of two routes every window selects two tokens before it.
func prefixExample() example {
	return newExample(autoregressive, golden.Routing{
		Indices: golden.Tensor{Shape: []int{2, 2, 2}, I32: []int32{1, 0, 0, 1, 3, 1, 0, 2}},
		Scores:  floatsOf([]int{2, 2, 2}, 1, 1, 1, 1, 1, 1, 1, 0),
		Logits: floatsOf([]int{4, 6},
			1, 2, 3, 4, 5, 0, // window 1, route 0
			6, 5, 4, 3, 2, 0,
			1, 2, 3, 4, 5, 0, // window 2
			6, 5, 4, 3, 2, 0),
		ScoresAll: floatsOf([]int{4, 6}, .5, 1, 0, 0, 0, 0, 1, .5, 0, 0, 0, 0, .1, .2, .3, 1, 0, 0, 1, .4, .3, .2, 0, 0),
	}, colt5.RoutingRecord{
		Router: "kv_router", Lists: 6, K: 2, Routes: 2, Windows: 3, Block: 6,
		Indices: []int32{0, 0, 0, 0, 0, 1, 0, 1, 1, 3, 0, 0}, Scores: []float32{0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 0},
		Logits: []float32{1, 2, 3, 4, -5, 6, 5, 4, 3, -5},
		SoftScores: []float32{
			0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
			.5, 1, 0, 0, 0, 1, .5, 0, 0, 0,
			.1, .2, .3, 1, 0, 1, .4, .3, .2, 0,
		},
	})
}

func TestRoutings(t *testing.T) {
	for name, newExample := range map[string]func() example{"blocks": blockExample, "windows": windowExample, "prefixes": prefixExample} {
		t.Run(name, func(t *testing.T) {
			p, found := newExample(), &comparison{}
			require.NoError(t, found.routings(p.c, []colt5.RoutingRecord{p.record}))
			assert.Empty(t, found.problems)
			assert.Zero(t, found.worst.err)
		})
	}
}

// TestRoutingsCanFail requires every kind of difference to be found.
func TestRoutingsCanFail(t *testing.T) {
	for _, test := range []struct {
		name    string
		example func() example
		change  func(r *colt5.RoutingRecord)
		want    string
	}{
		{"logit", blockExample, func(r *colt5.RoutingRecord) { r.Logits[11]++ }, "kv_router logits: error "},
		{"soft score", blockExample, func(r *colt5.RoutingRecord) { r.SoftScores[6] += .01 }, "kv_router scores_all: error "},
		{"soft score of a masked token", blockExample, func(r *colt5.RoutingRecord) { r.SoftScores[7] = .01 }, "kv_router scores_all: error "},
		{"score", blockExample, func(r *colt5.RoutingRecord) { r.Scores[3] = .6 }, "kv_router scores: error "},
		{"token", blockExample, func(r *colt5.RoutingRecord) { r.Indices[7] = 3 }, "kv_router indices of row 3: "},
		{"empty slot", blockExample, func(r *colt5.RoutingRecord) { r.Scores[0] = 0 }, "kv_router indices of row 0: "},
		{"routes", blockExample, func(r *colt5.RoutingRecord) { swap(r.Logits, 6) }, "kv_router logits: error "},
		{"name", blockExample, func(r *colt5.RoutingRecord) { r.Router = "q_router" }, "q_router: has a routing record, but"},
		{"logit", windowExample, func(r *colt5.RoutingRecord) { r.Logits[4]++ }, "q_router logits: error "},
		{"token", windowExample, func(r *colt5.RoutingRecord) { r.Indices[1] = 2 }, "q_router indices of row 0: "},
		{"first window", windowExample, func(r *colt5.RoutingRecord) { r.Scores[0] = 1 }, "q_router slot 0 is of the first window"},
		{"token", prefixExample, func(r *colt5.RoutingRecord) { r.Indices[10] = 1 }, "kv_router indices of row 3: "},
		{"slot", prefixExample, func(r *colt5.RoutingRecord) { r.Scores[11] = 1 }, "kv_router indices of row 3: "},
		{"soft score", prefixExample, func(r *colt5.RoutingRecord) { r.SoftScores[28] = 0 }, "kv_router scores_all: error "},
		{"padding", prefixExample, func(r *colt5.RoutingRecord) { r.SoftScores[24] = .1 }, "kv_router scores_all: error "},
		{"first window", prefixExample, func(r *colt5.RoutingRecord) { r.Scores[3] = 1 }, "kv_router slot 3 is of the first window"},
	} {
		t.Run(test.name, func(t *testing.T) {
			p, found := test.example(), &comparison{}
			test.change(&p.record)
			require.NoError(t, found.routings(p.c, []colt5.RoutingRecord{p.record}))
			assert.Contains(t, strings.Join(found.problems, "; "), test.want)
		})
	}
	found := &comparison{}
	require.NoError(t, found.routings(blockExample().c, nil))
	assert.Equal(t, []string{"kv_router: has no routing record, but the case has one"}, found.problems)
}

func swap(x []float32, half int) { copy(x, slices.Concat(x[half:], x[:half])) }

// TestRoutingsOfOtherShape requires errors where shapes of a case and a routing record do not match.
func TestRoutingsOfOtherShape(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(p *example)
		want   string
	}{
		{"rows", func(p *example) { p.record.Block = 6 }, "the golden routing record has 4 rows, want 2"},
		{"entries", func(p *example) { p.record.Block = 4 }, "the golden routing record has rows of 3 entries, want 4"},
		{"slots", func(p *example) {
			p.record.K, p.record.Indices, p.record.Scores = 2, make([]int32, 4), make([]float32, 4)
		}, "the golden routing record has 8 slots, want 4"},
		{"mask", func(p *example) { p.c.Inputs["context_mask"] = golden.Tensor{U8: []uint8{1}} }, "the mask has 1 tokens, want 6"},
	} {
		p := blockExample()
		test.change(&p)
		found := &comparison{}
		err := found.routings(p.c, []colt5.RoutingRecord{p.record})
		assert.ErrorContains(t, err, `router "kv_router": `, test.name)
		assert.ErrorContains(t, err, test.want, test.name)
	}
}

func TestMaskOf(t *testing.T) {
	c := &golden.Case{Inputs: map[string]golden.Tensor{"mask": {U8: []uint8{1}}, "context_mask": {U8: []uint8{0}}}}
	assert.Equal(t, []uint8{1}, maskOf(c, "kv_router"), "a mask of one sequence")
	c.Inputs["context"] = golden.Tensor{}
	assert.Equal(t, []uint8{0}, maskOf(c, "kv_router"))
	assert.Equal(t, []uint8{1}, maskOf(c, "q_router"))
	delete(c.Inputs, "context_mask")
	assert.Nil(t, maskOf(c, "kv_router"))
}
