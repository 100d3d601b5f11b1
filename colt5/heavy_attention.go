package colt5

import (
	"github.com/colt5-vulkan/colt5/pipelines"
	"github.com/colt5-vulkan/colt5/vk"
)

// heavyAttention is the attention of routed queries to routed keys and values: the weights of the heavy branch.
type heavyAttention struct {
	heavyConfig
	gamma, nullKV, toQ, toKV, toOut *Tensor
}

// heavyConfig is the part of a module's config that concerns its heavy branch.
type heavyConfig struct {
	dim, dimHead, heads int
	rotary              bool
	multiplyKeys        bool // by their scores; values always are
	multiplyQueries     bool
}

func (w *weights) heavyAttention(name string, c heavyConfig) heavyAttention {
	inner := c.heads * c.dimHead
	return heavyAttention{
		heavyConfig: c,
		gamma:       w.add(name+".norm.gamma", ones, c.dim),
		nullKV:      w.add(name+".null_kv", gaussian(1), 2, c.heads, c.dimHead),
		toQ:         w.matrix(name+".to_q.weight", inner, c.dim),
		toKV:        w.matrix(name+".to_kv.weight", 2*inner, c.dim),
		toOut:       w.matrix(name+".to_out.weight", c.dim, inner),
	}
}

// heavyCall is one use of a heavy attention in a plan.
type heavyCall struct {
	*heavyAttention
	b          *builder
	x, context vk.Range // [B, N, C], [B, M, C]
	q, kv      *choice
	shared     bool // keys and values of every token are computed once, and lists choose among them: the lists of windows overlap

	queries, keys, attended operand
}

func (h *heavyCall) inner() int { return h.heads * h.dimHead }

// lists is how many lists of queries there are, each with keys of its own.
func (h *heavyCall) lists() int { return h.q.b * max(h.kv.windows, 1) }

// project computes queries [B, K, H, D], and keys and values [R, B, K, H/R, 2, D], or [B, N, H, 2, D] if they are shared.
func (h *heavyCall) project() {
	b, q := h.b, h.q
	h.queries = b.headOperands(h.dimHead, h.heads, q.b, q.k)
	if b.halves(h.dim) {
		h.projectHalves()
		return
	}
	a := pipelines.LinearArgs{X: h.x, Gamma: h.gamma.memory, Y: h.queries.Range, Batch: q.b, InRows: q.n, Rows: q.k}
	if q.listed {
		a.Gather, a.Valid = q.indices.Range, q.filled.Range
	}
	b.product(h.toQ, 0, 0, pipelines.LinearConfig{Norm: true, Gather: q.listed, Valid: q.listed, Y16: h.queries.half}, a)
	h.projectKeys()
}

// projectHalves is project by way of normed rows of 16 bits.
func (h *heavyCall) projectHalves() {
	b, q, kv := h.b, h.q, h.kv
	chosen := b.rmsNormedChoice(h.x, h.gamma, q)
	var context operand
	out := 2 * h.inner() / kv.r
	if h.shared {
		context = b.rmsNormed(h.context, h.gamma, kv.b*kv.n)
		h.keys = b.headOperands(h.dimHead, 2*h.heads, kv.b, kv.n)
	} else {
		context = b.rmsNormedChoice(h.context, h.gamma, kv)
		h.keys = b.headOperands(h.dimHead, 2*h.heads/kv.r, kv.r, kv.b, kv.k)
	}
	b.product(h.toQ, 0, 0, pipelines.LinearConfig{X16: true, Y16: h.queries.half}, pipelines.LinearArgs{
		X: chosen.Range, Y: h.queries.Range, Batch: 1, Rows: q.b * q.k,
	})
	if h.shared {
		b.product(h.toKV, 0, 0, pipelines.LinearConfig{X16: true, Y16: h.keys.half}, pipelines.LinearArgs{
			X: context.Range, Y: h.keys.Range, Batch: 1, Rows: kv.b * kv.n,
		})
	} else {
		for r := range kv.r {
			count := kv.b * kv.k
			b.product(h.toKV, r*out, out, pipelines.LinearConfig{X16: true, Y16: h.keys.half}, pipelines.LinearArgs{
				X: context.rows(r*count, count), Y: h.keys.rows(r*count, count), Batch: 1, Rows: count,
			})
		}
	}
	b.give(chosen.memory, context.memory)
}

