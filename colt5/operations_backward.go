package colt5

import (
	"errors"
	"math"

	"github.com/colt5-vulkan/colt5/pipelines"
	"github.com/colt5-vulkan/colt5/vk"
)

// backward adds the gradient of the sum to both of its terms.
func (sum) backward(b *builder) {
	n := 1
	for _, size := range b.call.sizes(b.call.find("y")) {
		n *= size
	}
	dy := b.upstream("y").Range
	for _, name := range []string{"a", "b"} {
		if dx := b.inputGradient(name); dx.wanted {
			b.add(dx.Range, dy, n)
		}
	}
}

// backward spreads the gradient of the mean over the tokens.
func (mean) backward(b *builder) {
	dx := b.inputGradient("x")
	items, n, c := b.dim(dimB), b.dim(dimN), b.dim(dimC)
	each := b.floats(items, n, c)
	record(b, pipelines.NewMeanPoolBackward, pipelines.MeanPoolConfig{C: c, Masked: b.given("mask")}, pipelines.MeanPoolBackwardArgs{
		DY: b.upstream("y").Range, Mask: b.arg("mask"), DX: each.Range, B: items, N: n,
	})
	b.add(dx.Range, each.Range, items*n*c)
	b.release(each)
}

// backward adds the gradient of the part to that of its rows.
func (p part) backward(b *builder) {
	items, n, c := b.dim(dimB), b.dim(dimN), b.dim(dimC)
	all := b.floats(items, n, c)
	b.fill(all.Range, 0)
	to := all.Range
	if !to.IsZero() {
		to = to.Slice(4*uint64(p.first)*uint64(c), pipelines.CopyRowsBytes(items, p.count*c, n*c))
	}
	b.copyRows(to, b.upstream("y").Range, items, p.count*c, p.count*c, n*c)
	b.add(b.inputGradient("x").Range, all.Range, items*n*c)
	b.release(all)
}

// backward adds the parts of the gradient to those of the values.
func (o concat) backward(b *builder) {
	dy := b.upstream("y").Range
	o.each(b, func(name string, outer, width, pitch, from int) {
		dx := b.inputGradient(name)
		if !dx.wanted {
			return
		}
		own := b.floats(outer, width)
		part := dy
		if !part.IsZero() {
			part = part.Slice(4*uint64(from), pipelines.CopyRowsBytes(outer, width, pitch))
		}
		b.copyRows(own.Range, part, outer, width, pitch, width)
		b.add(dx.Range, own.Range, outer*width)
		b.release(own)
	})
}

// backward records the backward pass of a CoordinateDescent.
func (c CoordinateDescentConfig) backward(b *builder) {
	if b.given("K") {
		b.fail(errors.New("a CoordinateDescent with K per row has no backward pass"))
		return
	}
	rows, n := b.call.lead(), b.dim(dimN)
	config := pipelines.CoorDescentConfig{Iters: c.NIters, Eps: c.Eps, EpsInit: c.EpsInit, EpsDecay: c.EpsDecay}
	b.rowsDescentBackward(config, pipelines.CoorDescentArgs{Logits: b.arg("s"), Mask: b.arg("Mask"), Rows: rows, N: n, K: c.K},
		pipelines.CoorDescentBackwardArgs{DScores: b.upstream("y").Range}, b.inputGradient("s"))
}

// rowsDescentBackward records the gradient of coordinate descent over whole rows, added to dlogits. upstream has the gradients
// of the scores.
func (b *builder) rowsDescentBackward(c pipelines.CoorDescentConfig, forward pipelines.CoorDescentArgs, upstream pipelines.CoorDescentBackwardArgs,
	dlogits gradient) {
	rows, n := forward.Rows, forward.N
	state, own := b.floats(rows, c.Iters, 4), b.floats(rows, n)
	forward.State, forward.Scores = state.Range, own.Range // the scores are not needed
	b.recordCoorDescent(c, forward)
	scratch := b.alloc(pipelines.CoorDescentBackwardScratch(c.Iters, rows, n, 0, 0))
	upstream.Logits, upstream.Mask, upstream.State, upstream.DLogits, upstream.Scratch = forward.Logits, forward.Mask, state.Range, own.Range, scratch.Range
	upstream.Rows, upstream.N = rows, n
	record(b, pipelines.NewCoorDescentBackward, c, upstream)
	b.add(dlogits.Range, own.Range, rows*n)
	b.release(state, own, scratch)
}

