package colt5

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/colt5-vulkan/colt5/pipelines"
	"github.com/colt5-vulkan/colt5/vk"
)

// RouterConfig configures a CoordinateDescentRouter. Start from DefaultRouterConfig, zero values are not the defaults.
type RouterConfig struct {
	Dim                  int  `json:"dim"`                    // C, at least 1
	NumRoutingTokens     int  `json:"num_routing_tokens"`     // R, routes, at least 1
	LearnedRoutingTokens bool `json:"learned_routing_tokens"` // the routing tokens come with each call
	StraightThrough      bool `json:"straight_through"`       // a chosen token scores 1, not its soft score
	RouterOptions
}

// DefaultRouterConfig returns the reference's defaults; Dim is left to the caller.
func DefaultRouterConfig() RouterConfig {
	return RouterConfig{NumRoutingTokens: 1, StraightThrough: true, RouterOptions: DefaultRouterOptions()}
}

// UnmarshalJSON reads a config; what it leaves out has its default, an unknown key is an error.
func (c *RouterConfig) UnmarshalJSON(data []byte) error {
	type plain RouterConfig
	*c = DefaultRouterConfig()
	return decode("RouterConfig", data, (*plain)(c))
}

func (c RouterConfig) check(op string) error {
	return firstError(atLeast(op, "Dim", c.Dim, 1), atLeast(op, "NumRoutingTokens", c.NumRoutingTokens, 1), c.RouterOptions.check(op))
}

// CoordinateDescentRouter chooses the tokens that go to the heavy branch: spec "Router", arXiv 2303.09752 section 3.
//
//	x [B, N, C] F32    mask [B, N] U8    routing tokens [R, C], or [B, R, C] with each call
//	logits [B, R, N]   indices, scores [B, R, K]   tokens [B, R, K, C]   soft scores [B, R, N]
//
// With N <= the number of tokens nothing is routed: K is N, every score is the token's mask, and there are no indices.
type CoordinateDescentRouter struct {
	module
	config RouterConfig
	tokens *Tensor // [R, C]; nil if they come with the call
}

// RoutingOptions are the optional arguments of a routing.
type RoutingOptions struct {
	Mask          *Tensor // [B, N] U8; nil: all tokens are real
	RoutingTokens *Tensor // [B, R, C] F32, with LearnedRoutingTokens

	// RandomSeed, if not 0, routes at random: logits from this seed instead of the dot product, and every chosen token scores 1. It is
	// a control experiment; the logits are made on the host.
	RandomSeed uint64
}

// Routing receives what a router decided. Tensors that are nil are not wanted.
type Routing struct {
	Indices    *Tensor // [B, R, K] I32: tokens by falling logit, blocks in order; 0 in an empty slot. Nothing routed: must be nil
	Scores     *Tensor // [B, R, K] F32: 0 in an empty slot
	Tokens     *Tensor // [B, R, K, C] F32: x[index] * score. Nothing routed: must be nil, the tokens are x
	Logits     *Tensor // [B, R, N] F32
	SoftScores *Tensor // [B, R, N] F32: result of coordinate descent, 0 where masked. Not with random routing
}

// NewCoordinateDescentRouter makes a router on a device, with initial values of seed 0.
func NewCoordinateDescentRouter(dev *vk.Device, c RouterConfig) (*CoordinateDescentRouter, error) {
	r := &CoordinateDescentRouter{config: c}
	err := r.start("CoordinateDescentRouter", dev, F32, c.check, func(w *weights) {
		if !c.LearnedRoutingTokens {
			r.tokens = w.routingToken("routing_token", c.NumRoutingTokens, c.Dim, c.RouterOptions)
		}
	})
	if err != nil {
		return nil, err
	}
	return r, nil
}

// Config is what the router was made with.
func (r *CoordinateDescentRouter) Config() RouterConfig { return r.config }

// Slots is the number of tokens K that a route gets out of n when a call asks for tokens: blocks times the tokens of a block.
func (r *CoordinateDescentRouter) Slots(n, tokens int) int {
	return r.config.routing(1, n, r.config.NumRoutingTokens, r.config.Dim, tokens).k
}

