package colt5

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

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
	guard
	dev     *vk.Device
	config  RouterConfig
	weights weights
	tokens  *Tensor // [R, C]; nil if they come with the call
	router  *router
	rows    *pipelines.Gather
	plans   plans[routerKey]
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

type routerKey struct {
	b, n, tokens                                                  int
	mask, random, indices, scores, gathered, logits, soft, learnt bool
}

// NewCoordinateDescentRouter makes a router on a device, with initial values of seed 0.
func NewCoordinateDescentRouter(dev *vk.Device, c RouterConfig) (*CoordinateDescentRouter, error) {
	const op = "NewCoordinateDescentRouter"
	if err := firstError(needDevice(op, dev), c.check(op)); err != nil {
		return nil, err
	}
	r := &CoordinateDescentRouter{dev: dev, config: c, weights: weights{dev: dev}}
	if err := r.build(); err != nil {
		return nil, errors.Join(fmt.Errorf("colt5: %s: %w", op, err), r.Close())
	}
	return r, nil
}

func (r *CoordinateDescentRouter) build() (err error) {
	c := r.config
	if !c.LearnedRoutingTokens {
		if r.tokens, err = r.weights.routingToken("routing_token", c.NumRoutingTokens, c.Dim, c.RouterOptions); err != nil {
			return err
		}
	}
	if r.router, err = newRouter(r.dev, c.RouterOptions, c.NumRoutingTokens, c.Dim, true); err != nil {
		return err
	}
	if r.rows, err = pipelines.NewGather(r.dev, pipelines.GatherConfig{C: c.Dim}); err != nil {
		return err
	}
	return r.weights.init(0)
}

// routingToken adds the routing tokens of a router.
func (w *weights) routingToken(name string, r, c int, o RouterOptions) (*Tensor, error) {
	deviation := 1.0
	if o.ScaleRoutingTokens {
		deviation = 1 / math.Sqrt(float64(c))
	}
	return w.add(name, gaussian(deviation), r, c)
}

// Config is what the router was made with.
func (r *CoordinateDescentRouter) Config() RouterConfig { return r.config }

// Parameters are the weights under their PyTorch names.
func (r *CoordinateDescentRouter) Parameters() []Parameter { return slices.Clone(r.weights.list) }

// Init gives the weights their initial values; the same seed gives the same values on every device.
func (r *CoordinateDescentRouter) Init(seed uint64) error {
	return r.exclusive("CoordinateDescentRouter.Init", func() error { return r.weights.init(seed) })
}

// Load reads the weights from a safetensors file: all of them, and nothing else.
func (r *CoordinateDescentRouter) Load(path string) error {
	return r.exclusive("CoordinateDescentRouter.Load", func() error { return r.weights.load("CoordinateDescentRouter.Load", path) })
}

// Save writes the weights to a safetensors file, which is replaced whole or not at all.
func (r *CoordinateDescentRouter) Save(path string) error {
	return r.exclusive("CoordinateDescentRouter.Save", func() error { return r.weights.save("CoordinateDescentRouter.Save", path) })
}

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
	key := routerKey{
		b: s.b, n: s.n, tokens: tokens, mask: o.Mask != nil, random: o.RandomSeed != 0, indices: out.Indices != nil, scores: out.Scores != nil,
		gathered: out.Tokens != nil, logits: out.Logits != nil, soft: out.SoftScores != nil, learnt: o.RoutingTokens != nil,
	}
	tensors := [...]*Tensor{x, o.Mask, o.RoutingTokens, out.Indices, out.Scores, out.Tokens, out.Logits, out.SoftScores}
	p := r.plans.find(key)
	if p == nil {
		if p, err = r.plan(s, key, tensors[:]); err != nil {
			return fmt.Errorf("colt5: %s: %w", op, err)
		}
		if err := r.plans.add(key, p); err != nil {
			return fmt.Errorf("colt5: %s: %w", op, err)
		}
	}
	if o.RandomSeed != 0 {
		if err := p.random(s, o.RandomSeed); err != nil {
			return fmt.Errorf("colt5: %s: %w", op, err)
		}
	}
	return r.run(op, p, tensors[:])
}

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