// backward records the backward pass of a TopK. The gates have the gradient of the soft scores.
func (c TopKConfig) backward(b *builder) {
	rows, n, slots := b.call.lead(), b.dim(dimN), b.call.lead()*c.K
	x, dx := b.arg("x"), b.inputGradient("x")
	indices, valid, dselected := b.floats(slots), b.floats(slots), b.floats(slots)
	a := pipelines.SelectArgs{
		Logits: x, Mask: b.arg("Mask"), Indices: indices.Range, Valid: valid.Range, Rows: rows, N: n, K: c.K, EmptyIndex: -1, ValidWord: math.Float32bits(1),
	}
	b.recordSelect(pipelines.SelectConfig{Sorted: true}, a)
	b.fill(dselected.Range, 0)
	if d := b.upstream("Values"); d.wanted {
		record(b, pipelines.NewScatter, pipelines.ScatterConfig{C: 1, Add: true}, pipelines.ScatterArgs{
			Value: d.Range, Indices: indices.Range, Valid: valid.Range, Base: dx.Range, Y: dx.Range, B: rows, N: n, K: c.K,
		})
		record(b, pipelines.NewGatherBackward, pipelines.GatherBackwardConfig{C: 1}, pipelines.GatherBackwardArgs{
			X: x, DY: d.Range, Indices: indices.Range, Valid: valid.Range, DScore: dselected.Range, B: rows, N: n, K: c.K,
		})
	}
	for _, name := range []string{"CoorDescentValues", "Gates"} {
		if d := b.upstream(name); d.wanted {
			b.add(dselected.Range, d.Range, slots)
		}
	}
	if !c.NonDifferentiable {
		config := pipelines.CoorDescentConfig{Iters: c.NIters, Eps: c.Eps, EpsInit: c.EpsInit, EpsDecay: c.EpsDecay}
		b.rowsDescentBackward(config, pipelines.CoorDescentArgs{Logits: x, Mask: a.Mask, Rows: rows, N: n, K: min(float64(c.K)*c.CoorDescentKRatio, float64(n))},
			pipelines.CoorDescentBackwardArgs{Indices: indices.Range, Valid: valid.Range, DSelected: dselected.Range, Slots: c.K}, dx)
	}
	b.release(indices, valid, dselected)
}

// backward records the backward pass of a CoordinateDescentRouter.
func (r *router) backward(b *builder) {
	c := r.config
	s := c.selectionShape(b.dim(dimB), b.dim(dimN), c.NumRoutingTokens, c.Dim, b.tokenCount("tokens"))
	x, mask, dx := b.arg("x"), b.arg("Mask"), b.inputGradient("x")
	dlogits := r.dlogits(b, s, x, mask, dx)
	if b.call.randomSeed == 0 {
		if d := b.upstream("Logits"); d.wanted {
			b.add(dlogits.Range, d.Range, s.b*s.r*s.n)
		}
		r.logitsBackward(b, s, x, dlogits.Range, dx)
	}
	b.release(dlogits)
}

// dlogits records the gradient of the logits from those of the scores and the selected tokens, and adds to dx what comes from
// the selected tokens.
func (r *router) dlogits(b *builder, s selectionShape, x, mask vk.Range, dx gradient) allocation {
	c := r.config
	dlogits := b.floats(s.b, s.r, s.n)
	b.fill(dlogits.Range, 0)
	random := b.call.randomSeed != 0
	dscores, dtokens, dsoft := b.upstream("Scores"), b.upstream("Tokens"), b.upstream("SoftScores")
	if !s.routed || !dscores.wanted && !dtokens.wanted && !dsoft.wanted {
		return dlogits
	}
	q := newRouterState("router", nil, c.RouterSettings, c.StraightThrough || random, s, false)
	if random {
		q.logits = allocation{Range: b.randomLogits("router", s.b, s.r, s.n)}
	} else {
		q.logits = b.floats(s.b, s.r, s.n)
		record(b, pipelines.NewRouterLogits, c.logits(c.Dim, s.r, 0), r.logitsArgs(b, s, q.logits.Range))
	}
	b.recordSortedTopK(mask, q)
	slots := s.lists() * s.k
	dselected := b.floats(slots)
	b.fill(dselected.Range, 0)
	if dscores.wanted {
		b.copy(dselected.Range, dscores.Range)
	}
	if dtokens.wanted {
		r.tokensBackward(b, q, x, dtokens.Range, dselected.Range, dx)
	}
	if !random {
		r.scoresBackward(b, q, mask, dselected.Range, dsoft, dlogits.Range)
		b.release(q.logits)
	}
	b.release(dselected, q.indices, q.valid, q.scores)
	return dlogits
}