// Forward routes x [B, N, C], choosing tokens of them a route, and writes what out asks for.
func (r *CoordinateDescentRouter) Forward(out Routing, x *Tensor, tokens int, o RoutingOptions) error {
	const op = "CoordinateDescentRouter.Forward"
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return errClosed(op)
	}
	s, err := r.checkCall(op, out, x, tokens, o)
	if err != nil {
		return err
	}
	tensors := [...]*Tensor{routerX: x, routerMask: o.Mask, routerTokens: o.RoutingTokens, routerIndices: out.Indices, routerScores: out.Scores,
		routerGathered: out.Tokens, routerLogits: out.Logits, routerSoft: out.SoftScores}
	key := planKey{sizes: [6]int{s.b, s.n, tokens, given(tensors[:])}, given: [2]bool{o.RandomSeed != 0}}
	p := r.find(&key)
	if p == nil {
		if p, err = r.plan(op, key, s, tensors[:]); err != nil {
			return err
		}
	}
	if o.RandomSeed != 0 {
		if err := p.random(s, o.RandomSeed); err != nil {
			return fmt.Errorf("colt5: %s: %w", op, err)
		}
	}
	return r.run(op, p, tensors[:])
}

// given has a bit for every tensor that is there.
func given(tensors []*Tensor) int {
	bits := 0
	for i, t := range tensors {
		if t != nil {
			bits |= 1 << i
		}
	}
	return bits
}

// The tensors of a call, in the order of the plan's slots.
const (
	routerX = iota
	routerMask
	routerTokens
	routerIndices
	routerScores
	routerGathered
	routerLogits
	routerSoft
)

func (r *CoordinateDescentRouter) checkCall(op string, out Routing, x *Tensor, tokens int, o RoutingOptions) (routing, error) {
	c := r.config
	if err := firstError(x.want(op, "x", r.dev, F32, -1, -1, c.Dim), atLeast(op, "tokens", tokens, 1)); err != nil {
		return routing{}, err
	}
	s := c.routing(x.shape[0], x.shape[1], c.NumRoutingTokens, c.Dim, tokens)
	if c.LearnedRoutingTokens == (o.RoutingTokens == nil) {
		return s, fmt.Errorf("colt5: %s: RoutingTokens is %v, want them exactly if LearnedRoutingTokens (%v)", op, o.RoutingTokens, c.LearnedRoutingTokens)
	}
	if !s.routed && (out.Indices != nil || out.Tokens != nil) {
		return s, fmt.Errorf("colt5: %s: Indices is %v and Tokens %v, want nil: with %d tokens out of %d nothing is routed", op, out.Indices, out.Tokens, tokens, s.n)
	}
	if o.RandomSeed != 0 && out.SoftScores != nil {
		return s, fmt.Errorf("colt5: %s: SoftScores is %v, want nil with random routing", op, out.SoftScores)
	}
	if out == (Routing{}) {
		return s, fmt.Errorf("colt5: %s: out asks for nothing", op)
	}
	return s, firstError(
		o.Mask.optional(op, "Mask", r.dev, U8, s.b, s.n),
		o.RoutingTokens.optional(op, "RoutingTokens", r.dev, F32, s.b, s.r, s.c),
		out.Indices.optional(op, "Indices", r.dev, I32, s.b, s.r, s.k),
		out.Scores.optional(op, "Scores", r.dev, F32, s.b, s.r, s.k),
		out.Tokens.optional(op, "Tokens", r.dev, F32, s.b, s.r, s.k, s.c),
		out.Logits.optional(op, "Logits", r.dev, F32, s.b, s.r, s.n),
		out.SoftScores.optional(op, "SoftScores", r.dev, F32, s.b, s.r, s.n),
	)
}

func (r *CoordinateDescentRouter) plan(op string, key planKey, s routing, tensors []*Tensor) (*plan, error) {
	names := []string{"x", "Mask", "RoutingTokens", "Indices", "Scores", "Tokens", "Logits", "SoftScores"}
	has := key.sizes[3]
	return r.prepare(op, key, tensors, names, func(b *builder) {
		w := routerCall{b: b, router: r, routing: s, has: has, random: key.given[0]}
		w.wire()
	})
}

// routerCall is a router's plan.
type routerCall struct {
	b      *builder
	router *CoordinateDescentRouter
	routing
	has    int // bits of the tensors that are there
	random bool
}

func (r routerCall) wants(tensor int) bool { return r.has>>tensor&1 != 0 }

// place is where a result goes: to the caller's tensor, or, if it is needed all the same, between the steps.
func (r routerCall) place(tensor int, needed bool, counts ...int) vk.Range {
	if r.wants(tensor) {
		return r.b.slot(tensor)
	}
	if !needed {
		return vk.Range{}
	}
	return r.b.floats(counts...).Range
}

