package colt5

import (
	"strings"

	"github.com/colt5-vulkan/colt5/pipelines"
	"github.com/colt5-vulkan/colt5/vk"
)

// heavyAttention is the weights of the heavy branch: the attention of routed queries to routed keys and values.
type heavyAttention struct {
	heavyConfig
	gamma, nullKV, toQ, toKV, toOut *Tensor
}

// heavyConfig is the part of a module's configuration for its heavy branch.
type heavyConfig struct {
	dim, dimHead, heads int
	rotary              bool
	multiplyKeys        bool // by their scores; values always are
	multiplyQueries     bool
}

func (w *weights) heavyAttention(name string, c heavyConfig) heavyAttention {
	inner := c.heads * c.dimHead
	if c.rotary {
		w.buffer(strings.TrimSuffix(name, "heavy_attn") + rotaryBuffer[1:])
	}
	return heavyAttention{
		heavyConfig: c,
		gamma:       w.add(name+".norm.gamma", ones, c.dim),
		nullKV:      w.add(name+".null_kv", gaussian(1), 2, c.heads, c.dimHead),
		toQ:         w.matrix(name+".to_q.weight", inner, c.dim),
		toKV:        w.matrix(name+".to_kv.weight", 2*inner, c.dim),
		toOut:       w.matrix(name+".to_out.weight", c.dim, inner),
	}
}

// heavyForward is one forward pass of a heavy attention.
type heavyForward struct {
	*heavyAttention
	b              *builder
	x, context     vk.Range // [B, N, C], [B, M, C]
	q, kv          *routerState
	projectAllKeys bool // project keys and values of every token once, because the lists of windows overlap; attention reads them by index

	queries, keys, attended operand
}

func (h *heavyForward) inner() int { return h.heads * h.dimHead }

// lists is the number of query lists, each with its own keys.
func (h *heavyForward) lists() int { return h.q.b * max(h.kv.windows, 1) }

// phases records everything before the output projection. It calls afterTopK once the queries are selected.
func (h *heavyForward) phases(mask, contextMask vk.Range, afterTopK func()) phases {
	b := h.b
	return phases{func() {
		if h.x == h.context && h.q.n == h.kv.n {
			b.recordLogits(h.x, h.q, h.kv)
			return
		}
		b.recordLogits(h.x, h.q)
		b.recordLogits(h.context, h.kv)
	}, func() {
		b.recordRouterTopK(mask, h.q)
		b.recordRouterTopK(contextMask, h.kv)
		afterTopK()
		b.finishRouting(mask, h.q)
		b.finishRouting(contextMask, h.kv)
	}, h.projectInputs, h.rotate, h.attend}
}

// projectInputs records the projections to queries [B, K, H, D], and to keys and values [R, B, K, H/R, 2, D], or [B, N,
// H, 2, D] with projectAllKeys.
func (h *heavyForward) projectInputs() {
	b := h.b
	if h.projectAllKeys {
		b.limitHeads(h.kv.b*h.kv.n, 2, h.heads)
	}
	b.limitHeads(h.kv.lists()*h.kv.k, 2, h.heads/h.kv.r)
	if b.uses16Bit(h.dim) {
		h.projectInputs16()
		return
	}
	h.projectQueries()
	h.projectKeysValues()
}

// normedInputs records the normalised rows that queries, and keys and values, are projected from.
func (h *heavyForward) normedInputs() (selected, context operand) {
	b, kv := h.b, h.kv
	selected = b.rmsNormSelected(h.x, h.gamma, h.q)
	if h.projectAllKeys {
		return selected, b.rmsNorm(h.context, h.gamma, kv.b*kv.n)
	}
	return selected, b.rmsNormSelected(h.context, h.gamma, kv)
}

// projectQueries records the projection to queries alone.
func (h *heavyForward) projectQueries() {
	b, q := h.b, h.q
	b.limitHeads(q.b*q.k, 1, h.heads)
	h.queries = b.allocHeads(h.dimHead, h.heads, q.b, q.k)
	if b.uses16Bit(h.dim) {
		selected := b.rmsNormSelected(h.x, h.gamma, q)
		h.projectQueries16(selected)
		b.release(selected.allocation)
		return
	}
	a := pipelines.LinearArgs{X: h.x, Gamma: h.gamma.memory, Y: h.queries.Range, Batch: q.b, InRows: q.n, Rows: q.k}
	if q.hasLists {
		a.Gather, a.Valid = q.indices.Range, q.valid.Range
	}
	b.linear(h.toQ, 0, 0, pipelines.LinearConfig{Norm: true, Gather: q.hasLists, Valid: q.hasLists, Y16: h.queries.is16}, a)
}

