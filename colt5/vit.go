package colt5

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"strconv"

	"github.com/colt5-vulkan/colt5/pipelines"
	"github.com/colt5-vulkan/colt5/vk"
)

// Size is a height and a width in pixels. In JSON it is one number for a square, or [height, width].
type Size struct{ Height, Width int }

// UnmarshalJSON reads a number or a list of two.
func (s *Size) UnmarshalJSON(data []byte) error {
	var n int
	if err := json.Unmarshal(data, &n); err == nil {
		*s = Size{n, n}
		return nil
	}
	var pair []int
	if err := json.Unmarshal(data, &pair); err != nil || len(pair) != 2 {
		return fmt.Errorf("the size is %s, want a number or [height, width]", text(data))
	}
	*s = Size{pair[0], pair[1]}
	return nil
}

// MarshalJSON writes one number for a square.
func (s Size) MarshalJSON() ([]byte, error) {
	if s.Height == s.Width {
		return []byte(strconv.Itoa(s.Height)), nil
	}
	return fmt.Appendf(nil, "[%d,%d]", s.Height, s.Width), nil
}

// ConditionalRoutedViTConfig configures a ConditionalRoutedViT. Start from Default[ConditionalRoutedViTConfig]:
// zero values are not the defaults.
type ConditionalRoutedViTConfig struct {
	ImageSize             Size           `json:"image_size"`               // a multiple of PatchSize
	PatchSize             Size           `json:"patch_size"`               // pixels of a token
	NumClasses            int            `json:"num_classes"`              // at least 1
	Dim                   int            `json:"dim"`                      // C, a multiple of 4, at least 8
	Depth                 int            `json:"depth"`                    // layers, at least 1
	Channels              int            `json:"channels"`                 // of the image
	AttnNumHeavyTokensQ   int            `json:"attn_num_heavy_tokens_q"`  // at least 1
	AttnNumHeavyTokensKV  int            `json:"attn_num_heavy_tokens_kv"` // at least 1
	AttnNumRoutedKV       int            `json:"attn_num_routed_kv"`       // a divisor of AttnHeavyHeads
	AttnHeavyDimHead      int            `json:"attn_heavy_dim_head"`      // 1 to 128
	AttnHeavyHeads        int            `json:"attn_heavy_heads"`         // at least 1
	AttnLightDimHead      int            `json:"attn_light_dim_head"`      // 1 to 128
	AttnLightHeads        int            `json:"attn_light_heads"`         // at least 1
	AttnLightWindowSize   int            `json:"attn_light_window_size"`   // tokens of a side of a window of the light branch
	FFNumHeavyTokens      int            `json:"ff_num_heavy_tokens"`      // at least 1
	FFHeavyMult           float64        `json:"ff_heavy_mult"`            // hidden size of the heavy feedforward is int(C * this)
	FFLightMult           float64        `json:"ff_light_mult"`            // hidden size of the light feedforward is int(C * this)
	RouterStraightThrough bool           `json:"router_straight_through"`  // a selected token scores 1, not its soft score
	RouteScope            RouteScope     `json:"route_scope"`              // of the attention
	Router                RouterSettings `json:"router_kwargs"`            // Eps is 1 by default
	Precision             DType          `json:"precision"`                // of the matrix products: F32 (the default), F16 or BF16
}

func (c *ConditionalRoutedViTConfig) setDefaults() {
	*c = ConditionalRoutedViTConfig{
		Channels: 3, AttnNumRoutedKV: 1, RouterStraightThrough: true, RouteScope: RouteScopeImage, Router: Default[RouterSettings](),
	}
	c.Router.Eps = 1
}

// UnmarshalJSON reads a configuration. Absent keys get their defaults; an unknown or repeated key is an error.
func (c *ConditionalRoutedViTConfig) UnmarshalJSON(data []byte) error {
	return decode(data, c)
}

// The names that a ViT's configuration has for fields of its parts.
var (
	vitAttentionNames = map[string]string{
		"NumHeavyTokensQ": "AttnNumHeavyTokensQ", "NumHeavyTokensKV": "AttnNumHeavyTokensKV", "NumRoutedKV": "AttnNumRoutedKV",
		"HeavyDimHead": "AttnHeavyDimHead", "HeavyHeads": "AttnHeavyHeads", "LightDimHead": "AttnLightDimHead",
		"LightHeads": "AttnLightHeads", "LightWindowSize": "AttnLightWindowSize",
	}
	vitFeedForwardNames = map[string]string{
		"NumHeavyTokens": "FFNumHeavyTokens", "HeavyFFMult": "FFHeavyMult", "LightFFMult": "FFLightMult",
	}
)