// tokensBackward records the gradients of x[index] * score: of x, and of the scores, to which it adds.
func (r *router) tokensBackward(b *builder, q *routerState, x, dtokens, dselected vk.Range, dx gradient) {
	own := b.floats(q.lists() * q.k)
	k := q.r * q.k
	record(b, pipelines.NewGatherBackward, pipelines.GatherBackwardConfig{C: q.c}, pipelines.GatherBackwardArgs{
		X: x, DY: dtokens, Indices: q.indices.Range, Valid: q.valid.Range, DScore: own.Range, B: q.b, N: q.n, K: k,
	})
	b.add(dselected, own.Range, q.lists()*q.k)
	b.release(own)
	if !dx.wanted {
		return
	}
	// Several routes may select a token, so each route is a step of its own.
	for route := range q.r {
		b.scatterRoute(q, route, dtokens, dx.Range)
	}
}

// recordSortedTopK records the lists of a router of its own, whose slots are in the order of the logits.
func (b *builder) recordSortedTopK(mask vk.Range, q *routerState) {
	q.indices, q.valid = b.floats(q.lists(), q.k), b.floats(q.lists(), q.k)
	a := q.selectArgs(q.logits.Range, mask)
	a.Indices, a.Valid = q.indices.Range, q.valid.Range
	b.recordSelect(pipelines.SelectConfig{Sorted: true}, a)
	if q.usesSoftScores {
		q.scores = b.floats(q.lists(), q.k)
		d := q.descentArgs(q.logits.Range, mask)
		d.Indices, d.Valid, d.SelectedScores, d.Slots = q.indices.Range, q.valid.Range, q.scores.Range, q.perBlock
		b.recordCoorDescent(q.options.descent(), d)
	}
}

// scatterRoute records dx += the rows of one route of value [B, R, K, C] times their scores, at the tokens of its list.
func (b *builder) scatterRoute(q *routerState, route int, value, dx vk.Range) {
	a := pipelines.ScatterArgs{Value: value, Indices: q.indices.Range, Valid: q.valid.Range, Base: dx, Y: dx, B: q.b, N: q.n, K: q.k}
	if q.usesSoftScores {
		a.Score = q.scores.Range
	}
	var parts []allocation
	if q.r > 1 {
		ofRoute := func(r vk.Range, width int) vk.Range {
			part := b.floats(q.b, width)
			parts = append(parts, part)
			if !r.IsZero() {
				r = r.Slice(4*uint64(route)*uint64(width), pipelines.CopyRowsBytes(q.b, width, q.r*width))
			}
			b.copyRows(part.Range, r, q.b, width, q.r*width, width)
			return part.Range
		}
		a.Value, a.Indices, a.Valid = ofRoute(value, q.k*q.c), ofRoute(a.Indices, q.k), ofRoute(a.Valid, q.k)
		if q.usesSoftScores {
			a.Score = ofRoute(a.Score, q.k)
		}
	}
	record(b, pipelines.NewScatter, pipelines.ScatterConfig{C: q.c, Add: true}, a)
	b.release(parts...)
}

// scoresBackward records the gradient of the logits from those of the selected scores and of all soft scores.
func (r *router) scoresBackward(b *builder, q *routerState, mask, dselected vk.Range, dsoft gradient, dlogits vk.Range) {
	own := b.descentBackward(mask, q, dselected, dsoft)
	b.add(dlogits, own.Range, q.b*q.r*q.n)
	b.release(own)
}

// logitsBackward records the gradients of x and the routing tokens from that of the logits.
func (r *router) logitsBackward(b *builder, s selectionShape, x, dlogits vk.Range, dx gradient) {
	q := newRouterState("router", r.tokens, r.config.RouterSettings, true, s, false)
	q.r = s.r
	if r.tokens != nil {
		b.logitsBackward(x, q, dlogits, dx)
		return
	}
	dtokens := b.inputGradient("RoutingTokens")
	b.tokenLogitsBackward(x, b.arg("RoutingTokens"), true, q, dlogits, dx, dtokens)
}