func (r routerCall) wire() {
	b, c := r.b, r.router.config
	hard := c.StraightThrough || r.random || !r.routed
	needScores := r.wants(routerScores) || r.wants(routerGathered)
	chooses := r.routed && (r.wants(routerIndices) || needScores)
	x, mask := b.slot(routerX), b.slot(routerMask)
	logits := r.wireLogits(x)

	// The mark of a filled slot is its score, where that is 1.
	indices := r.place(routerIndices, chooses, r.items(), r.r, r.k)
	var filled, scores vk.Range
	if hard {
		filled = r.place(routerScores, chooses, r.items(), r.r, r.k)
		scores = filled
	} else {
		filled, scores = b.floats(r.items(), r.r, r.k).Range, r.place(routerScores, needScores, r.items(), r.r, r.k)
	}
	if chooses {
		a := r.selection(logits, mask)
		a.Indices, a.Valid = indices, filled
		if hard {
			a.ValidWord = math.Float32bits(1)
		}
		b.recordSelect(pipelines.SelectConfig{Sorted: true}, a)
	}
	r.wireSoft(logits, mask, indices, filled, scores, hard || !needScores)
	if r.wants(routerGathered) {
		record(b, pipelines.NewGather, pipelines.GatherConfig{C: c.Dim}, pipelines.GatherArgs{
			X: x, Indices: indices, Score: scores, Valid: filled, Y: b.slot(routerGathered), B: r.items(), N: r.n, K: r.r * r.k,
		})
	}
	if b.inspect && r.routed && !r.random {
		seen := newRouterState("router", r.router.tokens, c.RouterOptions, c.StraightThrough, r.routing, false)
		seen.logits = b.floats(r.items(), r.r, r.n)
		b.copy(seen.logits.Range, logits)
		b.recordTopK(mask, seen)
		b.finishRouting(mask, seen)
	}
}

// items is B.
func (r routerCall) items() int { return r.routing.b }

// wireLogits computes the logits; random ones come from the host, to the workspace.
func (r routerCall) wireLogits(x vk.Range) vk.Range {
	b, c := r.b, r.router.config
	if r.random {
		logits := b.floats(r.items(), r.r, r.n).Range
		if b.list != nil {
			b.plan.logits = logits
		}
		if r.wants(routerLogits) {
			b.copy(b.slot(routerLogits), logits)
		}
		return logits
	}
	logits := r.place(routerLogits, true, r.items(), r.r, r.n)
	a := pipelines.RouterLogitsArgs{X: x, Tokens: b.slot(routerTokens), Logits: logits, B: r.items(), N: r.n, TokensPerItem: c.LearnedRoutingTokens}
	if !c.LearnedRoutingTokens {
		a.Tokens = r.router.tokens.memory
	}
	record(b, pipelines.NewRouterLogits, c.logits(c.Dim, r.r, 0), a)
	return logits
}

// wireSoft computes soft scores: of all tokens if the caller wants them, of the chosen ones if they are their scores. A whole sequence's scores are its
// soft scores: its mask.
func (r routerCall) wireSoft(logits, mask, indices, filled, scores vk.Range, hard bool) {
	b, c := r.b, r.router.config
	a := r.soft(logits, mask)
	whole := !r.routed && r.wants(routerScores)
	switch {
	case r.wants(routerSoft):
		a.Scores = b.slot(routerSoft)
	case whole:
		a.Scores = b.slot(routerScores)
	}
	if !hard {
		a.Indices, a.Valid, a.SelectedScores, a.Slots = indices, filled, scores, r.count
	}
	if r.wants(routerSoft) || whole || !hard {
		b.recordCoorDescent(c.descent(), a)
	}
	if whole && r.wants(routerSoft) {
		b.copy(b.slot(routerScores), b.slot(routerSoft))
	}
}

// random uploads normal logits of a seed.
func (p *plan) random(s routing, seed uint64) error {
	r := rand.New(rand.NewPCG(seed, 0))
	logits := make([]float32, s.b*s.r*s.n)
	for i := range logits {
		logits[i] = float32(r.NormFloat64())
	}
	return p.list.Device().Upload(context.TODO(), vk.Transfer{Range: p.logits, Data: vk.Bytes(logits)})
}

// Close frees the router. Closing again, or nil, does nothing.
func (r *CoordinateDescentRouter) Close() error {
	if r == nil {
		return nil
	}
	return r.close()
}
