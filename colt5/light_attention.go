package colt5

import (
	"github.com/colt5-vulkan/colt5/pipelines"
	"github.com/colt5-vulkan/colt5/vk"
)

// lightConfig is the part of a module's configuration for its light branch.
type lightConfig struct {
	dim, dimHead, heads int
	window              int // tokens of a block, or pixels of a patch's side

	// Of sequences only:
	causal bool
	exact  bool // with causal: a token attends to window tokens before it, not to whole blocks
	rotary bool // rotary position embedding of queries and keys
	noNorm bool // x is the input of the projections
}

func (c lightConfig) inner() int { return c.heads * c.dimHead }

// lightWeights are the projections of a light branch.
type lightWeights struct{ toQKV, toOut *Tensor }

func (w *weights) light(prefix string, c lightConfig) lightWeights {
	return lightWeights{
		w.matrix(prefix+"to_qkv.weight", 3*c.inner(), c.dim),
		w.matrix(prefix+"to_out.weight", c.dim, c.inner()),
	}
}

// lightBytes is roughly the limit of the light branch's workspace. Longer sequences are processed in groups of tokens.
const lightBytes = 160 << 20

// lightOutput is the output projection of a light branch, for sequences and images.
type lightOutput struct {
	b          *builder
	x, y       vk.Range
	null       *Tensor     // added to the rows of y outside membership; nil: none
	membership *allocation // [rows] u32; nil: every row gets the null token
	residual   bool        // add x
}

// out records the projection of attended [count, H, D] to count rows of y, from the first on.
func (l lightOutput) out(w lightWeights, c lightConfig, attended operand, first, count int) {
	a := pipelines.LinearArgs{X: attended.Range, Y: rows(l.y, first, count, 4*c.dim), Batch: 1, Rows: count}
	if l.residual {
		a.Residual = rows(l.x, first, count, 4*c.dim)
	}
	if l.null != nil {
		a.Bias, a.SkipBias = l.null.memory, rows(l.membership.Range, first, count, 4)
	}
	l.b.linear(w.toOut, 0, 0, pipelines.LinearConfig{X16: attended.is16, Residual: l.residual, Bias: l.null != nil, SkipBias: l.null != nil}, a)
}

// keepAttended keeps projected rows and results of the attention, or releases the results: the projected rows already are.
func (w lightWeights) keepAttended(b *builder, qkv, attended operand) {
	if b.keeping {
		b.keep(w.toQKV, qkv, attended)
		return
	}
	b.release(attended.allocation)
}

// windowAttention is the light branch of sequences, and the layer of a LocalMHA: LayerNorm and attention to the
// neighbourhood.
type windowAttention struct {
	lightConfig
	lightWeights
	norm, normBias *Tensor // nil with noNorm
}

func (w *weights) windowAttention(prefix string, c lightConfig) windowAttention {
	a := windowAttention{lightConfig: c}
	if !c.noNorm {
		a.norm, a.normBias = w.add(prefix+"norm.weight", ones, c.dim), w.add(prefix+"norm.bias", zeros, c.dim)
	}
	a.lightWeights = w.light(prefix, c)
	return a
}

// tokenGroup is the tokens that the light branch processes together: whole items, or a part of one item with its
// neighbourhood.
type tokenGroup struct {
	item, items int
	first, rows int // tokens of an item whose keys and values are needed
	from, count int // tokens of an item whose output is computed
}

// splitTokens splits b items of n tokens into groups of at most maxTokens tokens, rounded up to a block. A token attends
// to its own block, to blocksBefore earlier ones and to blocksAfter later ones.
func splitTokens(b, n, maxTokens, block, blocksBefore, blocksAfter int) []tokenGroup {
	var list []tokenGroup
	if n <= maxTokens {
		each := maxTokens / n
		for item := 0; item < b; item += each {
			list = append(list, tokenGroup{item, min(each, b-item), 0, n, 0, n})
		}
		return list
	}
	size := tokensPerGroup(n, maxTokens, block)
	for item := range b {
		for from := 0; from < n; from += size {
			count := min(size, n-from)
			first, end := max(0, from-blocksBefore*block), min(n, from+count+blocksAfter*block)
			// Tiles of a matrix product have up to 128 rows. A few extra neighbours, where there are any, complete the
			// last tile: kernels that check for its edge take a tenth longer.
			if missing := -(end - first) & 127; 64*missing <= end-first {
				more := min(missing, n-end)
				first, end = first-min(missing-more, first), end+more
			}
			list = append(list, tokenGroup{item, 1, first, end - first, from, count})
		}
	}
	return list
}

