package colt5

import (
	"github.com/colt5-vulkan/colt5/pipelines"
	"github.com/colt5-vulkan/colt5/vk"
)

// lightConfig is the part of a module's configuration for its light branch.
type lightConfig struct {
	dim, dimHead, heads int
	window              int  // tokens of a block, or pixels of a patch's side
	causal              bool // sequences only
}

func (c lightConfig) inner() int { return c.heads * c.dimHead }

// lightWeights are the projections of a light branch.
type lightWeights struct{ toQKV, toOut *Tensor }

func (w *weights) light(name string, c lightConfig) lightWeights {
	return lightWeights{
		w.matrix(name+".to_qkv.weight", 3*c.inner(), c.dim),
		w.matrix(name+".to_out.weight", c.dim, c.inner()),
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
	l.b.release(attended.allocation)
}

// windowAttention is the light branch of sequences: LayerNorm and attention to the neighbourhood.
type windowAttention struct {
	lightConfig
	lightWeights
	norm, normBias *Tensor
}

func (w *weights) windowAttention(name string, c lightConfig) windowAttention {
	return windowAttention{
		lightConfig: c, norm: w.add(name+".norm.weight", ones, c.dim), normBias: w.add(name+".norm.bias", zeros, c.dim), lightWeights: w.light(name, c),
	}
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
	parts := (n + maxTokens - 1) / maxTokens
	size := ((n+parts-1)/parts + block - 1) / block * block
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

// phases records the branch for x [B, N, C], four phases for each group of tokens.
func (w *windowAttention) phases(l lightOutput, mask vk.Range, items, n, budget int) phases {
	b, blocksAfter := l.b, 1
	if w.causal {
		blocksAfter = 0
	}
	var list phases
	for _, s := range splitTokens(items, n, max(budget/(b.operandBytes()*(w.dim+4*w.inner())), 1), w.window, 1, blocksAfter) {
		var normed, qkv, attended operand
		inputs, outputs := s.items*s.rows, s.items*s.count
		list = append(list, func() {
			normed = b.allocOperand(w.dim, inputs)
			record(b, pipelines.NewLayerNorm, pipelines.LayerNormConfig{C: w.dim, Y: b.dtypeOf(normed)}, pipelines.LayerNormArgs{
				X: rows(l.x, s.item*n+s.first, inputs, 4*w.dim), Weight: w.norm.memory, Bias: w.normBias.memory, Y: normed.Range, Rows: inputs,
			})
		}, func() {
			qkv = b.allocHeads(w.dimHead, 3*w.heads, inputs)
			b.linear(w.toQKV, 0, 0, pipelines.LinearConfig{X16: normed.is16, Y16: qkv.is16},
				pipelines.LinearArgs{X: normed.Range, Y: qkv.Range, Batch: 1, Rows: inputs})
			b.release(normed.allocation)
		}, func() {
			attended = b.allocHeads(w.dimHead, w.heads, outputs)
			record(b, pipelines.NewWindowAttention,
				pipelines.WindowAttentionConfig{Precision: b.dtypeOf(qkv), Heads: w.heads, DimHead: w.dimHead, Window: w.window, Causal: w.causal},
				pipelines.WindowAttentionArgs{
					QKV: qkv.Range, Mask: mask, Y: attended.Range, Items: s.items, N: n, Rows: s.rows, First: s.first, From: s.from, Count: s.count,
					FirstItem: s.item, MaskItems: items,
				})
			b.release(qkv.allocation)
		}, func() {
			l.out(w.lightWeights, w.lightConfig, attended, s.item*n+s.from, outputs)
		})
	}
	return list
}

// patchAttention is the light branch of images: RMSNorm and attention inside each patch.
type patchAttention struct {
	lightConfig
	lightWeights
	gamma *Tensor
}

func (w *weights) patchAttention(name string, c lightConfig) patchAttention {
	return patchAttention{lightConfig: c, gamma: w.add(name+".norm.gamma", ones, c.dim), lightWeights: w.light(name, c)}
}

// phases records the branch for x [height, width, C], images stacked vertically: three phases for each band of patches.
func (w *patchAttention) phases(l lightOutput, height, width, budget int) phases {
	b, side := l.b, w.window
	patches := height / side                                               // from top to bottom
	maxPatches := max(budget/(b.operandBytes()*4*w.inner()*side*width), 1) // of a band, from top to bottom
	bands := (patches + maxPatches - 1) / maxPatches
	band := (patches + bands - 1) / bands * side
	var list phases
	for top := 0; top < height; top += band {
		var qkv, attended operand
		high := min(band, height-top)
		first, count := top*width, high*width
		list = append(list, func() {
			qkv = b.allocHeads(w.dimHead, 3*w.heads, count)
			a := pipelines.LinearArgs{X: rows(l.x, first, count, 4*w.dim), Y: qkv.Range, Batch: 1, Rows: count}
			var normed operand
			if b.uses16Bit(w.dim) {
				normed = b.rmsNorm(a.X, w.gamma, count)
				a.X = normed.Range
			} else {
				a.Gamma = w.gamma.memory
			}
			b.linear(w.toQKV, 0, 0, pipelines.LinearConfig{Norm: !normed.is16, X16: normed.is16, Y16: qkv.is16}, a)
			b.release(normed.allocation)
		}, func() {
			attended = b.allocHeads(w.dimHead, w.heads, count)
			record(b, pipelines.NewPatchAttention, pipelines.PatchAttentionConfig{Precision: b.dtypeOf(qkv), Heads: w.heads, DimHead: w.dimHead, Patch: side},
				pipelines.PatchAttentionArgs{QKV: qkv.Range, Y: attended.Range, Height: high, Width: width})
			b.release(qkv.allocation)
		}, func() {
			l.out(w.lightWeights, w.lightConfig, attended, first, count)
		})
	}
	return list
}
