package ref

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// smallAttention returns a small attention config and adds random weights for it to p under a prefix.
func smallAttention(p Params, prefix string) AttentionConfig {
	c := AttentionConfig{
		Dim: 6, NumHeavyTokensQ: 3, NumHeavyTokensKV: 7, NumRoutedKV: 2, LightDimHead: 4, LightHeads: 2, LightWindowSize: 8,
		HeavyDimHead: 4, HeavyHeads: 2, UseNullQTokens: true, HasLightAttn: true, Router: DefaultRouterConfig(1),
	}
	seed := uint64(len(p))
	for _, w := range []struct {
		name string
		size int
	}{
		{"q_router.routing_token", 6}, {"kv_router.routing_token", 12}, {"null_q_token", 6}, {"light_attn.norm.weight", 6}, {"light_attn.norm.bias", 6},
		{"light_attn.to_qkv.weight", 24 * 6}, {"light_attn.to_out.weight", 6 * 8}, {"heavy_attn.norm.gamma", 6}, {"heavy_attn.null_kv", 16},
		{"heavy_attn.to_q.weight", 8 * 6}, {"heavy_attn.to_kv.weight", 16 * 6}, {"heavy_attn.to_out.weight", 6 * 8},
	} {
		seed++
		p[prefix+w.name] = normal(seed, w.size, 0.7)
	}
	return c
}

// smallFeedForward adds random weights of a feedforward layer to p under a prefix.
func smallFeedForward(p Params, prefix string) {
	seed := uint64(1000 + len(p))
	for i, size := range []int{6, 10 * 6, 10, 6 * 10, 6} {
		p[prefix+[]string{"0.gamma", "1.weight", "1.bias", "3.weight", "3.bias"}[i]] = normal(seed+uint64(i), size, 0.5)
	}
}

// smallTransformer returns a language model with two layers and a vocabulary of 11.
func smallTransformer() (AutoregressiveConfig, Params) {
	p := Params{"embed.weight": normal(1, 11*6, 1), "norm.gamma": normal(2, 6, 1), "to_logits.weight": normal(3, 11*6, 1)}
	var c AutoregressiveConfig
	for i := range 2 {
		c.AttentionConfig = smallAttention(p, fmt.Sprintf("layers.%d.attn.", i))
		smallFeedForward(p, fmt.Sprintf("layers.%d.ff.", i))
	}
	return c, p
}

func someIDs(n int) []int32 {
	ids := make([]int32, n)
	for i := range ids {
		ids[i] = int32(i * i * 7 % 11)
	}
	return ids
}

// TestTransformerIsCausal checks that with causal query routing no output depends on later tokens, bit for bit. Without
// causal query routing some output must, which proves that the test can fail.
func TestTransformerIsCausal(t *testing.T) {
	c, p := smallTransformer()
	const n = 37
	for _, routing := range []bool{true, false} {
		c.CausalQueryRouting = routing
		ids := someIDs(n)
		before, violations := AutoregressiveTransformer(ids, 1, n, 2, c, p, ""), 0
		for at := range n {
			changed := slices.Clone(ids)
			changed[at] = (changed[at] + 5) % 11
			after := AutoregressiveTransformer(changed, 1, n, 2, c, p, "")
			if !slices.Equal(before.Y[:at*11], after.Y[:at*11]) {
				violations++
			}
			assert.NotEqual(t, before.Y[at*11:], after.Y[at*11:], "the token changes later outputs")
		}
		if routing {
			assert.Zero(t, violations)
		} else {
			assert.NotZero(t, violations)
		}
	}
}