// attention and feedForward are the configurations of a layer's parts.
func (c ConditionalRoutedViTConfig) attention() ConditionalRoutedImageAttentionConfig {
	return ConditionalRoutedImageAttentionConfig{
		Dim: c.Dim, NumHeavyTokensQ: c.AttnNumHeavyTokensQ, NumHeavyTokensKV: c.AttnNumHeavyTokensKV, NumRoutedKV: c.AttnNumRoutedKV,
		LightDimHead: c.AttnLightDimHead, LightHeads: c.AttnLightHeads, LightWindowSize: c.AttnLightWindowSize,
		HeavyDimHead: c.AttnHeavyDimHead, HeavyHeads: c.AttnHeavyHeads, RouterStraightThrough: c.RouterStraightThrough, UseNullQTokens: true,
		RouteScope: c.RouteScope, Router: c.Router,
	}
}

func (c ConditionalRoutedViTConfig) feedForward() ConditionalRoutedFeedForwardConfig {
	return ConditionalRoutedFeedForwardConfig{
		Dim: c.Dim, NumHeavyTokens: c.FFNumHeavyTokens, LightFFMult: c.FFLightMult, HeavyFFMult: c.FFHeavyMult,
		RouterStraightThrough: c.RouterStraightThrough, Router: c.Router,
	}
}

func (c ConditionalRoutedViTConfig) check(k checker) error {
	if err := firstError(
		k.atLeast("ImageSize.Height", c.ImageSize.Height, 1), k.atLeast("ImageSize.Width", c.ImageSize.Width, 1),
		k.atLeast("PatchSize.Height", c.PatchSize.Height, 1), k.atLeast("PatchSize.Width", c.PatchSize.Width, 1),
		k.between("NumClasses", c.NumClasses, 1, maxRow), k.between("Dim", c.Dim, 8, maxRow), k.depth(c.Depth),
		k.atLeast("Channels", c.Channels, 1),
	); err != nil {
		return err
	}
	if c.ImageSize.Height%c.PatchSize.Height != 0 || c.ImageSize.Width%c.PatchSize.Width != 0 {
		return k.errorf("ImageSize", "is %v, want a multiple of PatchSize, %v", c.ImageSize, c.PatchSize)
	}
	if patch := float64(c.Channels) * float64(c.PatchSize.Height) * float64(c.PatchSize.Width); patch > maxRow {
		return k.errorf("PatchSize", "is %v, want at most %d numbers in a patch, with %d Channels", c.PatchSize, maxRow, c.Channels)
	}
	if g := c.grid(); g.Height*g.Width > maxPooled {
		return k.errorf("ImageSize", "is %v, want at most %d patches, the tokens", c.ImageSize, maxPooled)
	}
	if c.Dim%4 != 0 {
		return k.errorf("Dim", "is %d, want a multiple of 4", c.Dim)
	}
	if err := firstError(c.attention().check(k.renamed(vitAttentionNames)), c.feedForward().check(k.renamed(vitFeedForwardNames))); err != nil {
		return err
	}
	g := c.grid()
	if err := checkPatches(g.Height, g.Width, "tokens (ImageSize / PatchSize)", "AttnLightWindowSize", c.AttnLightWindowSize); err != nil {
		return fmt.Errorf("colt5: %s: %w", k.op, err)
	}
	return nil
}

func (c ConditionalRoutedViTConfig) precision() DType { return c.Precision }

func (c ConditionalRoutedViTConfig) build(w *weights) layer { return w.routedViT(c) }

// grid is the size of the image in patches; the configuration may be unchecked.
func (c ConditionalRoutedViTConfig) grid() Size {
	if c.PatchSize.Height < 1 || c.PatchSize.Width < 1 {
		return Size{}
	}
	return Size{c.ImageSize.Height / c.PatchSize.Height, c.ImageSize.Width / c.PatchSize.Width}
}

// tokens is the number of patches of an image.
func (c ConditionalRoutedViTConfig) tokens() int { return c.grid().Height * c.grid().Width }

// patch is the number of elements of a patch.
func (c ConditionalRoutedViTConfig) patch() int {
	return c.Channels * c.PatchSize.Height * c.PatchSize.Width
}

// ConditionalRoutedViT classifies images: a vision transformer with routed attention and feedforward.
//
//	x [B, Channels, H, W] F32    y [B, NumClasses] F32, logits
//	patches, LayerNorm, Linear, LayerNorm, sin/cos positions; Depth times attention and feedforward, each with a residual; mean,
//	LayerNorm, Linear
//
// Source: arXiv 2303.09752, 2010.11929; the positions are those of arXiv 2205.01580.
type ConditionalRoutedViT struct {
	module[ConditionalRoutedViTConfig]
}

