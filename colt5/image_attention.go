package colt5

import (
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/colt5-vulkan/colt5/pipelines"
	"github.com/colt5-vulkan/colt5/vk"
)

// RouteScope is the set of pixels that a router of an image selects from.
type RouteScope string

// The scopes.
const (
	RouteScopeImage  RouteScope = "image"  // all pixels of the image
	RouteScopeWindow RouteScope = "window" // each patch separately, as the PyTorch package does
)

func (s RouteScope) check(k checker) error {
	if s != RouteScopeImage && s != RouteScopeWindow {
		return k.errorf("RouteScope", "is %q, want %q or %q", string(s), RouteScopeImage, RouteScopeWindow)
	}
	return nil
}

// ConditionalRoutedImageAttentionConfig configures a ConditionalRoutedImageAttention. Start from
// Default[ConditionalRoutedImageAttentionConfig]: zero values are not the defaults.
type ConditionalRoutedImageAttentionConfig struct {
	Dim                    int            `json:"dim"`                       // C, channels of a pixel, at least 1
	NumHeavyTokensQ        int            `json:"num_heavy_tokens_q"`        // queries of an image, or of a patch, at least 1; the default of a call
	NumHeavyTokensKV       int            `json:"num_heavy_tokens_kv"`       // keys and values of a route, at least 1; the default of a call
	NumRoutedKV            int            `json:"num_routed_kv"`             // R, routes of keys and values; a divisor of HeavyHeads
	LightDimHead           int            `json:"light_dim_head"`            // 1 to 128
	LightHeads             int            `json:"light_heads"`               // at least 1
	LightWindowSize        int            `json:"light_window_size"`         // side of a patch in pixels, 1 to 1024
	HeavyDimHead           int            `json:"heavy_dim_head"`            // 1 to 128
	HeavyHeads             int            `json:"heavy_heads"`               // at least 1
	RouterStraightThrough  bool           `json:"router_straight_through"`   // a selected pixel scores 1, not its soft score
	MultiplyKeysByScore    bool           `json:"multiply_keys_by_score"`    // heavy keys too, not only values
	MultiplyQueriesByScore bool           `json:"multiply_queries_by_score"` // heavy queries too, not only their outputs
	UseNullQTokens         bool           `json:"use_null_q_tokens"`         // tokens not selected as queries get a learned token; false: 0
	ChannelFirst           bool           `json:"channel_first"`             // x and y are [B, C, H, W]; else [B, H, W, C]
	RouteScope             RouteScope     `json:"route_scope"`               // RouteScopeImage or RouteScopeWindow
	Router                 RouterSettings `json:"router_kwargs"`
	Precision              DType          `json:"precision"` // of the matrix products: F32 (the default), F16 or BF16
}

func (c *ConditionalRoutedImageAttentionConfig) setDefaults() {
	*c = ConditionalRoutedImageAttentionConfig{
		NumRoutedKV: 1, LightDimHead: 64, LightHeads: 8, LightWindowSize: 128, HeavyDimHead: 64, HeavyHeads: 8,
		RouterStraightThrough: true, UseNullQTokens: true, RouteScope: RouteScopeImage, Router: Default[RouterSettings](),
	}
}

// UnmarshalJSON reads a configuration. Absent keys get their defaults; an unknown or repeated key is an error.
func (c *ConditionalRoutedImageAttentionConfig) UnmarshalJSON(data []byte) error {
	return decode(data, c)
}

func (c ConditionalRoutedImageAttentionConfig) check(k checker) error {
	return firstError(
		k.dim("Dim", c.Dim), k.atLeast("NumHeavyTokensQ", c.NumHeavyTokensQ, 1), k.atLeast("NumHeavyTokensKV", c.NumHeavyTokensKV, 1),
		k.heads("Light", c.LightHeads, c.LightDimHead), k.patch("LightWindowSize", c.LightWindowSize),
		k.heavy("Heavy", c.heavy(), "NumRoutedKV", c.NumRoutedKV), c.RouteScope.check(k), c.Router.check(k.in("Router.")),
	)
}

func (c ConditionalRoutedImageAttentionConfig) precision() DType { return c.Precision }

