package colt5

import (
	"fmt"

	"github.com/colt5-vulkan/colt5/pipelines"
	"github.com/colt5-vulkan/colt5/vk"
)

// RouterSettings are the settings of a module's routers, in JSON router_kwargs.
type RouterSettings struct {
	NIters           int     `json:"n_iters"`            // iterations of coordinate descent, at least 1
	FetchKRatio      float64 `json:"fetch_k_ratio"`      // k_eff of coordinate descent is this times the tokens to select; above 0
	Eps              float64 `json:"eps"`                // smoothness of the scores, above 0
	EpsInit          float64 `json:"eps_init"`           // eps of the first iteration; 0: Eps
	EpsDecay         float64 `json:"eps_decay"`          // factor of eps after an iteration, in (0, 1]
	CosineSimRouting bool    `json:"cosine_sim_routing"` // cosine instead of dot product
	CosineSimScale   float64 `json:"cosine_sim_scale"`   // factor of the cosine, above 0
	RouteBlockSize   int     `json:"route_block_size"`   // tokens of a block; each block selects separately; 0: no blocks

	// ScaleRoutingTokens initialises routing tokens with standard deviation 1/sqrt(C) instead of 1. With 1 and a large
	// C, scores saturate and the router gets no gradient.
	ScaleRoutingTokens bool `json:"scale_routing_tokens"`
}

func (o *RouterSettings) setDefaults() {
	*o = RouterSettings{NIters: 20, FetchKRatio: 9.0 / 8, Eps: 0.03, EpsInit: 4, EpsDecay: 0.7, CosineSimScale: 8}
}

func (o RouterSettings) check(k checker) error {
	return firstError(
		k.coorDescent(o.NIters, o.Eps, o.EpsInit, o.EpsDecay),
		k.within("FetchKRatio", o.FetchKRatio, minK, maxK),
		k.aboveZero("CosineSimScale", o.CosineSimScale),
		k.atLeast("RouteBlockSize", o.RouteBlockSize, 0),
	)
}

// logits is the kernel configuration for the logits of one router, or of two that read the same tokens.
func (o RouterSettings) logits(c, r, r2 int) pipelines.RouterLogitsConfig {
	config := pipelines.RouterLogitsConfig{C: c, R: r, R2: r2}
	if o.CosineSimRouting {
		config.CosineScale = o.CosineSimScale
	}
	return config
}

func (o RouterSettings) descent() pipelines.CoorDescentConfig {
	return pipelines.CoorDescentConfig{Iters: o.NIters, Eps: o.Eps, EpsInit: o.EpsInit, EpsDecay: o.EpsDecay}
}

// selectionShape is the shape of a router's selection: a function of the settings and the sizes of a call.
type selectionShape struct {
	b, n, r, c int
	routed     bool    // false: the whole sequence goes to the heavy branch
	block      int     // tokens of a block
	perBlock   int     // tokens selected in a block
	k          int     // slots of a list: blocks times perBlock, or n where nothing is routed
	kEff       float64 // what coordinate descent aims at, before it is cut to the length of a block

	skipBlocks    int // blocks at the start in which nothing is selected
	windows       int // lists of a route, 0: one; list m is selected from the first m * windowSize tokens
	windowSize    int
	selectAllUpTo int  // all tokens of blocks up to this length are selected: their soft scores are their mask
	padLastBlock  bool // a short last block counts as a full one
}

func (o RouterSettings) selectionShape(b, n, r, c, tokens int) selectionShape {
	s := selectionShape{b: b, n: n, r: r, c: c, routed: n > tokens, block: n, perBlock: n, k: n, kEff: float64(n), selectAllUpTo: n}
	if !s.routed {
		return s
	}
	blocks := 1
	if size := o.RouteBlockSize; size > 0 && size < n {
		s.block, blocks = size, (n+size-1)/size
	}
	s.perBlock = (tokens + blocks - 1) / blocks
	s.selectAllUpTo = s.perBlock
	s.k = blocks * s.perBlock
	s.kEff = float64(s.perBlock) * o.FetchKRatio
	return s
}

// selectable is the tokens that a list's block may name, from .. to - 1.
func (s selectionShape) selectable(list, block int) (from, to int) {
	switch {
	case s.windows > 0:
		return 0, min(list/s.r%s.windows*s.windowSize, s.n)
	case block < s.skipBlocks:
		return 0, 0
	}
	return min(block*s.block, s.n), min((block+1)*s.block, s.n)
}