// tokensPerGroup is the number of tokens of a group, where an item has more than maxTokens.
func tokensPerGroup(n, maxTokens, block int) int {
	parts := (n + maxTokens - 1) / maxTokens
	return ((n+parts-1)/parts + block - 1) / block * block
}

// countGroups is the number of groups of splitTokens.
func countGroups(items, n, maxTokens, block int) int {
	if n <= maxTokens {
		return (items-1)/(maxTokens/n) + 1
	}
	return items * ((n-1)/tokensPerGroup(n, maxTokens, block) + 1)
}

// phases records the branch for x [B, N, C], four phases for each group of tokens.
func (w *windowAttention) phases(l lightOutput, mask vk.Range, items, n, budget int) phases {
	b, blocksAfter := l.b, 1
	if w.causal {
		blocksAfter = 0
	}
	var list phases
	b.limitTokens(n)
	maxTokens := max(budget/(b.operandBytes()*(w.dim+4*w.inner())), 1)
	if b.keeping {
		maxTokens = items * n // the rows of the whole sequence exist anyway
	}
	if b.limitGroups(countGroups(items, n, maxTokens, w.window)) {
		return nil
	}
	table := w.rotaryTable(b, n)
	for _, s := range splitTokens(items, n, maxTokens, w.window, 1, blocksAfter) {
		list = append(list, w.group(l, mask, table, items, n, s)...)
	}
	return list
}

// group records the branch for a group of tokens of x [items, n, C], in four phases.
func (w *windowAttention) group(l lightOutput, mask, table vk.Range, items, n int, s tokenGroup) phases {
	b := l.b
	var normed, qkv, attended operand
	inputs, outputs := s.items*s.rows, s.items*s.count
	b.limitHeads(inputs, 3, w.heads)
	return phases{func() {
		x := rows(l.x, s.item*n+s.first, inputs, 4*w.dim)
		if w.noNorm {
			normed.Range = x
			return
		}
		normed = b.allocOperand(w.dim, inputs)
		record(b, pipelines.NewLayerNorm, pipelines.LayerNormConfig{C: w.dim, Y: b.dtypeOf(normed)}, pipelines.LayerNormArgs{
			X: x, Weight: w.norm.memory, Bias: w.normBias.memory, Y: normed.Range, Rows: inputs,
		})
	}, func() {
		qkv = b.allocHeads(w.dimHead, 3*w.heads, inputs)
		b.linear(w.toQKV, 0, 0, pipelines.LinearConfig{X16: normed.is16, Y16: qkv.is16},
			pipelines.LinearArgs{X: normed.Range, Y: qkv.Range, Batch: 1, Rows: inputs})
		b.release(normed.allocation)
		w.recordRotary(b, table, qkv, s)
	}, func() {
		attended = b.allocHeads(w.dimHead, w.heads, outputs)
		record(b, pipelines.NewWindowAttention, w.attentionConfig(b, qkv),
			pipelines.WindowAttentionArgs{
				QKV: qkv.Range, Mask: mask, Y: attended.Range, Items: s.items, N: n, Rows: s.rows, First: s.first, From: s.from, Count: s.count,
				FirstItem: s.item, MaskItems: items,
			})
		if !b.keeping {
			b.release(qkv.allocation)
		}
	}, func() {
		l.out(w.lightWeights, w.lightConfig, attended, s.item*n+s.from, outputs)
		w.keepAttended(b, qkv, attended)
	}}
}

// attentionConfig is the attention of projected rows.
func (w *windowAttention) attentionConfig(b *builder, qkv operand) pipelines.WindowAttentionConfig {
	return pipelines.WindowAttentionConfig{
		Precision: b.dtypeOf(qkv), Heads: w.heads, DimHead: w.dimHead, Window: w.window, Causal: w.causal, Exact: w.exact,
	}
}

