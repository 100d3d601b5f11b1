package colt5

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/colt5-vulkan/colt5/pipelines"
	"github.com/colt5-vulkan/colt5/vk"
)

// RouterConfig configures a CoordinateDescentRouter. Start from Default[RouterConfig]:
// zero values are not the defaults.
type RouterConfig struct {
	Dim                  int  `json:"dim"`                    // C, at least 1
	NumRoutingTokens     int  `json:"num_routing_tokens"`     // R, routes, at least 1
	LearnedRoutingTokens bool `json:"learned_routing_tokens"` // routing tokens are an argument of Forward (RouterOptions.RoutingTokens), not a weight of the module; the key is PyTorch's
	StraightThrough      bool `json:"straight_through"`       // a selected token scores 1, not its soft score
	RouterSettings
}

func (c *RouterConfig) setDefaults() {
	*c = RouterConfig{NumRoutingTokens: 1, StraightThrough: true, RouterSettings: Default[RouterSettings]()}
}

// UnmarshalJSON reads a configuration. Absent keys get their defaults; an unknown or repeated key is an error.
func (c *RouterConfig) UnmarshalJSON(data []byte) error {
	return decode(data, c)
}

func (c RouterConfig) check(k checker) error {
	return firstError(k.dim("Dim", c.Dim), k.atLeast("NumRoutingTokens", c.NumRoutingTokens, 1), c.RouterSettings.check(k))
}

// CoordinateDescentRouter selects the tokens of a heavy branch. Source: arXiv 2303.09752, section 3.
//
//	x [B, N, C] f32    mask [B, N] u8    routing tokens [R, C], or [B, R, C] with each call
//	logits [B, R, N]   indices, scores [B, R, K]   tokens [B, R, K, C]   soft scores [B, R, N]
//
// With N <= the number of tokens nothing is routed: K is N, every score is the token's mask, and there are no indices.
type CoordinateDescentRouter struct {
	module[RouterConfig]
}

// RouterOptions are the optional arguments of CoordinateDescentRouter.Forward.
type RouterOptions struct {
	Mask          *Tensor // [B, N] U8; nil: all tokens are real
	RoutingTokens *Tensor // [B, R, C] F32, with one route also [B, C]; with LearnedRoutingTokens

	// RandomSeed, if not 0, routes at random: logits from this seed instead of the dot product, and every selected
	// token scores 1. It is a control experiment; the logits are made on the host.
	RandomSeed uint64

	Stats   *CallStats       // receives what the call cost; nil: not wanted
	Routing *[]RoutingRecord // receives what the router selected; no record of random routing; nil: not wanted
}

// RouterResult has the tensors that receive a router's result. nil: not wanted. With one route, each may also be without
// the dimension R, which PyTorch leaves out unless keep_one_route_dim is set.
type RouterResult struct {
	Indices    *Tensor // [B, R, K] I32: tokens by falling logit, blocks in order; 0 in an empty slot. Nothing routed: must be nil
	Scores     *Tensor // [B, R, K] F32: 0 in an empty slot
	Tokens     *Tensor // [B, R, K, C] F32: x[index] * score. Nothing routed: must be nil, the tokens are x
	RoutedMask *Tensor // [B, R, K] U8: 1 in a slot with a token, 0 in an empty one. Nothing routed: the mask, [B, R, N]
	Logits     *Tensor // [B, R, N] F32
	SoftScores *Tensor // [B, R, N] F32: result of coordinate descent, 0 where masked. Not with random routing
}

// NewCoordinateDescentRouter makes a router on a device, with the initial values of seed 0.
func NewCoordinateDescentRouter(ctx context.Context, dev *vk.Device, c RouterConfig) (*CoordinateDescentRouter, error) {
	m, err := newModule(ctx, "CoordinateDescentRouter", dev, c)
	if err != nil {
		return nil, err
	}
	return &CoordinateDescentRouter{m}, nil
}

func (c RouterConfig) precision() DType { return F32 }

func (c RouterConfig) build(w *weights) layer {
	l := &router{config: c}
	if !c.LearnedRoutingTokens {
		l.tokens = w.routingToken("routing_token", c.NumRoutingTokens, c.Dim, c.RouterSettings)
	}
	return l
}

// Slots is the number of slots K of a route's list when a call with tokens heavy tokens selects from n: blocks times the
// slots of a block.
func (r *CoordinateDescentRouter) Slots(n, tokens int) int {
	return r.config.selectionShape(1, n, r.config.NumRoutingTokens, r.config.Dim, tokens).k
}

// Forward selects, for every route, as many of the N tokens of x [B, N, C] as the argument tokens says. It writes the
// results that out has tensors for.
func (r *CoordinateDescentRouter) Forward(ctx context.Context, out RouterResult, x *Tensor, tokens int, o RouterOptions) error {
	c, err := r.config.call(out, x, tokens, o)
	if err != nil {
		return r.fail("Forward", err)
	}
	return r.run(ctx, &c)
}