// ViTOptions are the optional arguments of ConditionalRoutedViT.Forward.
type ViTOptions struct {
	NumHeavyTokensQ  int // of the attention; 0: the configuration's
	NumHeavyTokensKV int // 0: the configuration's

	Stats   *CallStats       // receives what the call cost; nil: not wanted
	Routing *[]RoutingRecord // receives what the routers selected; nil: not wanted
}

// NewConditionalRoutedViT makes the module on a device, with the initial values of seed 0.
func NewConditionalRoutedViT(ctx context.Context, dev *vk.Device, c ConditionalRoutedViTConfig) (*ConditionalRoutedViT, error) {
	m, err := newModule(ctx, "ConditionalRoutedViT", dev, c)
	if err != nil {
		return nil, err
	}
	return &ConditionalRoutedViT{m}, nil
}

// Forward computes the logits y [B, NumClasses] of images x [B, Channels, H, W]. The two share no memory.
func (v *ConditionalRoutedViT) Forward(ctx context.Context, y, x *Tensor, o ViTOptions) error {
	c := v.config.call(y, x, o)
	return v.run(ctx, &c)
}

// Prepare makes the plan of such a call in advance: see [Encoder.Prepare].
func (v *ConditionalRoutedViT) Prepare(ctx context.Context, y, x *Tensor, o ViTOptions) error {
	c := v.config.call(y, x, o)
	return v.prepare(ctx, &c)
}

// Close frees the module and its weights. It waits for a call under way. Closing again, or nil, does nothing.
func (v *ConditionalRoutedViT) Close() error { return closeModule(v) }

// Memory predicts what a call for b images needs on a device with these capabilities.
func (c ConditionalRoutedViTConfig) Memory(caps vk.Caps, b int) (Memory, error) {
	// Kernels number the tokens of a batch by an int32.
	if most := math.MaxInt32 / max(c.tokens(), 1); b > most {
		return Memory{}, fmt.Errorf("colt5: ConditionalRoutedViTConfig.Memory: B is %d, want 1 to %d", b, most)
	}
	return c.call(nil, nil, ViTOptions{}).measure("ConditionalRoutedViT", caps, c, dimSize{dimB, b})
}

func (c ConditionalRoutedViTConfig) call(y, x *Tensor, o ViTOptions) call {
	return call{
		args: args{
			{name: "x", tensor: x, shape: shape{dimB, c.Channels, c.ImageSize.Height, c.ImageSize.Width}},
			{name: "y", tensor: y, shape: shape{dimB, c.NumClasses}, kind: output},
		},
		counts: [maxCounts]tokenCount{
			{"NumHeavyTokensQ", o.NumHeavyTokensQ, c.AttnNumHeavyTokensQ}, {"NumHeavyTokensKV", o.NumHeavyTokensKV, c.AttnNumHeavyTokensKV},
		},
		stats: o.Stats, routing: o.Routing,
	}
}

// norm is the weights of a LayerNorm, linear those of a Linear layer with bias.
type norm struct{ weight, bias *Tensor }
type linear struct{ weight, bias *Tensor }

func (w *weights) norm(name string, c int) norm {
	return norm{w.add(name+".weight", ones, c), w.add(name+".bias", zeros, c)}
}

func (w *weights) linear(name string, in, out int) linear {
	return linear{w.matrix(name+".weight", out, in), w.add(name+".bias", uniform(in), out)}
}

// routedViT is the weights and the steps of a ConditionalRoutedViT.
type routedViT struct {
	config               ConditionalRoutedViTConfig
	patchNorm, embedNorm norm
	embed, head          linear
	headNorm             norm
	attention            []*imageAttention
	feedForward          []*routedFeedForward
}

func (w *weights) routedViT(c ConditionalRoutedViTConfig) *routedViT {
	const patches, head = "to_patch_embedding", "linear_head"
	v := &routedViT{
		config: c, patchNorm: w.norm(patches+".1", c.patch()), embed: w.linear(patches+".2", c.patch(), c.Dim), embedNorm: w.norm(patches+".3", c.Dim),
	}
	for i := range c.Depth {
		name := fmt.Sprintf("transformer.layers.%d.", i)
		v.attention = append(v.attention, w.imageAttention(name+"0.", c.attention()))
		f := w.routedFeedForward(name+"1.", c.feedForward())
		f.light.fixedRows, f.heavy.fixedRows = c.tokens(), min(c.FFNumHeavyTokens, c.tokens())
		v.feedForward = append(v.feedForward, f)
	}
	v.headNorm, v.head = w.norm(head+".1", c.Dim), w.linear(head+".2", c.Dim, c.NumClasses)
	return v
}