// TestTransformerComposition compares the transformer with its layers, called one by one.
func TestTransformerComposition(t *testing.T) {
	c, p := smallTransformer()
	c.RotaryEmb = true
	const n = 20
	ids := append(someIDs(n), 3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3, 2, 3, 8, 4)
	var x []float32
	for _, id := range ids {
		x = append(x, p["embed.weight"][id*6:][:6]...)
	}
	for i := range 2 {
		prefix := fmt.Sprintf("layers.%d.", i)
		x = addTensors(x, ConditionalRoutedAutoregressiveAttention32(x, nil, 2, n, c, p, prefix+"attn.").Y)
		x = addTensors(x, FeedForward32(x, 2*n, FeedForwardParams{Gamma: p[prefix+"ff.0.gamma"], W1: p[prefix+"ff.1.weight"], B1: p[prefix+"ff.1.bias"],
			W2: p[prefix+"ff.3.weight"], B2: p[prefix+"ff.3.bias"], Dim: 6, Hidden: 10}))
	}
	want := Linear32(LinearArgs{X: x, W: p["to_logits.weight"], Gamma: p["norm.gamma"], Rows: 2 * n, In: 6, Out: 11})
	got := AutoregressiveTransformer32(ids, 2, n, 2, AutoregressiveConfig{AttentionConfig: c.AttentionConfig}, p, "")
	assert.Equal(t, want, got.Y)
	assert.Len(t, got.Routings, 4)
	assert.NoError(t, MaxErr(want, AutoregressiveTransformer(ids, 2, n, 2, c, p, "").Y).Within(1e-5))
}

// TestAutoregressiveMask checks that masked tokens at the end have the same effect as a shorter sequence with the same
// number of windows.
func TestAutoregressiveMask(t *testing.T) {
	p := Params{}
	c := AutoregressiveConfig{AttentionConfig: smallAttention(p, "")}
	for _, causal := range []bool{false, true} {
		c.CausalQueryRouting = causal
		const n, end = 31, 27
		x, mask := normal(5, n*6, 1), make([]uint8, n)
		for i := range end {
			mask[i] = 1
		}
		masked := ConditionalRoutedAutoregressiveAttention(x, mask, 1, n, c, p, "")
		short := ConditionalRoutedAutoregressiveAttention(x[:end*6], nil, 1, end, c, p, "")
		assert.Equal(t, short.Y, masked.Y[:end*6])
		for _, name := range []string{"q_router", "kv_router"} {
			assert.Equal(t, short.Routings[name].Indices, masked.Routings[name].Indices)
			assert.Equal(t, short.Routings[name].Valid, masked.Routings[name].Valid)
		}
	}
}

func TestCausalQueriesHandComputed(t *testing.T) {
	logits := []float64{
		9, 1, 5, 2, // the second largest is 5
		5, 4, 7, 8, // the first two of at least 5: 0 and 2
		8, 9, 3, 3, // of at least 7: 0 and 1
		1, 8, 2, 9, // of at least 8: 1 and 3
	}
	m := module[float64]{params: Params{"q_router.routing_token": {1}}}
	w := windowedSequence[float64]{size: 4, windows: 4, c: 1, b: 1, n: 16}
	w.pad(logits, nil)
	r := m.routeCausalQueries(w, RouterConfig{NumTokens: 2}, nil)
	assert.Equal(t, []int32{0, 2, 0, 1, 1, 3}, r.Indices)
	assert.Equal(t, []uint8{1, 1, 1, 1, 1, 1}, r.Valid)
	assert.Equal(t, logits[4:], r.Logits)

	// Masked tokens are never selected and do not influence the threshold. Window 0 has two valid tokens, so window 1
	// selects its first two; window 1 has 4, 7 and 8.
	w.pad(logits, []uint8{0, 1, 0, 1, 0, 1, 1, 1, 1, 0, 1, 1, 1, 1, 1, 1})
	r = m.routeCausalQueries(w, RouterConfig{NumTokens: 2}, nil)
	assert.Equal(t, []int32{1, 2, 0, 0, 1, 3}, r.Indices)
	assert.Equal(t, []uint8{1, 1, 1, 0, 1, 1}, r.Valid)

	// With ties, more tokens may reach the threshold than there are slots.
	w.pad(slices.Repeat([]float64{1}, 16), nil)
	r = m.routeCausalQueries(w, RouterConfig{NumTokens: 3}, nil)
	assert.Equal(t, []int32{0, 1, 2, 0, 1, 2, 0, 1, 2}, r.Indices)
}