func (c ConditionalRoutedImageAttentionConfig) build(w *weights) layer {
	return w.imageAttention("", c)
}

func (c ConditionalRoutedImageAttentionConfig) heavy() heavyConfig {
	return heavyConfig{
		dim: c.Dim, dimHead: c.HeavyDimHead, heads: c.HeavyHeads, multiplyKeys: c.MultiplyKeysByScore, multiplyQueries: c.MultiplyQueriesByScore,
	}
}

// shape is the shape of x and y.
func (c ConditionalRoutedImageAttentionConfig) shape() shape {
	if c.ChannelFirst {
		return shape{dimB, c.Dim, dimH, dimW}
	}
	return shape{dimB, dimH, dimW, c.Dim}
}

// ConditionalRoutedImageAttention lets every pixel attend to its patch (light branch). The pixels that one router
// selects also attend to the pixels that another router selects from the whole image, or from the patch (heavy branch;
// see RouteScope).
//
//	x, y [B, H, W, C] F32, or [B, C, H, W] with ChannelFirst; H and W multiples of LightWindowSize    mask [B, H, W] u8
//	y = light_attn(x) + scatter(heavy_attn(pixels of q_router, pixels of kv_router) * score)
//
// A pixel that is not selected as a query gets the null query token instead of a heavy output. Masked pixels are never
// selected, neither as queries nor as keys. The light branch does not regard the mask.
type ConditionalRoutedImageAttention struct {
	module[ConditionalRoutedImageAttentionConfig]
}

// ImageOptions are the optional arguments of ConditionalRoutedImageAttention.Forward.
type ImageOptions struct {
	Mask             *Tensor // [B, H, W] u8, also with ChannelFirst: 1 for a real pixel; nil: all pixels are real
	NumHeavyTokensQ  int     // 0: the configuration's
	NumHeavyTokensKV int     // 0: the configuration's

	Stats   *CallStats       // receives what the call cost; nil: not wanted
	Routing *[]RoutingRecord // receives what the routers selected; nil: not wanted
}

// NewConditionalRoutedImageAttention makes the module on a device, with the initial values of seed 0.
func NewConditionalRoutedImageAttention(ctx context.Context, dev *vk.Device, c ConditionalRoutedImageAttentionConfig) (*ConditionalRoutedImageAttention, error) {
	m, err := newModule(ctx, "ConditionalRoutedImageAttention", dev, c)
	if err != nil {
		return nil, err
	}
	return &ConditionalRoutedImageAttention{m}, nil
}

// Forward computes y from x. The two have the same shape and share no memory.
func (a *ConditionalRoutedImageAttention) Forward(ctx context.Context, y, x *Tensor, o ImageOptions) error {
	c := a.config.call(y, x, o)
	return a.run(ctx, &c)
}

// Prepare makes the plan of such a call in advance: see [Encoder.Prepare].
func (a *ConditionalRoutedImageAttention) Prepare(ctx context.Context, y, x *Tensor, o ImageOptions) error {
	c := a.config.call(y, x, o)
	return a.prepare(ctx, &c)
}

// Close frees the module and its weights. It waits for a call under way. Closing again, or nil, does nothing.
func (a *ConditionalRoutedImageAttention) Close() error { return closeModule(a) }

// Memory predicts what a call for b images of height by width pixels and no mask needs on a device with these capabilities.
func (c ConditionalRoutedImageAttentionConfig) Memory(caps vk.Caps, b, height, width int) (Memory, error) {
	return c.call(nil, nil, ImageOptions{}).measure(
		"ConditionalRoutedImageAttention", caps, c, dimSize{dimB, b}, dimSize{dimH, height}, dimSize{dimW, width})
}

func (c ConditionalRoutedImageAttentionConfig) call(y, x *Tensor, o ImageOptions) call {
	return call{
		args: args{
			{name: "x", tensor: x, shape: c.shape()},
			{name: "y", tensor: y, shape: c.shape(), kind: output},
			{name: "Mask", tensor: o.Mask, dtype: U8, shape: shape{dimB, dimH, dimW}, kind: optionalInput},
		},
		counts: [maxCounts]tokenCount{{"NumHeavyTokensQ", o.NumHeavyTokensQ, c.NumHeavyTokensQ}, {"NumHeavyTokensKV", o.NumHeavyTokensKV, c.NumHeavyTokensKV}},
		stats:  o.Stats, routing: o.Routing,
		patch: c.LightWindowSize,
	}
}

