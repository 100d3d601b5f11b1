package colt5

import (
	"math"

	"github.com/colt5-vulkan/colt5/pipelines"
	"github.com/colt5-vulkan/colt5/vk"
)

// heavyGradients are the gradients of a heavy attention, and its masks.
type heavyGradients struct {
	dy                vk.Range // [B, N, C]
	mask, contextMask vk.Range
	dx, dcontext      gradient // the same if x and context are

	// causalQueries replaces routerBackward for the queries' router; nil: it does not.
	causalQueries func(dscores vk.Range)
}

// selectTokens records the logits and the lists of both routers again, as the forward pass did.
func (h *heavyForward) selectTokens(mask, contextMask vk.Range) {
	b := h.b
	if h.x == h.context && h.q.n == h.kv.n {
		b.recordLogits(h.x, h.q, h.kv)
	} else {
		b.recordLogits(h.x, h.q)
		b.recordLogits(h.context, h.kv)
	}
	b.recordRouterTopK(mask, h.q)
	b.recordRouterTopK(contextMask, h.kv)
}

// backward records the gradients of all parameters of the heavy branch and of its inputs, and releases the lists.
func (h *heavyForward) backward(g heavyGradients) {
	b, q, kv := h.b, h.q, h.kv
	toQ, toKV := h.queryProduct(), h.keyProducts()
	if kept := b.keptBy(h.toQ); kept != nil {
		h.queries, h.keys, h.attended = kept[0], kept[1], kept[2]
	} else {
		h.projectInputs()
		h.rotate()
		h.recordAttention(true)
	}
	selected, context := h.normedInputs()
	scored := b.routerHasGradient(q, g.dx)
	dattended, dqScores := h.projectBackward(g.dy, scored)
	keysScored := b.routerHasGradient(kv, g.dcontext)
	dq, dkv, dkvScores := h.attentionBackward(dattended, dqScores, scored, keysScored)
	b.release(h.queries.allocation, h.keys.allocation, h.attended.allocation)
	if h.rotary {
		h.rotateBy(b.inverseRotaryTable(q.n, h.dimHead), dq, dkv)
	}

	// Routers have gradients of all tokens, and go first: they store what lists then add to.
	switch {
	case scored && g.causalQueries != nil:
		g.causalQueries(dqScores.Range)
	case scored:
		b.routerBackward(h.x, g.mask, q, dqScores.Range, g.dx)
	}
	if keysScored {
		b.routerBackward(h.context, g.contextMask, kv, dkvScores.Range, g.dcontext)
	}
	b.release(dqScores, dkvScores, q.logits, q.scores, kv.logits, kv.scores)

	toQ.parametersBackward(b, selected, dq)
	b.release(selected.allocation)
	dselected := toQ.normedBackward(b, dq)
	b.release(dq.allocation)
	b.rmsNormBackward(h.x, h.gamma, dselected, g.dx, q, 0)
	b.release(dselected.allocation)
	h.keysBackward(toKV, context, dkv, g.dcontext)
	b.release(q.indices, q.valid, kv.indices, kv.valid)
}

// queryProduct is the projection of the queries.
func (h *heavyForward) queryProduct() projection {
	items := h.b.items()
	return projection{weight: h.toQ, items: items, rows: h.q.b * h.q.k / items}
}

// keyProducts are the projections of keys and values, one for each route, or one of all rows with projectAllKeys.
func (h *heavyForward) keyProducts() []projection {
	items, kv := h.b.items(), h.kv
	if h.projectAllKeys {
		return []projection{{weight: h.toKV, items: items, rows: kv.b * kv.n / items}}
	}
	var list []projection
	out := h.keyWidth()
	for r := range kv.r {
		list = append(list, projection{weight: h.toKV, first: r * out, count: out, items: items, rows: kv.b * kv.k / items})
	}
	return list
}

// keyRows and keyWidth are the size of the keys and values: [R, B, K, H/R, 2, D], or [B, N, H, 2, D] with projectAllKeys.
func (h *heavyForward) keyRows() int {
	if h.projectAllKeys {
		return h.kv.b * h.kv.n
	}
	return h.kv.r * h.kv.b * h.kv.k
}

// allocKeys allocates keys and values. Their rows have keyWidth elements.
func (h *heavyForward) allocKeys() operand {
	return h.b.allocHeads(h.dimHead, h.keyWidth()/h.dimHead, h.keyRows())
}

func (h *heavyForward) keyWidth() int {
	if h.projectAllKeys {
		return 2 * h.inner()
	}
	return 2 * h.inner() / h.kv.r
}