func (v *routedViT) record(b *builder) {
	if b.training() {
		v.recordTraining(b)
		return
	}
	n, c, tokens := b.dim(dimB), v.config, v.config.tokens()
	current, next := b.floats(n, tokens, c.Dim), b.floats(n, tokens, c.Dim)
	v.embedPatches(b, n, current, next, b.arg("x"))
	for i := range v.attention {
		attention, feedForward := v.attentionInput(b, i), v.feedForwardInput(b, i)
		attention.y, attention.x = next.Range, current.Range
		v.attention[i].forward(b, attention)
		current, next = next, current
		feedForward.y, feedForward.x = current.Range, current.Range
		v.feedForward[i].forward(b, feedForward)
	}
	v.recordHead(b, current.Range)
	b.release(current, next)
}

// attentionInput is the sizes of the attention of a layer.
func (v *routedViT) attentionInput(b *builder, i int) imageInput {
	g := v.config.grid()
	return imageInput{
		imageSizes: imageSizes{b.dim(dimB), g.Height, g.Width, b.tokenCount("NumHeavyTokensQ"), b.tokenCount("NumHeavyTokensKV")},
		name:       fmt.Sprintf("transformer.layers.%d.0.", i), residual: true,
	}
}

// feedForwardInput is the sizes of the feedforward of a layer.
func (v *routedViT) feedForwardInput(b *builder, i int) feedForwardInput {
	return feedForwardInput{
		b: b.dim(dimB), n: v.config.tokens(), tokens: v.config.FFNumHeavyTokens, name: fmt.Sprintf("transformer.layers.%d.1.", i), residual: true,
	}
}

// recordHead records the logits from the rows x of the last layer.
func (v *routedViT) recordHead(b *builder, x vk.Range) {
	n, c := b.dim(dimB), v.config
	mean, normed := b.floats(n, c.Dim), b.floats(n, c.Dim)
	v.recordPooled(b, x, mean.Range, normed.Range)
	b.linear(v.head.weight, 0, 0, pipelines.LinearConfig{Bias: true, Split: b.split(v.head.weight, 1)}, pipelines.LinearArgs{
		X: normed.Range, Bias: v.head.bias.memory, Y: b.arg("y"), Batch: 1, Rows: n,
	})
	b.release(mean, normed)
}

// recordPooled records the mean over the tokens, and its LayerNorm.
func (v *routedViT) recordPooled(b *builder, x, mean, normed vk.Range) {
	n, c := b.dim(dimB), v.config
	record(b, pipelines.NewMeanPool, pipelines.MeanPoolConfig{C: c.Dim}, pipelines.MeanPoolArgs{X: x, Y: mean, B: n, N: c.tokens()})
	record(b, pipelines.NewLayerNorm, pipelines.LayerNormConfig{C: c.Dim}, pipelines.LayerNormArgs{
		X: mean, Weight: v.headNorm.weight.memory, Bias: v.headNorm.bias.memory, Y: normed, Rows: n,
	})
}

// embedPatches records the embedding of n images x into dst [n, tokens, C]. scratch has the same size.
func (v *routedViT) embedPatches(b *builder, n int, dst, scratch allocation, x vk.Range) {
	c, g, tokens := v.config, v.config.grid(), v.config.tokens()
	patches := b.floats(n, tokens, c.patch())
	v.recordPatches(b, n, patches.Range, scratch.Range, x)
	b.release(patches)
	positions := b.table(tableKey{"positions", [3]int{g.Height, g.Width, c.Dim}}, tokens*c.Dim, func() []float32 {
		table, err := pipelines.PatchPositions(g.Height, g.Width, c.Dim)
		b.fail(err)
		return table
	})
	record(b, pipelines.NewLayerNorm, pipelines.LayerNormConfig{C: c.Dim, Add: true}, pipelines.LayerNormArgs{
		X: scratch.Range, Weight: v.embedNorm.weight.memory, Bias: v.embedNorm.bias.memory, Add: positions, Y: dst.Range, Rows: n * tokens, Period: tokens,
	})
}

// recordPatches records the normalised patches of n images x, and their projection embedded [n, tokens, C].
func (v *routedViT) recordPatches(b *builder, n int, patches, embedded, x vk.Range) {
	c, tokens := v.config, v.config.tokens()
	record(b, pipelines.NewPatchEmbed, pipelines.PatchEmbedConfig{
		Channels: c.Channels, Height: c.ImageSize.Height, Width: c.ImageSize.Width, PatchHeight: c.PatchSize.Height, PatchWidth: c.PatchSize.Width,
	}, pipelines.PatchEmbedArgs{X: x, Weight: v.patchNorm.weight.memory, Bias: v.patchNorm.bias.memory, Y: patches, B: n})
	b.linear(v.embed.weight, 0, 0, pipelines.LinearConfig{Bias: true, Split: b.split(v.embed.weight, tokens)}, pipelines.LinearArgs{
		X: patches, Bias: v.embed.bias.memory, Y: embedded, Batch: 1, Rows: n * tokens,
	})
}
