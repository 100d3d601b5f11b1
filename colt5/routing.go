package colt5

import (
	"errors"
	"fmt"
	"math"

	"github.com/colt5-vulkan/colt5/pipelines"
	"github.com/colt5-vulkan/colt5/vk"
)

// RouterOptions are the settings of a router that modules pass on, under the key router_kwargs.
type RouterOptions struct {
	NIters           int           `json:"n_iters"`            // iterations of coordinate descent, at least 1
	FetchKRatio      float64       `json:"fetch_k_ratio"`      // the descent aims at so many times the tokens to choose; above 0
	Eps              float64       `json:"eps"`                // smoothness of the scores, above 0
	EpsInit          OptionalFloat `json:"eps_init"`           // eps of the first iteration; 0: Eps
	EpsDecay         float64       `json:"eps_decay"`          // factor of eps after an iteration, in (0, 1]
	CosineSimRouting bool          `json:"cosine_sim_routing"` // cosine instead of dot product
	CosineSimScale   float64       `json:"cosine_sim_scale"`   // factor of the cosine, above 0
	RouteBlockSize   OptionalInt   `json:"route_block_size"`   // each block of so many tokens routes on its own; 0: the whole sequence

	// ScaleRoutingTokens starts with routing tokens of deviation 1/sqrt(C) instead of 1: with 1 and a large C, scores saturate and
	// the router gets no gradient.
	ScaleRoutingTokens bool `json:"scale_routing_tokens"`
}

// DefaultRouterOptions returns the reference's defaults.
func DefaultRouterOptions() RouterOptions {
	return RouterOptions{NIters: 20, FetchKRatio: 9.0 / 8, Eps: 0.03, EpsInit: 4, EpsDecay: 0.7, CosineSimScale: 8}
}

func (o RouterOptions) check(op string) error {
	return firstError(
		checkDescent(op, o.NIters, o.Eps, float64(o.EpsInit), o.EpsDecay),
		aboveZero(op, "FetchKRatio", o.FetchKRatio),
		aboveZero(op, "CosineSimScale", o.CosineSimScale),
		atLeast(op, "RouteBlockSize", int(o.RouteBlockSize), 0),
	)
}

// routing is the shape of a routing: a function of options and sizes alone.
type routing struct {
	b, n, r, c int
	routed     bool    // false: the whole sequence goes to the heavy branch
	block      int     // tokens of a block
	count      int     // tokens that a block chooses
	k          int     // slots of a route: blocks times count, or n where nothing is routed
	aim        float64 // what coordinate descent aims at, before it is cut to the length of a block
}

func (o RouterOptions) routing(b, n, r, c, tokens int) routing {
	s := routing{b: b, n: n, r: r, c: c, routed: n > tokens, block: n, count: n, k: n, aim: float64(n)}
	if !s.routed {
		return s
	}
	blocks := 1
	if size := int(o.RouteBlockSize); size > 0 && size < n {
		s.block, blocks = size, (n+size-1)/size
	}
	s.count = (tokens + blocks - 1) / blocks
	s.k = blocks * s.count
	s.aim = float64(s.count) * o.FetchKRatio
	return s
}

func (s routing) logitsBytes() uint64 { return 4 * uint64(s.b) * uint64(s.r) * uint64(s.n) }
func (s routing) slotBytes() uint64   { return 4 * uint64(s.b) * uint64(s.r) * uint64(s.k) }

// whole is the length up to which a block's soft scores are its mask.
func (s routing) whole() int {
	if s.routed {
		return s.count
	}
	return s.n
}

// router has the kernels of routing. Those that a call does not need are never compiled.
type router struct {
	options RouterOptions
	logits  *pipelines.RouterLogits
	choose  *pipelines.Select
	descent *pipelines.CoorDescent
	pick    *pipelines.Gather // of single scores
}