// imageAttention is the weights and the steps of a ConditionalRoutedImageAttention.
type imageAttention struct {
	config                         ConditionalRoutedImageAttentionConfig
	qRoutingToken, kvRoutingTokens *Tensor
	null                           *Tensor // [C]; nil: none
	light                          patchAttention
	heavy                          heavyAttention
	budget                         int // bytes of workspace of the light branch; lightBytes except in tests
}

func (w *weights) imageAttention(prefix string, c ConditionalRoutedImageAttentionConfig) *imageAttention {
	a := &imageAttention{config: c, budget: lightBytes}
	a.qRoutingToken = w.routingToken(prefix+"q_router.routing_token", 1, c.Dim, c.Router)
	a.kvRoutingTokens = w.routingToken(prefix+"kv_router.routing_token", c.NumRoutedKV, c.Dim, c.Router)
	a.light = w.patchAttention(prefix+"light_attn.", lightConfig{dim: c.Dim, dimHead: c.LightDimHead, heads: c.LightHeads, window: c.LightWindowSize})
	a.heavy = w.heavyAttention(prefix+"heavy_attn", c.heavy())
	if c.UseNullQTokens {
		a.null = w.add(prefix+"null_q_token", gaussian(1), c.Dim)
	}
	return a
}

// imageSizes are the sizes of a call.
type imageSizes struct {
	b, height, width  int
	tokensQ, tokensKV int
}

// imageInput is the input of an image attention.
type imageInput struct {
	imageSizes
	name     string   // prefix of its routers' names
	y, x     vk.Range // share no memory
	mask     vk.Range
	masked   bool
	residual bool // add x
}

// record records the layer as a module of its own.
func (l *imageAttention) record(b *builder) {
	b.nextLayer()
	sizes := imageSizes{b.dim(dimB), b.dim(dimH), b.dim(dimW), b.tokenCount("NumHeavyTokensQ"), b.tokenCount("NumHeavyTokensKV")}
	l.forward(b, imageInput{imageSizes: sizes, y: b.arg("y"), x: b.arg("x"), mask: b.arg("Mask"), masked: b.given("Mask")})
}

// forward records the layer for rows of pixels in image order, or, where each patch routes separately, in patch order
// with every patch as an item. Inputs in another order are permuted first, and the result is permuted back.
func (l *imageAttention) forward(b *builder, a imageInput) {
	c := l.config
	y, x := a.y, a.x
	reordered := c.ChannelFirst || c.RouteScope == RouteScopeWindow
	var ym, xm allocation
	if reordered {
		if elements := float64(a.b) * float64(a.height) * float64(a.width) * float64(c.Dim); elements > math.MaxInt32 {
			b.fail(fmt.Errorf("x has %.0f elements, want %d at most where pixels are brought into another order", elements, math.MaxInt32))
		}
		ym, xm = b.floats(a.b, a.height, a.width, c.Dim), b.floats(a.b, a.height, a.width, c.Dim)
		y, x = ym.Range, xm.Range
		record(b, pipelines.NewPermute, pipelines.PermuteConfig{}, l.order(a.imageSizes, c.Dim, c.ChannelFirst).toInner(x, a.x))
	}
	mask, maskm := l.innerMask(b, a)
	items, n, height, width := l.innerSizes(a.imageSizes)
	q := newRouterState(a.name+"q_router", l.qRoutingToken, c.Router, c.RouterStraightThrough, c.Router.selectionShape(items, n, 1, c.Dim, a.tokensQ), a.masked)
	kv := newRouterState(a.name+"kv_router", l.kvRoutingTokens, c.Router, c.RouterStraightThrough, c.Router.selectionShape(items, n, c.NumRoutedKV, c.Dim, a.tokensKV), a.masked)
	h := &heavyForward{heavyAttention: &l.heavy, b: b, x: x, context: x, q: q, kv: kv}
	out := unselectedRows{b: b, q: q, y: y, x: x, null: l.null, dim: c.Dim, residual: a.residual}
	recordInterleaved(h.phases(mask, mask, out.recordMembershipMask), l.light.phases(out.lightOutput(), height, width, l.budget))
	out.release()
	b.release(maskm)
	h.project(y, y, true)
	if reordered {
		record(b, pipelines.NewPermute, pipelines.PermuteConfig{}, l.order(a.imageSizes, c.Dim, c.ChannelFirst).toOuter(a.y, y))
		b.release(ym, xm)
	}
}