// Prepare makes the plan of such a call in advance: see [Encoder.Prepare].
func (r *CoordinateDescentRouter) Prepare(ctx context.Context, out RouterResult, x *Tensor, tokens int, o RouterOptions) error {
	c, err := r.config.call(out, x, tokens, o)
	if err != nil {
		return r.fail("Prepare", err)
	}
	return r.prepare(ctx, &c)
}

func (c *RouterConfig) call(out RouterResult, x *Tensor, tokens int, o RouterOptions) (call, error) {
	if err := c.checkOptions(out, tokens, o); err != nil {
		return call{}, err
	}
	return call{
		args: args{
			{name: "x", tensor: x, shape: shape{dimB, dimN, c.Dim}},
			{name: "Mask", tensor: o.Mask, dtype: U8, shape: shape{dimB, dimN}, kind: optionalInput},
			{name: "RoutingTokens", tensor: o.RoutingTokens, shape: c.perRoute(o.RoutingTokens, c.Dim, 0), kind: optionalInput},
			{name: "Indices", tensor: out.Indices, dtype: I32, shape: c.perRoute(out.Indices, dimK, 0), kind: optionalOutput},
			{name: "Scores", tensor: out.Scores, shape: c.perRoute(out.Scores, dimK, 0), kind: optionalOutput},
			{name: "Tokens", tensor: out.Tokens, shape: c.perRoute(out.Tokens, dimK, c.Dim), kind: optionalOutput},
			{name: "RoutedMask", tensor: out.RoutedMask, dtype: U8, shape: c.perRoute(out.RoutedMask, dimK, 0), kind: optionalOutput},
			{name: "Logits", tensor: out.Logits, shape: c.perRoute(out.Logits, dimN, 0), kind: optionalOutput},
			{name: "SoftScores", tensor: out.SoftScores, shape: c.perRoute(out.SoftScores, dimN, 0), kind: optionalOutput},
		},
		counts: [maxCounts]tokenCount{{"tokens", tokens, 0}},
		router: c, randomSeed: o.RandomSeed, stats: o.Stats, routing: o.Routing,
	}, nil
}

// perRoute is the shape of a tensor [B, R, n, m], m = 0: [B, R, n]. With one route it is without R if the tensor has as
// many dimensions.
func (c *RouterConfig) perRoute(t *Tensor, n, m int) shape {
	s := shape{dimB, c.NumRoutingTokens, n, m}
	if c.NumRoutingTokens == 1 && t != nil && len(t.shape) == s.rank()-1 {
		return shape{dimB, n, m}
	}
	return s
}

// checkOptions checks which tensors a call has.
func (c *RouterConfig) checkOptions(out RouterResult, tokens int, o RouterOptions) error {
	switch {
	case tokens < 1 || tokens > math.MaxInt32:
		return fmt.Errorf("tokens is %d, want 1 to %d", tokens, math.MaxInt32)
	case c.LearnedRoutingTokens == (o.RoutingTokens == nil):
		return fmt.Errorf("RoutingTokens is %v, want a tensor if, and only if, LearnedRoutingTokens is true (it is %v)", o.RoutingTokens, c.LearnedRoutingTokens)
	case o.RandomSeed != 0 && out.SoftScores != nil:
		return fmt.Errorf("SoftScores is %v, want nil with random routing", out.SoftScores)
	case out == (RouterResult{}):
		return errors.New("out has no tensors")
	}
	return nil
}

// bindSlots binds K, if the number of tokens is known.
func (c *RouterConfig) bindSlots(of *call) error {
	x, tokens := of.args[0].tensor, of.counts[0].given
	if x == nil || len(x.shape) != 3 || x.shape[1] == 0 {
		return nil
	}
	n := x.shape[1]
	if indices, selected := of.find("Indices").tensor, of.find("Tokens").tensor; n <= tokens && (indices != nil || selected != nil) {
		return fmt.Errorf("out.Indices is %v and out.Tokens %v, want nil: with %d tokens out of %d nothing is routed", indices, selected, tokens, n)
	}
	of.bind(dimK, c.selectionShape(1, n, c.NumRoutingTokens, c.Dim, tokens).k)
	return nil
}

// Close frees the router and its weights. It waits for a call under way. Closing again, or nil, does nothing.
func (r *CoordinateDescentRouter) Close() error { return closeModule(r) }

// router is the layer of a CoordinateDescentRouter.
type router struct {
	config RouterConfig
	tokens *Tensor // [R, C]; nil if they are an argument of the call
}