// lists is the number of lists of k slots.
func (s selectionShape) lists() int { return s.b * s.r * max(s.windows, 1) }

// blocks is the number of blocks of a row.
func (s selectionShape) blocks() int { return (s.n + s.block - 1) / s.block }

// selectArgs returns the arguments of the top-k selection from logits.
func (s selectionShape) selectArgs(logits, mask vk.Range) pipelines.SelectArgs {
	a := pipelines.SelectArgs{
		Logits: logits, Mask: mask, Rows: s.b * s.r, N: s.n, K: s.perBlock, Routes: s.r, SkipBlocks: s.skipBlocks, Windows: s.windows, WindowSize: s.windowSize,
	}
	if s.windows == 0 {
		a.BlockSize = s.block
	}
	return a
}

// descentArgs returns the arguments of the coordinate descent from logits.
func (s selectionShape) descentArgs(logits, mask vk.Range) pipelines.CoorDescentArgs {
	a := pipelines.CoorDescentArgs{
		Logits: logits, Mask: mask, Rows: s.b * s.r, N: s.n, Routes: s.r, K: min(s.kEff, float64(s.block)), SelectAllUpTo: s.selectAllUpTo,
		Windows: s.windows, WindowSize: s.windowSize, PadLastBlock: s.padLastBlock,
	}
	if s.windows == 0 {
		a.BlockSize = s.block
	}
	return a
}

// routerState is a router in a plan: the shape of its selection, and the workspace of its logits and lists.
type routerState struct {
	selectionShape
	name           string  // of the router, in the module
	routingTokens  *Tensor // [R, C]
	options        RouterSettings
	usesSoftScores bool // the score of a selected token is its soft score; else 1
	hasLists       bool // lists name the tokens; false: all of them, in order

	thresholds             allocation // of the windows, for the backward pass of causal query routing
	logits, values         allocation // values: the logits of the selected tokens; absent: not needed
	indices, valid, scores allocation // [lists, k]; scores only if scored

	kept   bool // for the backward pass
	reused bool // logits and lists are those that the forward pass has kept
}

// routerKey names a router of a program.
type routerKey struct {
	node *node // of the forward pass
	name string
}

// keep keeps logits and lists for the backward pass of the node.
func (c *routerState) keep(b *builder) {
	if b.gradients == nil && c.hasLists && b.training() {
		c.kept = true
		b.routers[routerKey{b.node, c.name}] = c
	}
}

// reuse takes logits and lists from the forward pass, in a backward pass and in what it computes again.
func (c *routerState) reuse(b *builder) bool {
	if b.gradients == nil {
		return false
	}
	k := b.routers[routerKey{b.gradients.of, c.name}]
	if k == nil {
		return false
	}
	c.reused, c.usesSoftScores = true, k.usesSoftScores
	for _, part := range []struct {
		to   *allocation
		from allocation
	}{{&c.logits, k.logits}, {&c.values, k.values}, {&c.indices, k.indices}, {&c.valid, k.valid}, {&c.scores, k.scores}} {
		*part.to = allocation{Range: part.from.Range} // the node releases it
	}
	return true
}

// newRouterState makes the state of a module's router. It needs lists where the router or a mask leaves tokens out.
func newRouterState(name string, routingTokens *Tensor, o RouterSettings, straightThrough bool, s selectionShape, masked bool) *routerState {
	c := &routerState{selectionShape: s, name: name, routingTokens: routingTokens, options: o, hasLists: s.routed || masked || s.skipBlocks > 0, usesSoftScores: s.routed && !straightThrough}
	if !s.routed {
		c.r = 1 // every route reads the same tokens
	}
	return c
}