func (h *heavyForward) projectQueries16(selected operand) {
	h.b.linear(h.toQ, 0, 0, pipelines.LinearConfig{X16: true, Y16: h.queries.is16}, pipelines.LinearArgs{
		X: selected.Range, Y: h.queries.Range, Batch: 1, Rows: h.q.b * h.q.k,
	})
}

// projectInputs16 is projectInputs with normalised 16-bit operands.
func (h *heavyForward) projectInputs16() {
	b, q, kv := h.b, h.q, h.kv
	b.limitHeads(q.b*q.k, 1, h.heads)
	h.queries = b.allocHeads(h.dimHead, h.heads, q.b, q.k)
	selected, context := h.normedInputs()
	out := 2 * h.inner() / kv.r
	h.keys = h.allocKeys()
	h.projectQueries16(selected)
	if h.projectAllKeys {
		h.projectKeyRows16(context, h.keys.Range, kv.b*kv.n)
	} else {
		for r := range kv.r {
			count := kv.b * kv.k
			b.linear(h.toKV, r*out, out, pipelines.LinearConfig{X16: true, Y16: h.keys.is16}, pipelines.LinearArgs{
				X: context.rows(r*count, count), Y: h.keys.rows(r*count, count), Batch: 1, Rows: count,
			})
		}
	}
	b.release(selected.allocation, context.allocation)
}

func (h *heavyForward) projectKeyRows16(normed operand, keys vk.Range, count int) {
	h.b.linear(h.toKV, 0, 0, pipelines.LinearConfig{X16: true, Y16: h.keys.is16}, pipelines.LinearArgs{X: normed.Range, Y: keys, Batch: 1, Rows: count})
}

// projectKeyRows records keys and values [count, H, 2, D] of rows of the context.
func (h *heavyForward) projectKeyRows(context, keys vk.Range, count int) {
	b := h.b
	if b.uses16Bit(h.dim) {
		normed := b.rmsNorm(context, h.gamma, count)
		h.projectKeyRows16(normed, keys, count)
		b.release(normed.allocation)
		return
	}
	b.linear(h.toKV, 0, 0, pipelines.LinearConfig{Norm: true, Y16: h.keys.is16}, pipelines.LinearArgs{
		X: context, Gamma: h.gamma.memory, Y: keys, Batch: 1, Rows: count,
	})
}

func (h *heavyForward) projectKeysValues() {
	b, kv := h.b, h.kv
	if h.projectAllKeys {
		h.keys = h.allocKeys()
		h.projectKeyRows(h.context, h.keys.Range, kv.b*kv.n)
		return
	}
	out := 2 * h.inner() / kv.r // a route's heads
	h.keys = h.allocKeys()
	for r := range kv.r {
		a := pipelines.LinearArgs{
			X: h.context, Gamma: h.gamma.memory, Y: h.keys.rows(r*kv.b*kv.k, kv.b*kv.k), Batch: kv.b, InRows: kv.n, Rows: kv.k,
		}
		if kv.hasLists {
			a.Gather, a.Valid, a.Lists, a.List = kv.indices.Range, kv.valid.Range, kv.r, r
		}
		b.linear(h.toKV, r*out, out, pipelines.LinearConfig{Norm: true, Gather: kv.hasLists, Valid: kv.hasLists, Y16: h.keys.is16}, a)
	}
}

// rotate records the rotary position embedding of queries and keys.
func (h *heavyForward) rotate() {
	if h.rotary {
		h.rotateBy(h.b.rotaryTable(h.q.n, h.dimHead), h.queries, h.keys)
	}
}

// rotateBy rotates queries and keys by the angles of a table.
func (h *heavyForward) rotateBy(table vk.Range, queries, keys operand) {
	kv := h.kv
	h.rotateQueries(table, queries)
	if h.projectAllKeys {
		h.rotateKeyRows(table, keys, keys.Range, kv.b, kv.n, 0)
		return
	}
	b, d, heads := h.b, h.dimHead, h.heads/kv.r
	for r := range kv.r {
		turn := pipelines.RotaryArgs{
			X: keys.rows(r*kv.b*kv.k, kv.b*kv.k), Table: table, Lists: kv.b, Rows: kv.k, Routes: kv.r, Route: r,
		}
		if kv.hasLists {
			turn.Positions, turn.Valid = kv.indices.Range, kv.valid.Range
		}
		record(b, pipelines.NewRotary, pipelines.RotaryConfig{Precision: b.dtypeOf(keys), Heads: heads, DimHead: d, Stride: 2 * heads * d, HeadStride: 2 * d}, turn)
	}
}