func TestEncoderIDs(t *testing.T) {
	p := Params{"embed.weight": normal(1, 11*6, 1), "norm.gamma": normal(2, 6, 1)}
	var c BlockConfig
	for i := range 2 {
		prefix := fmt.Sprintf("layers.%d.", i)
		c = BlockConfig{AttentionConfig: smallAttention(p, prefix+"conditional_attn."), NumHeavyFFTokens: 4}
		smallFeedForward(p, prefix+"conditional_ff.light_ff.")
		smallFeedForward(p, prefix+"conditional_ff.heavy_ff.")
		p[prefix+"conditional_ff.router.routing_token"] = normal(uint64(50+i), 6, 1)
	}
	ids, mask := someIDs(2*13), randomMask(3, 2*13, 0.7)
	var x []float32
	for _, id := range ids {
		x = append(x, p["embed.weight"][id*6:][:6]...)
	}
	want := x
	for i := range 2 {
		want = ConditionalRoutedTransformerBlock32(want, mask, 2, 13, c, p, fmt.Sprintf("layers.%d.", i)).Y
	}
	want = RMSNorm32(want, p["norm.gamma"], 2*13, 6)
	assert.Equal(t, want, Encoder32(nil, ids, mask, 2, 13, 2, c, p, "").Y)
	got := Encoder(x, nil, mask, 2, 13, 2, c, p, "")
	require.NoError(t, MaxErr(want, got.Y).Within(1e-4))
	assert.Contains(t, got.Routings, "layers.1.conditional_attn.kv_router")
	assert.Len(t, got.Routings, 6)
	delete(p, "layers.1.conditional_attn.null_q_token")
	assertPanics(t, `ref: Encoder: weight "layers.1.conditional_attn.null_q_token" is missing`, func() { Encoder(x, nil, mask, 2, 13, 2, c, p, "") })
	assertPanics(t, "ref: Encoder: ids holds 11, want 0..10", func() { Encoder(nil, []int32{11}, nil, 1, 1, 2, c, p, "") })
}

// TestSoftmaxOver checks that equal logits give the mean of the values, that a much larger logit selects its value, and
// that without keys the output stays 0.
func TestSoftmaxOver(t *testing.T) {
	keys, values := [][]float64{{1, 0}, {1, 5}, {400, 0}}, [][]float64{{2}, {4}, {7}}
	for want, n := range map[float64]int{0: 0, 2: 1, 3: 2, 7: 3} {
		out := []float64{0}
		softmaxOver(out, []float64{3, 0}, keys[:n], values[:n])
		assert.InDelta(t, want, out[0], 1e-12)
	}
	out := []float64{0}
	softmaxOver(out, []float64{1, 0}, [][]float64{{math.Sqrt2 * math.Log(3), 0}, {0, 0}}, [][]float64{{1}, {0}})
	assert.InDelta(t, 0.75, out[0], 1e-12, "logits are scaled by 1 / sqrt(D)")
}

func TestWindowKeyRanges(t *testing.T) {
	for _, test := range []struct {
		keyRange func(int) (int, int)
		i        int
		lo, hi   int
	}{
		{bidirectionalWindow(20, 4), 0, 0, 5}, {bidirectionalWindow(20, 4), 3, 0, 8}, {bidirectionalWindow(20, 4), 4, 0, 9}, {bidirectionalWindow(20, 4), 9, 5, 14},
		{bidirectionalWindow(20, 4), 11, 7, 16}, {bidirectionalWindow(20, 4), 19, 15, 20}, {bidirectionalWindow(3, 4), 1, 0, 3},
		{causalWindow(4), 0, 0, 1}, {causalWindow(4), 3, 0, 4}, {causalWindow(4), 4, 0, 5}, {causalWindow(4), 7, 0, 8}, {causalWindow(4), 8, 4, 9}, {causalWindow(4), 11, 4, 12},
	} {
		lo, hi := test.keyRange(test.i)
		assert.Equal(t, [2]int{test.lo, test.hi}, [2]int{lo, hi}, "token %d", test.i)
	}
}

func TestImageRejectsUnevenSizes(t *testing.T) {
	p := Params{}
	c := ImageAttentionConfig{AttentionConfig: smallAttention(p, "")}
	assert.Panics(t, func() { ConditionalRoutedImageAttention(make([]float32, 12*8*6), nil, 1, 12, 8, c, p, "") })
}