// recordLogits records the logits of one router, or of two that read the same tokens x [B, N, C]. Where only a mask
// leaves tokens out, all logits are equal, so that the selection takes all real tokens. Those of static routing are equal too.
func (b *builder) recordLogits(x vk.Range, list ...*routerState) {
	var routed []*routerState
	for _, c := range list {
		if b.call.control() {
			c.usesSoftScores = false
		}
		if !c.hasLists || c.reuse(b) {
			continue
		}
		if c.routed && b.call.randomSeed != 0 {
			c.logits = allocation{Range: b.randomLogits(c.name, c.b, c.r, c.n)}
			continue
		}
		c.logits = b.floats(c.b, c.r, c.n)
		if c.routed && !b.call.static {
			routed = append(routed, c)
		} else {
			b.fill(c.logits.Range, 0)
		}
	}
	if len(routed) == 0 {
		return
	}
	first := routed[0]
	config := first.options.logits(first.c, first.r, 0)
	a := pipelines.RouterLogitsArgs{X: x, Tokens: first.routingTokens.memory, Logits: first.logits.Range, B: first.b, N: first.n}
	if len(routed) > 1 {
		second := routed[1]
		config.R2 = second.r
		a.Tokens2, a.Logits2 = second.routingTokens.memory, second.logits.Range
	}
	record(b, pipelines.NewRouterLogits, config, a)
}

// randomLogits is the logits of random routing of a router, which the host fills before each run: each router of a call
// from a stream of its own. They are in a buffer, because steps of the run reuse the workspace.
func (b *builder) randomLogits(router string, sizes ...int) vk.Range {
	bytes := b.floatBytes(sizes...)
	if b.gradients == nil {
		b.constants += bytes
	}
	if b.err != nil || b.list == nil {
		return vk.Range{}
	}
	if b.gradients != nil { // those of the forward pass
		for _, r := range b.plan.random {
			if r.node == b.gradients.of && r.router == router {
				return r.buffer.Range()
			}
		}
		b.fail(fmt.Errorf("internal error: the backward pass needs random logits of %s, the forward pass did not", router))
		return vk.Range{}
	}
	buffer, err := b.list.Device().NewBuffer("random logits", bytes)
	if err != nil {
		b.fail(err)
		return vk.Range{}
	}
	r := randomLogits{buffer: buffer, node: b.node, router: router, nodeSeed: b.call.randomSeed}
	for _, other := range b.plan.random {
		if other.node == b.node {
			r.stream++
		}
	}
	b.plan.random = append(b.plan.random, r)
	return buffer.Range()
}

// recordRouterTopK records the selection from the logits, or of a replay its lists, and the soft scores of the selected
// tokens if the module needs them.
func (b *builder) recordRouterTopK(mask vk.Range, c *routerState) {
	if !c.hasLists || c.reused {
		return
	}
	switch {
	case c.routed && b.call.replay:
		b.replayLists(c)
	case c.routed && b.call.static:
		b.staticLists(c)
	default:
		b.recordSelection(mask, c)
	}
	if c.usesSoftScores {
		c.scores = b.floats(c.lists(), c.k)
		d := c.selectionShape.descentArgs(c.logits.Range, mask)
		d.Indices, d.Valid, d.SelectedScores, d.Slots = c.indices.Range, c.valid.Range, c.scores.Range, c.perBlock
		b.recordCoorDescent(c.options.descent(), d)
	}
}

// recordSelection records the selection from the logits.
func (b *builder) recordSelection(mask vk.Range, c *routerState) {
	c.indices, c.valid = b.floats(c.lists(), c.k), b.floats(c.lists(), c.k)
	a := c.selectArgs(c.logits.Range, mask)
	a.Indices, a.Valid, a.Values = c.indices.Range, c.valid.Range, c.values.Range
	b.recordSelect(pipelines.SelectConfig{}, a)
}

// finishRouting releases the logits, or keeps them for the backward pass. If the call wants routing records it keeps them, and records the soft scores of
// all tokens.
func (b *builder) finishRouting(mask vk.Range, c *routerState) {
	if c.keep(b); c.reused {
		return
	}
	if b.wantsRouting() && c.routed {
		soft := b.floats(c.lists(), c.n)
		d := c.selectionShape.descentArgs(c.logits.Range, mask)
		d.Scores = soft.Range
		b.recordCoorDescent(c.options.descent(), d)
		if b.list != nil {
			c.name = b.prefixed(c.name)
			b.plan.routing = append(b.plan.routing, recordedRouter{c, soft.Range})
		}
		return
	}
	c.free(b, c.logits)
}

// free releases a part of the state, behind the backward pass if that needs it.
func (c *routerState) free(b *builder, list ...allocation) {
	if c.kept {
		b.lists[b.node] = append(b.lists[b.node], list...)
		return
	}
	b.release(list...)
}

// release releases the lists, unless the call wants routing records.
func (c *routerState) release(b *builder) {
	if !b.wantsRouting() || !c.routed {
		c.free(b, c.indices, c.valid, c.scores)
	}
}