func (h *heavyForward) rotateQueries(table vk.Range, queries operand) {
	b, q := h.b, h.q
	turn := pipelines.RotaryArgs{X: queries.Range, Table: table, Lists: q.b, Rows: q.k}
	if q.hasLists {
		turn.Positions, turn.Valid = q.indices.Range, q.valid.Range
	}
	record(b, pipelines.NewRotary, pipelines.RotaryConfig{Precision: b.dtypeOf(queries), Heads: h.heads, DimHead: h.dimHead}, turn)
}

// rotateKeyRows rotates keys of items of count tokens, from token first on; keys has the format.
func (h *heavyForward) rotateKeyRows(table vk.Range, keys operand, x vk.Range, items, count, first int) {
	record(h.b, pipelines.NewRotary,
		pipelines.RotaryConfig{Precision: h.b.dtypeOf(keys), Heads: h.heads, DimHead: h.dimHead, Stride: 2 * h.inner(), HeadStride: 2 * h.dimHead},
		pipelines.RotaryArgs{X: x, Table: table, Lists: items, Rows: count, First: first})
}

// attend records the attention and releases queries and keys, unless the layer keeps them.
func (h *heavyForward) attend() {
	h.recordAttention(h.b.keeping)
	if !h.b.keeping {
		h.b.release(h.queries.allocation, h.keys.allocation)
	}
}

// recordAttention records the attention. With clear the rows of empty queries are 0: a backward pass multiplies them by gradients
// of 0.
func (h *heavyForward) recordAttention(clear bool) {
	h.attended = h.b.allocHeads(h.dimHead, h.heads, h.q.b, h.q.k)
	if clear && h.q.hasLists {
		h.b.fill(h.attended.Range, 0)
	}
	h.recordAttentionTo()
}

// recordAttentionTo writes attended, except the rows of empty queries.
func (h *heavyForward) recordAttentionTo() {
	c, a := h.attentionArgs()
	a.Y = h.attended.Range
	record(h.b, pipelines.NewRoutedAttention, c, a)
}

// attentionArgs is the attention of the queries to the keys, without the result.
func (h *heavyForward) attentionArgs() (pipelines.RoutedAttentionConfig, pipelines.RoutedAttentionArgs) {
	b, q, kv := h.b, h.q, h.kv
	c := pipelines.RoutedAttentionConfig{
		Precision: b.dtypeOf(h.keys),
		Heads:     h.heads, DimHead: h.dimHead, Routes: kv.r, Valid: kv.hasLists, QueryValid: q.hasLists,
		ScoreValues: kv.usesSoftScores, ScoreKeys: kv.usesSoftScores && h.multiplyKeys, ScoreQueries: q.usesSoftScores && h.multiplyQueries,
	}
	a := pipelines.RoutedAttentionArgs{
		Q: h.queries.Range, KV: h.keys.Range, Null: h.nullKV.memory,
		Valid: kv.valid.Range, KeyScores: kv.scores.Range, QueryValid: q.valid.Range,
		Lists: h.lists(), Queries: q.b * q.k / h.lists(), KeysPerList: kv.k, PerItem: max(kv.windows, 1),
	}
	if c.ScoreQueries {
		a.QueryScores = q.scores.Range
	}
	switch {
	case h.projectAllKeys && kv.hasLists:
		c.KeySource, a.Indices, a.KVRows = pipelines.KeySourceIndexed, kv.indices.Range, kv.n
	case h.projectAllKeys:
		c.KeySource, a.KeysPerList, a.KVRows, a.WindowSize = pipelines.KeySourcePrefix, 0, kv.n, kv.windowSize
	}
	return c, a
}

// project records the output projection: each query's output times its score goes to its row of y [B, N, C]. With add,
// that row of residual is added.
func (h *heavyForward) project(y, residual vk.Range, add bool) {
	b, q := h.b, h.q
	c := pipelines.LinearConfig{X16: h.attended.is16, Residual: add, Scatter: q.hasLists, Valid: q.hasLists, Score: q.usesSoftScores}
	a := pipelines.LinearArgs{X: h.attended.Range, Y: y, Batch: q.b, Rows: q.k, OutRows: q.n, Score: q.scores.Range}
	if q.hasLists {
		a.Scatter, a.Valid = q.indices.Range, q.valid.Range
	}
	if add {
		a.Residual = residual
	}
	b.linear(h.toOut, 0, 0, c, a)
	if b.keeping {
		b.keep(h.toQ, h.queries, h.keys, h.attended)
	} else {
		b.release(h.attended.allocation)
	}
	q.release(b)
	h.kv.release(b)
}