// projectBackward records the gradients of the output projection: of its weight, of attended, and, if scored, of the scores of
// the queries.
func (h *heavyForward) projectBackward(dy vk.Range, scored bool) (dattended operand, dscores allocation) {
	b, q, items := h.b, h.q, h.b.items()
	out := projection{weight: h.toOut, items: items, rows: q.b * q.k / items}
	if scored {
		result := b.floats(q.b, q.k, h.dim)
		out.forward(b, h.attended, floatOperand(result.Range, h.dim), pipelines.LinearConfig{})
		dscores = b.rowScoresBackward(dy, result.Range, h.dim, q)
		b.release(result)
	}
	selected, gathered := b.gatherRows(dy, h.dim, q)
	upstream := b.rounded(selected, h.dim, q.b*q.k)
	out.parametersBackward(b, h.attended, upstream)
	dattended = b.allocHeads(h.dimHead, h.heads, q.b*q.k)
	out.operandInputBackward(b, upstream, dattended)
	b.release(upstream.allocation, gathered) // one memory in float32
	return dattended, dscores
}

// attentionBackward records the gradients of queries, keys and values, and of the scores that have one. It releases dattended,
// and adds to dqScores what comes from scores that multiply queries.
func (h *heavyForward) attentionBackward(dattended operand, dqScores allocation, scored, keysScored bool) (dq, dkv operand, dkvScores allocation) {
	b, q, kv := h.b, h.q, h.kv
	c, a := h.attentionArgs()
	dq, dkv = b.allocHeads(h.dimHead, h.heads, q.b*q.k), h.allocKeys()
	dnull := b.floats(a.Lists, 2, h.heads, h.dimHead)
	var queryOnes, multiplied allocation
	if keysScored {
		c.ScoreValues, c.ScoreKeys = true, h.multiplyKeys
	}
	if scored && h.multiplyQueries {
		c.ScoreQueries = true
		a.QueryScores, queryOnes = b.scoresOrOnes(q)
	}
	if c.ScoreValues || c.ScoreKeys {
		dkvScores = b.floats(kv.lists(), kv.k)
	}
	if c.ScoreQueries {
		multiplied = b.floats(q.lists(), q.k)
	}
	args := pipelines.RoutedAttentionBackwardArgs{
		Q: a.Q, KV: a.KV, Indices: a.Indices, Valid: a.Valid, KeyScores: a.KeyScores, QueryValid: a.QueryValid, QueryScores: a.QueryScores, Null: a.Null,
		Lists: a.Lists, Queries: a.Queries, KeysPerList: a.KeysPerList, PerItem: a.PerItem, KVRows: a.KVRows, WindowSize: a.WindowSize,
		Y: h.attended.Range, DY: dattended.Range, DQ: dq.Range, DKV: dkv.Range, DNull: dnull.Range, DKeyScores: dkvScores.Range, DQueryScores: multiplied.Range,
	}
	scratch := b.alloc(pipelines.RoutedAttentionBackwardScratch(c, args))
	args.Scratch = scratch.Range
	record(b, pipelines.NewRoutedAttentionBackward, c, args)
	b.release(scratch, dattended.allocation, queryOnes)
	if scored && h.multiplyQueries {
		b.add(dqScores.Range, multiplied.Range, q.lists()*q.k)
	}
	b.release(multiplied)
	b.sumParts(dnull.Range, h.nullKV, a.Lists, 2*h.heads*h.dimHead)
	b.release(dnull)
	return dq, dkv, dkvScores
}

// scoresOrOnes is the scores of a router's lists, or ones where its scores are straight-through.
func (b *builder) scoresOrOnes(s *routerState) (vk.Range, allocation) {
	if s.usesSoftScores {
		return s.scores.Range, allocation{}
	}
	ones := b.floats(s.lists(), s.k)
	b.fill(ones.Range, math.Float32bits(1))
	return ones.Range, ones
}

// keysBackward records the gradients of the projection of keys and values, and of its normalised inputs. It releases context
// and dkv.
func (h *heavyForward) keysBackward(toKV []projection, context, dkv operand, dcontext gradient) {
	b, kv := h.b, h.kv
	for r, p := range toKV {
		n := p.items * p.rows
		p.parametersBackward(b, context.part(r*n, n), dkv.part(r*n, n))
		dnormed := p.normedBackward(b, dkv.part(r*n, n))
		if h.projectAllKeys {
			b.rmsNormRowsBackward(h.context, h.gamma, dnormed, dcontext, kv.b, kv.n)
		} else {
			b.rmsNormBackward(h.context, h.gamma, dnormed, dcontext, kv, r)
		}
		b.release(dnormed.allocation)
	}
	b.release(context.allocation, dkv.allocation)
}