func newRouter(dev *vk.Device, o RouterOptions, r, c int, sorted bool) (_ *router, err error) {
	x := &router{options: o}
	defer func() {
		if err != nil {
			err = errors.Join(err, x.Close())
		}
	}()
	config := pipelines.RouterLogitsConfig{C: c, R: r}
	if o.CosineSimRouting {
		config.CosineScale = o.CosineSimScale
	}
	if x.logits, err = pipelines.NewRouterLogits(dev, config); err != nil {
		return nil, err
	}
	if x.choose, err = pipelines.NewSelect(dev, pipelines.SelectConfig{Sorted: sorted}); err != nil {
		return nil, err
	}
	if x.descent, err = pipelines.NewCoorDescent(dev, pipelines.CoorDescentConfig{
		Iters: o.NIters, Eps: o.Eps, EpsInit: float64(o.EpsInit), EpsDecay: o.EpsDecay,
	}); err != nil {
		return nil, err
	}
	x.pick, err = pipelines.NewGather(dev, pipelines.GatherConfig{C: 1})
	return x, err
}

func (x *router) Close() error {
	if x == nil {
		return nil
	}
	return errors.Join(x.logits.Close(), x.choose.Close(), x.descent.Close(), x.pick.Close())
}

// routed is where a routing finds and leaves its data. Absent outputs are not wanted.
type routed struct {
	x, mask, tokens     vk.Range // [B, N, C], [B, N], [R, C] or [B, R, C]
	tokensPerItem       bool
	logits              vk.Range // [B, R, N]
	indices, filled     vk.Range // [B, R, K]
	filledWord          uint32   // what a filled slot is marked with; 0: 1
	softScores          vk.Range // [B, R, N]
	scores              vk.Range // [B, R, K] soft scores of the slots
	select_, descentTmp vk.Range
}

// recordLogits writes the logits.
func (x *router) recordLogits(t *vk.Tape, s routing, a routed) error {
	return x.logits.Record(t, pipelines.RouterLogitsArgs{X: a.x, Tokens: a.tokens, Logits: a.logits, B: s.b, N: s.n, TokensPerItem: a.tokensPerItem})
}

// recordChoice chooses from logits. A sequence that is not routed, but has a mask, takes all its real tokens: logits are all equal then.
func (x *router) recordChoice(t *vk.Tape, s routing, a routed) error {
	return x.choose.Record(t, pipelines.SelectArgs{
		Logits: a.logits, Mask: a.mask, Indices: a.indices, Filled: a.filled, Scratch: a.select_,
		Rows: s.b * s.r, N: s.n, K: s.count, Routes: s.r, BlockSize: s.block, FilledWord: a.filledWord,
	})
}

// recordScores writes soft scores, and those of the chosen slots where they are wanted.
func (x *router) recordScores(t *vk.Tape, s routing, a routed) error {
	if err := x.descent.Record(t, pipelines.CoorDescentArgs{
		Logits: a.logits, Mask: a.mask, Scores: a.softScores, Scratch: a.descentTmp,
		Rows: s.b * s.r, N: s.n, Routes: s.r, BlockSize: s.block, K: min(s.aim, float64(s.block)), WholeUpTo: s.whole(),
	}); err != nil {
		return err
	}
	if a.scores.IsZero() {
		return nil
	}
	return x.pick.Record(t, pipelines.GatherArgs{X: a.softScores, Indices: a.indices, Filled: a.filled, Y: a.scores, B: s.b * s.r, N: s.n, K: s.k})
}

// selectBytes and descentBytes are the scratch memory of the two.
func (x *router) selectBytes(s routing) uint64 {
	return x.choose.Scratch(s.b*s.r, s.n, s.count, s.block)
}
func (x *router) descentBytes(s routing) uint64 {
	return x.descent.Scratch(s.b*s.r, s.n, s.block)
}

// checkTokens checks how many tokens a call wants.
func checkTokens(op, field string, given, configured int) (int, error) {
	if given < 0 || given > math.MaxInt32 {
		return 0, fmt.Errorf("colt5: %s: %s is %d, want 0 (the module's) to %d", op, field, given, math.MaxInt32)
	}
	if given == 0 {
		given = configured
	}
	if given < 1 {
		return 0, fmt.Errorf("colt5: %s: %s is %d, want at least 1", op, field, given)
	}
	return given, nil
}