// plan prepares a call. The tensors are those of Forward, in its order.
func (r *CoordinateDescentRouter) plan(s routing, key routerKey, tensors []*Tensor) (*plan, error) {
	hard := r.config.StraightThrough || key.random || !s.routed
	needScores := key.scores || key.gathered
	descent := key.soft || needScores && !hard || key.scores && !s.routed
	choice := s.routed && (key.indices || needScores)
	// A whole sequence's scores are its soft scores: its mask.
	whole := key.scores && !s.routed

	var l layout
	place := func(wanted, given bool, size uint64) piece {
		if !wanted || given {
			return piece{}
		}
		return l.take(size)
	}
	logits := place(true, key.logits && !key.random, s.logitsBytes())
	soft := place(descent, key.soft || whole, s.logitsBytes())
	indices := place(choice, key.indices, s.slotBytes())
	filled := place(choice, hard && key.scores, s.slotBytes())
	scores := place(needScores && !hard, key.scores, s.slotBytes())
	var chooseTmp, descentTmp piece
	if choice {
		chooseTmp = l.take(r.router.selectBytes(s))
		l.give(chooseTmp)
	}
	if descent {
		descentTmp = l.take(r.router.descentBytes(s))
	}
	b, err := r.newBuilder(r.dev, "CoordinateDescentRouter", &l, tensors, "x", "Mask", "RoutingTokens", "Indices", "Scores", "Tokens", "Logits", "SoftScores")
	if err != nil {
		return nil, err
	}
	or := func(p piece, slot int) vk.Range {
		if p.size > 0 {
			return b.at(p)
		}
		return b.slot(slot)
	}
	const slotScores = 4
	a := routed{
		x: b.slot(0), mask: b.slot(1), tokens: b.slot(2), tokensPerItem: key.learnt, logits: or(logits, 6),
		indices: or(indices, 3), filled: or(filled, slotScores), softScores: or(soft, 7),
		select_: b.at(chooseTmp), descentTmp: b.at(descentTmp),
	}
	if !key.learnt {
		a.tokens = r.tokens.memory
	}
	if whole && soft.size == 0 && !key.soft {
		a.softScores = b.slot(slotScores)
	}
	if hard {
		a.filledWord = math.Float32bits(1) // the mark of a filled slot is its score
	} else if needScores {
		a.scores = or(scores, slotScores)
	}
	return b.done(r.record(b, s, key, a, choice, descent, hard))
}

func (r *CoordinateDescentRouter) record(b *builder, s routing, key routerKey, a routed, choice, descent, hard bool) error {
	if key.random {
		b.plan.logits = a.logits // in the workspace, where each call uploads them
		if key.logits {
			if err := b.tape.Copy(b.slot(6), a.logits); err != nil {
				return err
			}
		}
	} else if err := r.router.recordLogits(b.tape, s, a); err != nil {
		return err
	}
	if choice {
		if err := r.router.recordChoice(b.tape, s, a); err != nil {
			return err
		}
	}
	if descent {
		if err := r.router.recordScores(b.tape, s, a); err != nil {
			return err
		}
	}
	if key.scores && key.soft && !s.routed {
		if err := b.tape.Copy(b.slot(4), b.slot(7)); err != nil {
			return err
		}
	}
	if !key.gathered {
		return nil
	}
	score := a.scores
	if hard {
		score = a.filled
	}
	return r.rows.Record(b.tape, pipelines.GatherArgs{X: a.x, Indices: a.indices, Score: score, Filled: a.filled, Y: b.slot(5), B: s.b, N: s.n, K: s.r * s.k})
}

// random uploads normal logits of a seed.
func (p *plan) random(s routing, seed uint64) error {
	r := rand.New(rand.NewPCG(seed, 0))
	logits := make([]float32, s.logitsBytes()/4)
	for i := range logits {
		logits[i] = float32(r.NormFloat64())
	}
	return p.tape.Device().Upload(vk.Transfer{Range: p.logits, Data: vk.Bytes(logits)})
}

// Close frees the router. Closing again, or nil, does nothing.
func (r *CoordinateDescentRouter) Close() error {
	if r == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true // what fails to close, because the device is still busy, is tried again by another Close
	return errors.Join(r.plans.close(), r.router.Close(), r.rows.Close(), r.weights.close())
}