// queryShift is what is added to the positions of queries. PyTorch numbers the queries of a window as if they were its
// last block, which is one block too far where there is a later block. Only the differences of positions count.
func (c lightConfig) queryShift() int {
	if c.causal {
		return 0
	}
	return c.window
}

// rotaryTable is the table of the rotary position embedding for n tokens.
func (c lightConfig) rotaryTable(b *builder, n int) vk.Range {
	if !c.rotary {
		return vk.Range{}
	}
	return b.rotaryTable(n+c.queryShift(), c.dimHead)
}

// recordRotary records the rotary position embedding of the queries and keys of a group.
func (c lightConfig) recordRotary(b *builder, table vk.Range, qkv operand, s tokenGroup) {
	if !c.rotary {
		return
	}
	rotary := pipelines.RotaryConfig{Precision: b.dtypeOf(qkv), Heads: c.heads, DimHead: c.dimHead, Stride: 3 * c.inner()}
	a := pipelines.RotaryArgs{X: qkv.Range, Table: table, Lists: s.items, Rows: s.rows, First: s.first + c.queryShift()}
	record(b, pipelines.NewRotary, rotary, a)
	a.X, a.First = qkv.from(c.inner()), s.first
	record(b, pipelines.NewRotary, rotary, a)
}

// patchAttention is the light branch of images: RMSNorm and attention inside each patch.
type patchAttention struct {
	lightConfig
	lightWeights
	gamma *Tensor
}

func (w *weights) patchAttention(prefix string, c lightConfig) patchAttention {
	return patchAttention{lightConfig: c, gamma: w.add(prefix+"norm.gamma", ones, c.dim), lightWeights: w.light(prefix, c)}
}

// phases records the branch for x [height, width, C], images stacked vertically: three phases for each band of patches.
func (w *patchAttention) phases(l lightOutput, height, width, budget int) phases {
	b, side := l.b, w.window
	patches := height / side                                               // from top to bottom
	maxPatches := max(budget/(b.operandBytes()*4*w.inner()*side*width), 1) // of a band, from top to bottom
	if b.keeping {
		maxPatches = patches
	}
	bands := (patches + maxPatches - 1) / maxPatches
	band := (patches + bands - 1) / bands * side
	var list phases
	if b.limitGroups(bands) {
		return nil
	}
	for top := 0; top < height; top += band {
		var qkv, attended operand
		high := min(band, height-top)
		first, count := top*width, high*width
		list = append(list, func() {
			qkv = b.allocHeads(w.dimHead, 3*w.heads, count)
			w.project(b, rows(l.x, first, count, 4*w.dim), qkv, count)
		}, func() {
			attended = b.allocHeads(w.dimHead, w.heads, count)
			record(b, pipelines.NewPatchAttention, w.attentionConfig(b, qkv),
				pipelines.PatchAttentionArgs{QKV: qkv.Range, Y: attended.Range, Height: high, Width: width})
			if !b.keeping {
				b.release(qkv.allocation)
			}
		}, func() {
			l.out(w.lightWeights, w.lightConfig, attended, first, count)
			w.keepAttended(b, qkv, attended)
		})
	}
	return list
}

// project records the norm and the projection of count rows of x.
func (w *patchAttention) project(b *builder, x vk.Range, qkv operand, count int) {
	a := pipelines.LinearArgs{X: x, Y: qkv.Range, Batch: 1, Rows: count}
	var normed operand
	if b.uses16Bit(w.dim) {
		normed = b.rmsNorm(x, w.gamma, count)
		a.X = normed.Range
	} else {
		a.Gamma = w.gamma.memory
	}
	b.linear(w.toQKV, 0, 0, pipelines.LinearConfig{Norm: !normed.is16, X16: normed.is16, Y16: qkv.is16}, a)
	b.release(normed.allocation)
}

// attentionConfig is the attention of projected rows.
func (w *patchAttention) attentionConfig(b *builder, qkv operand) pipelines.PatchAttentionConfig {
	return pipelines.PatchAttentionConfig{Precision: b.dtypeOf(qkv), Heads: w.heads, DimHead: w.dimHead, Patch: w.window}
}
