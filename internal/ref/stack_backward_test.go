package ref

import (
	"fmt"
	"testing"
)

func TestTransformerBackward(t *testing.T) {
	c, p := smallTransformer()
	c.Router, c.MultiplyKeysByScore, c.MultiplyQueriesByScore, c.NumHeavyTokensKV = softRouter, true, true, 4
	coarsen(p)
	ids := someIDs(2 * 18)
	checkModuleGradients(t, moduleCase{
		p:        p,
		forward:  func() []float64 { return AutoregressiveTransformer(ids, 2, 18, 2, c, p, "").Y },
		backward: func(dy []float32) Gradients { return AutoregressiveTransformerBackward(ids, dy, 2, 18, 2, c, p, "") },
		backward32: func(dy []float32) GradientsOf[float32] {
			return AutoregressiveTransformerBackward32(ids, dy, 2, 18, 2, c, p, "")
		},
	})
}

// smallBlock adds random weights of a transformer block to p under a prefix, and returns its config.
func smallBlock(p Params, prefix string) BlockConfig {
	c := BlockConfig{AttentionConfig: smallAttention(p, prefix+"conditional_attn."), NumHeavyFFTokens: 4}
	c.Router = softRouter
	smallFeedForward(p, prefix+"conditional_ff.light_ff.")
	smallFeedForward(p, prefix+"conditional_ff.heavy_ff.")
	p[prefix+"conditional_ff.router.routing_token"] = normal(uint64(len(p)), 6, 0.7)
	for _, router := range []string{"conditional_attn.q_router", "conditional_attn.kv_router", "conditional_ff.router"} {
		scaleBy(p[prefix+router+".routing_token"], 0.15) // large logits saturate the scores, whose gradient is then 0
	}
	return c
}

func TestEncoderBackward(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 1 s; TestTransformerBackward has the same layers")
	}
	const b, n = 2, 10
	mask := randomMask(3, b*n, 0.8)
	for _, ids := range [][]int32{nil, someIDs(b * n)} {
		t.Run(fmt.Sprintf("ids=%t", ids != nil), func(t *testing.T) {
			p := Params{"norm.gamma": normal(2, 6, 1)}
			var c BlockConfig
			for i := range 2 {
				c = smallBlock(p, fmt.Sprintf("layers.%d.", i))
			}
			var x []float32
			inputs := map[string][]float32{}
			if ids == nil {
				x = coarse(1, b*n*6, 1)
				inputs["x"] = x
			} else {
				p["embed.weight"] = normal(1, 11*6, 1)
			}
			coarsen(p)
			checkModuleGradients(t, moduleCase{
				p: p, inputs: inputs,
				forward:    func() []float64 { return Encoder(x, ids, mask, b, n, 2, c, p, "").Y },
				backward:   func(dy []float32) Gradients { return EncoderBackward(x, ids, mask, dy, b, n, 2, c, p, "") },
				backward32: func(dy []float32) GradientsOf[float32] { return EncoderBackward32(x, ids, mask, dy, b, n, 2, c, p, "") },
			})
		})
	}
}

func TestViTBackward(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 1 s")
	}
	p := Params{
		"to_patch_embedding.1.weight": normal(1, 12, 1), "to_patch_embedding.1.bias": normal(2, 12, 1),
		"to_patch_embedding.2.weight": normal(3, 8*12, 0.5),
		"to_patch_embedding.2.bias":   normal(4, 8, 1), "to_patch_embedding.3.weight": normal(5, 8, 1),
		"to_patch_embedding.3.bias": normal(6, 8, 1),
		"linear_head.1.weight":      normal(7, 8, 1), "linear_head.1.bias": normal(8, 8, 1),
		"linear_head.2.weight": normal(9, 5*8, 1), "linear_head.2.bias": normal(10, 5, 1),
	}
	for layer := range 2 {
		prefix, seed := layerPrefix(layer), uint64(100*(layer+1))
		for i, w := range []struct {
			name string
			size int
		}{
			{"0.q_router.routing_token", 8}, {"0.kv_router.routing_token", 8}, {"0.null_q_token", 8}, {"0.light_attn.norm.gamma", 8},
			{"0.light_attn.to_qkv.weight", 24 * 8}, {"0.light_attn.to_out.weight", 8 * 8}, {"0.heavy_attn.norm.gamma", 8},
			{"0.heavy_attn.null_kv", 16}, {"0.heavy_attn.to_q.weight", 8 * 8}, {"0.heavy_attn.to_kv.weight", 16 * 8},
			{"0.heavy_attn.to_out.weight", 8 * 8},
			{"1.router.routing_token", 8}, {"1.light_ff.0.gamma", 8}, {"1.light_ff.1.weight", 4 * 8}, {"1.light_ff.1.bias", 4},
			{"1.light_ff.3.weight", 8 * 4}, {"1.light_ff.3.bias", 8}, {"1.heavy_ff.0.gamma", 8}, {"1.heavy_ff.1.weight", 12 * 8},
			{"1.heavy_ff.1.bias", 12}, {"1.heavy_ff.3.weight", 8 * 12}, {"1.heavy_ff.3.bias", 8},
		} {
			p[prefix+w.name] = normal(seed+uint64(i), w.size, 0.5)
		}
	}
	coarsen(p)
	c := ViTConfig{
		ImageHeight: 8, ImageWidth: 8, PatchHeight: 2, PatchWidth: 2, Channels: 3, Depth: 2, NumClasses: 5,
		NumHeavyFFTokens: 5, Router: softRouter,
		Attention: ImageAttentionConfig{AttentionConfig: AttentionConfig{
			Dim: 8, NumHeavyTokensQ: 4, NumHeavyTokensKV: 6, LightDimHead: 4, LightHeads: 2, LightWindowSize: 2,
			HeavyDimHead: 4, HeavyHeads: 2,
			UseNullQTokens: true, Router: softRouter,
		}},
	}
	x := coarse(11, 2*3*8*8, 1)
	checkModuleGradients(t, moduleCase{
		p: p, inputs: map[string][]float32{"x": x},
		forward:    func() []float64 { return ConditionalRoutedViT(x, 2, c, p, "").Y },
		backward:   func(dy []float32) Gradients { return ConditionalRoutedViTBackward(x, dy, 2, c, p, "") },
		backward32: func(dy []float32) GradientsOf[float32] { return ConditionalRoutedViTBackward32(x, dy, 2, c, p, "") },
	})
}
