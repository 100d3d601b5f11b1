package colt5

import (
	"github.com/colt5-vulkan/colt5/pipelines"
	"github.com/colt5-vulkan/colt5/vk"
)

// routerHasGradient reports whether the scores of a router have a gradient that something needs: of its tokens, or of x.
// Straight-through scores have the gradient of the soft scores. Random and static routing have none.
func (b *builder) routerHasGradient(s *routerState, dx gradient) bool {
	return s.routed && !b.call.control() && (dx.wanted || b.parameter(s.routingTokens).wanted)
}

// rowScoresBackward records the gradient of the scores [B, K] by which the rows out [B, K, width] were multiplied before they
// were added to the rows of y that a list names.
func (b *builder) rowScoresBackward(dy, out vk.Range, width int, s *routerState) allocation {
	dscores := b.floats(s.b, s.k)
	a := pipelines.GatherBackwardArgs{X: dy, DY: out, Indices: s.indices.Range, Valid: s.valid.Range, DScore: dscores.Range, B: s.b, N: s.n, K: s.k}
	if s.usesSoftScores {
		a.Score = s.scores.Range
	}
	record(b, pipelines.NewGatherBackward, pipelines.GatherBackwardConfig{C: width}, a)
	return dscores
}

// routerBackward records the gradient of a router's logits from that of its scores, dscores of the shape of its lists, and
// adds to the gradients of the tokens x [B, N, C] and the routing tokens. The state has the logits and lists of the forward
// pass.
func (b *builder) routerBackward(x, mask vk.Range, s *routerState, dscores vk.Range, dx gradient) {
	dlogits := b.descentBackward(mask, s, dscores, gradient{})
	b.logitsBackward(x, s, dlogits.Range, dx)
	b.release(dlogits)
}

// descentBackward records the gradient of the logits [B, R, N] from those of the selected scores and of all soft scores.
func (b *builder) descentBackward(mask vk.Range, s *routerState, dscores vk.Range, dsoft gradient) allocation {
	config := s.options.descent()
	rows, segments := s.b*s.r, s.blocks()
	if s.windows > 0 {
		segments = s.windows
	}
	state, scores := b.floats(rows, segments, config.Iters, 4), b.floats(s.lists(), s.k)
	d := s.descentArgs(s.logits.Range, mask)
	d.State = state.Range
	d.Indices, d.Valid, d.SelectedScores, d.Slots = s.indices.Range, s.valid.Range, scores.Range, s.perBlock
	b.recordCoorDescent(config, d)
	b.release(scores)
	dlogits := b.floats(rows, s.n)
	scratch := b.alloc(pipelines.CoorDescentBackwardScratch(config.Iters, rows, s.n, d.BlockSize, s.windows))
	record(b, pipelines.NewCoorDescentBackward, config, pipelines.CoorDescentBackwardArgs{
		Logits: s.logits.Range, Mask: mask, State: state.Range, DScores: dsoft.Range, DLogits: dlogits.Range, Scratch: scratch.Range,
		Indices: s.indices.Range, Valid: s.valid.Range, DSelected: dscores, Slots: s.perBlock,
		Rows: rows, N: s.n, Routes: s.r, BlockSize: d.BlockSize, Windows: s.windows, WindowSize: s.windowSize,
	})
	b.release(scratch, state)
	return dlogits
}

// logitsBackward records the gradients of the tokens and of the routing tokens from that of the logits.
func (b *builder) logitsBackward(x vk.Range, s *routerState, dlogits vk.Range, dx gradient) {
	if g := b.parameter(s.routingTokens); g.wanted && s.b == b.items() {
		b.tokenLogitsBackward(x, s.routingTokens.memory, false, s, dlogits, dx, g)
		return
	}
	parts := b.floats(s.b, s.r, s.c)
	b.tokenLogitsBackward(x, s.routingTokens.memory, false, s, dlogits, dx, startingAtZero(parts))
	b.sumParts(parts.Range, s.routingTokens, s.b, s.r*s.c)
	b.release(parts)
}

// tokenLogitsBackward records the gradients of the logits of routing tokens [R, C], or with perItem [B, R, C]: added to dx
// [B, N, C] and dtokens [B, R, C].
func (b *builder) tokenLogitsBackward(x, tokens vk.Range, perItem bool, s *routerState, dlogits vk.Range, dx, dtokens gradient) {
	a := pipelines.RouterLogitsBackwardArgs{X: x, Tokens: tokens, DLogits: dlogits, B: s.b, N: s.n, TokensPerItem: perItem}
	config := pipelines.RouterLogitsBackwardConfig{C: s.c, R: s.r, CosineScale: s.options.logits(s.c, s.r, 0).CosineScale}
	_, config.AddTokens = b.take(dtokens)
	var noX, noTokens allocation
	var add bool
	a.DX, a.Base, add, noX = b.normInput(dx, s.c, config.Fused(), s.b, s.n, s.c)
	config.StoreDX = !add
	scratch := b.alloc(pipelines.RouterLogitsBackwardScratch(config, s.b, s.n))
	a.DTokens, noTokens = b.dropped(dtokens, s.b, s.r, s.c)
	a.Scratch = scratch.Range
	record(b, pipelines.NewRouterLogitsBackward, config, a)
	b.release(noX, noTokens, scratch)
}