func (h *heavyCall) projectKeys() {
	b, kv := h.b, h.kv
	if h.shared {
		h.keys = b.headOperands(h.dimHead, 2*h.heads, kv.b, kv.n)
		b.product(h.toKV, 0, 0, pipelines.LinearConfig{Norm: true, Y16: h.keys.half}, pipelines.LinearArgs{
			X: h.context, Gamma: h.gamma.memory, Y: h.keys.Range, Batch: 1, Rows: kv.b * kv.n,
		})
		return
	}
	out := 2 * h.inner() / kv.r // a route's heads
	h.keys = b.headOperands(h.dimHead, 2*h.heads/kv.r, kv.r, kv.b, kv.k)
	for r := range kv.r {
		a := pipelines.LinearArgs{
			X: h.context, Gamma: h.gamma.memory, Y: h.keys.rows(r*kv.b*kv.k, kv.b*kv.k), Batch: kv.b, InRows: kv.n, Rows: kv.k,
		}
		if kv.listed {
			a.Gather, a.Valid, a.Lists, a.List = kv.indices.Range, kv.filled.Range, kv.r, r
		}
		b.product(h.toKV, r*out, out, pipelines.LinearConfig{Norm: true, Gather: kv.listed, Valid: kv.listed, Y16: h.keys.half}, a)
	}
}

// rotate turns queries and keys by their positions.
func (h *heavyCall) rotate() {
	if !h.rotary {
		return
	}
	b, q, kv, d := h.b, h.q, h.kv, h.dimHead
	table := b.table("rotary table", pipelines.RotaryTableLen(q.n, d), func() []float32 { return pipelines.RotaryTable(q.n, d) })
	turn := pipelines.RotaryArgs{X: h.queries.Range, Table: table, Lists: q.b, Rows: q.k}
	if q.listed {
		turn.Positions, turn.Valid = q.indices.Range, q.filled.Range
	}
	record(b, pipelines.NewRotary, pipelines.RotaryConfig{Precision: b.precisionOf(h.queries), Heads: h.heads, DimHead: d}, turn)
	if h.shared {
		record(b, pipelines.NewRotary, pipelines.RotaryConfig{Precision: b.precisionOf(h.keys), Heads: h.heads, DimHead: d, Stride: 2 * h.inner(), HeadStride: 2 * d},
			pipelines.RotaryArgs{X: h.keys.Range, Table: table, Lists: kv.b, Rows: kv.n})
		return
	}
	heads := h.heads / kv.r
	for r := range kv.r {
		turn := pipelines.RotaryArgs{
			X: h.keys.rows(r*kv.b*kv.k, kv.b*kv.k), Table: table, Lists: kv.b, Rows: kv.k, Routes: kv.r, Route: r,
		}
		if kv.listed {
			turn.Positions, turn.Valid = kv.indices.Range, kv.filled.Range
		}
		record(b, pipelines.NewRotary, pipelines.RotaryConfig{Precision: b.precisionOf(h.keys), Heads: heads, DimHead: d, Stride: 2 * heads * d, HeadStride: 2 * d}, turn)
	}
}

// attend lets the queries look at the keys, and gives both back.
func (h *heavyCall) attend() {
	b, q, kv := h.b, h.q, h.kv
	h.attended = b.headOperands(h.dimHead, h.heads, q.b, q.k)
	c := pipelines.RoutedAttentionConfig{
		Precision: b.precisionOf(h.keys),
		Heads:     h.heads, DimHead: h.dimHead, Routes: kv.r, Valid: kv.listed, QueryValid: q.listed,
		ScoreValues: kv.soft, ScoreKeys: kv.soft && h.multiplyKeys, ScoreQueries: q.soft && h.multiplyQueries,
	}
	a := pipelines.RoutedAttentionArgs{
		Q: h.queries.Range, KV: h.keys.Range, Null: h.nullKV.memory, Y: h.attended.Range,
		Valid: kv.filled.Range, KeyScores: kv.scores.Range, QueryValid: q.filled.Range,
		Lists: h.lists(), Queries: q.b * q.k / h.lists(), Keys: kv.k, PerItem: max(kv.windows, 1),
	}
	if c.ScoreQueries {
		a.QueryScores = q.scores.Range
	}
	switch {
	case h.shared && kv.listed:
		c.Keys, a.Indices, a.KVRows = pipelines.KeysIndexed, kv.indices.Range, kv.n
	case h.shared:
		c.Keys, a.Keys, a.KVRows, a.Prefix = pipelines.KeysPrefix, 0, kv.n, kv.prefix
	}
	record(b, pipelines.NewRoutedAttention, c, a)
	b.give(h.queries.memory, h.keys.memory)
}

// finish writes the output of every query to its row of y [B, N, C], times its score, plus, with add, that row of the residual.
func (h *heavyCall) finish(y, residual vk.Range, add bool) {
	b, q := h.b, h.q
	c := pipelines.LinearConfig{X16: h.attended.half, Residual: add, Scatter: q.listed, Valid: q.listed, Score: q.soft}
	a := pipelines.LinearArgs{X: h.attended.Range, Y: y, Batch: q.b, Rows: q.k, OutRows: q.n, Score: q.scores.Range}
	if q.listed {
		a.Scatter, a.Valid = q.indices.Range, q.filled.Range
	}
	if add {
		a.Residual = residual
	}
	b.product(h.toOut, 0, 0, c, a)
	b.give(h.attended.memory)
	q.done(b)
	h.kv.done(b)
}