func (r *router) record(b *builder) {
	c := r.config
	s := c.selectionShape(b.dim(dimB), b.dim(dimN), c.NumRoutingTokens, c.Dim, b.tokenCount("tokens"))
	if s.routed && b.call.replay {
		b.fail(errReplayedRouter)
	}
	random := b.call.randomSeed != 0
	scoresAreOne := c.StraightThrough || random || !s.routed
	needScores, needMask := b.given("Scores") || b.given("Tokens"), b.given("RoutedMask")
	selects := s.routed && (b.given("Indices") || needScores || needMask)
	logits := r.recordLogits(b, s)
	mask := b.arg("Mask")

	outputOrWorkspace := func(name string, needed bool) vk.Range {
		if !needed && !b.given(name) {
			return vk.Range{}
		}
		return b.argOrWorkspace(name, s.b, s.r, s.k)
	}
	indices := outputOrWorkspace("Indices", selects)
	var valid, scores vk.Range
	if scoresAreOne { // the valid word of a slot is the bits of its score, 1.0 or 0
		scores = outputOrWorkspace("Scores", selects || needMask)
		valid = scores
	} else {
		valid, scores = b.floats(s.b, s.r, s.k).Range, outputOrWorkspace("Scores", needScores)
	}
	if selects {
		a := s.selectArgs(logits, mask)
		a.Indices, a.Valid = indices, valid
		if scoresAreOne {
			a.ValidWord = math.Float32bits(1)
		}
		b.recordSelect(pipelines.SelectConfig{Sorted: true}, a)
	}
	r.recordSoftScores(b, s, logits, pipelines.CoorDescentArgs{Mask: mask, Indices: indices, Valid: valid, SelectedScores: scores}, !scoresAreOne && needScores)
	if needMask {
		recordRoutedMask(b, valid, s.lists()*s.k, scoresAreOne)
	}
	if b.given("Tokens") {
		record(b, pipelines.NewGather, pipelines.GatherConfig{C: c.Dim}, pipelines.GatherArgs{
			X: b.arg("x"), Indices: indices, Score: scores, Valid: valid, Y: b.arg("Tokens"), B: s.b, N: s.n, K: s.r * s.k,
		})
	}
	if b.wantsRouting() && s.routed && !random {
		recorded := newRouterState("router", r.tokens, c.RouterSettings, c.StraightThrough, s, false)
		recorded.logits = b.floats(s.b, s.r, s.n)
		b.copy(recorded.logits.Range, logits)
		b.recordRouterTopK(mask, recorded)
		b.finishRouting(mask, recorded)
	}
}

// recordRoutedMask records the mask of the slots from their valid words, which are 1 or, if they are scores, the
// bits of 1.0. The words' bytes are transposed, so that the first bytes of all words become neighbours, then the
// second ones, and so on.
func recordRoutedMask(b *builder, valid vk.Range, slots int, areScores bool) {
	bytes, place := b.floats(slots), 0
	if areScores {
		place = 3 // 1.0 is 0x3f800000
	}
	record(b, pipelines.NewPermute, pipelines.PermuteConfig{Bytes: true, Truth: true}, pipelines.PermuteArgs{
		X: valid, Y: bytes.Range, Shape: []int{4, slots}, Strides: []int{1, 4},
	})
	b.copy(b.arg("RoutedMask"), rows(bytes.Range, place*slots, slots, 1))
	b.release(bytes)
}

// recordLogits records the logits. Those of random routing are uploaded to the workspace before each run.
func (r *router) recordLogits(b *builder, s selectionShape) vk.Range {
	c := r.config
	if b.call.randomSeed != 0 {
		logits := b.randomLogits("router", s.b, s.r, s.n)
		if b.given("Logits") {
			b.copy(b.arg("Logits"), logits)
		}
		return logits
	}
	logits := b.argOrWorkspace("Logits", s.b, s.r, s.n)
	record(b, pipelines.NewRouterLogits, c.logits(c.Dim, s.r, 0), r.logitsArgs(b, s, logits))
	return logits
}

func (r *router) logitsArgs(b *builder, s selectionShape, logits vk.Range) pipelines.RouterLogitsArgs {
	a := pipelines.RouterLogitsArgs{
		X: b.arg("x"), Tokens: b.arg("RoutingTokens"), Logits: logits, B: s.b, N: s.n, TokensPerItem: r.config.LearnedRoutingTokens,
	}
	if r.tokens != nil {
		a.Tokens = r.tokens.memory
	}
	return a
}

// recordSoftScores records coordinate descent: for all tokens if the caller wants them, and for the selected ones if
// soft scores are their scores. Where nothing is routed, the scores are the soft scores: the mask.
func (r *router) recordSoftScores(b *builder, s selectionShape, logits vk.Range, selected pipelines.CoorDescentArgs, softSelected bool) {
	a := s.descentArgs(logits, selected.Mask)
	unrouted := !s.routed && (b.given("Scores") || b.given("RoutedMask"))
	switch {
	case b.given("SoftScores"):
		a.Scores = b.arg("SoftScores")
	case unrouted:
		a.Scores = selected.SelectedScores
	}
	if softSelected {
		a.Indices, a.Valid, a.SelectedScores, a.Slots = selected.Indices, selected.Valid, selected.SelectedScores, s.perBlock
	}
	if b.given("SoftScores") || unrouted || softSelected {
		b.recordCoorDescent(r.config.descent(), a)
	}
	if unrouted && b.given("SoftScores") {
		b.copy(selected.SelectedScores, b.arg("SoftScores"))
	}
}