// innerMask is the mask in the order of forward, and the workspace that it needs.
func (l *imageAttention) innerMask(b *builder, a imageInput) (vk.Range, allocation) {
	if !a.masked || l.config.RouteScope != RouteScopeWindow {
		return a.mask, allocation{}
	}
	pixels := a.b * a.height * a.width
	m := b.floats((pixels + 3) / 4)
	record(b, pipelines.NewPermute, pipelines.PermuteConfig{Bytes: true}, l.order(a.imageSizes, 1, false).toInner(m.Range, a.mask))
	return rows(m.Range, 0, pixels, 1), m
}

// innerSizes are the items that route separately, their pixels, and the size of the images below one another.
func (l *imageAttention) innerSizes(s imageSizes) (items, n, height, width int) {
	items, n, height, width = s.b, s.height*s.width, s.b*s.height, s.width
	if side := l.config.LightWindowSize; l.config.RouteScope == RouteScopeWindow {
		items, n = s.b*n/(side*side), side*side
		height, width = items*side, side // patches one below the other
	}
	return items, n, height, width
}

// axis is an axis of the pixels: its size, and its strides in the caller's order (outside) and in the order of forward
// (inside).
type axis struct{ size, outside, inside int }

type axes []axis

// order lists the axes of images, or with one channel of their masks: item, patch row, row in the patch, patch column,
// column in the patch, channel.
func (l *imageAttention) order(s imageSizes, channels int, channelFirst bool) axes {
	side := l.config.LightWindowSize
	pixel, row, item, channel := channels, channels*s.width, channels*s.width*s.height, 1
	list := axes{
		{s.b, item, item}, {s.height / side, side * row, side * row}, {side, row, row}, {s.width / side, side * pixel, side * pixel}, {side, pixel, pixel},
		{channels, channel, channel},
	}
	if l.config.RouteScope == RouteScopeWindow {
		patch := side * side * channels
		list[1].inside, list[2].inside, list[3].inside, list[4].inside = s.width/side*patch, side*channels, patch, channels
	}
	if channelFirst {
		list[1].outside, list[2].outside, list[3].outside, list[4].outside, list[5].outside = side*s.width, s.width, side, 1, s.height*s.width
	}
	return list
}

// toInner permutes from the caller's order to that of forward, toOuter the other way.
func (l axes) toInner(to, from vk.Range) pipelines.PermuteArgs {
	return permutation(to, from, l, func(a axis) (int, int) { return a.inside, a.outside })
}

func (l axes) toOuter(to, from vk.Range) pipelines.PermuteArgs {
	return permutation(to, from, l, func(a axis) (int, int) { return a.outside, a.inside })
}

// permutation lists the axes by decreasing stride of the target. Axes that are contiguous in both orders are merged.
func permutation(to, from vk.Range, l axes, strides func(axis) (to, from int)) pipelines.PermuteArgs {
	l = slices.Clone(l)
	slices.SortStableFunc(l, func(a, b axis) int {
		x, _ := strides(a)
		y, _ := strides(b)
		return y - x
	})
	p := pipelines.PermuteArgs{X: from, Y: to}
	for i, a := range l {
		t, f := strides(a)
		if i > 0 {
			before, last := l[i-1], len(p.Shape)-1
			if tb, fb := strides(before); tb == t*a.size && fb == f*a.size {
				p.Shape[last], p.Strides[last] = p.Shape[last]*a.size, f
				continue
			}
		}
		p.Shape, p.Strides = append(p.Shape, a.size), append(p.Strides, f)
	}
	return p
}
