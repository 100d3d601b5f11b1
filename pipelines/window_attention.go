package pipelines

import (
	"fmt"
	"unsafe"

	"github.com/colt5-vulkan/colt5/shaders"
	"github.com/colt5-vulkan/colt5/vk"
)

// WindowAttention is local attention: every token of a sequence attends to its neighbourhood.
//
//	qkv [Items, Rows, 3, H, D] in    y [Items, Count, H, D] out, both in the Precision    mask [MaskItems, N] u8 in, optional
//	y[i] = sum_j softmax_j(q[i] . k[j] / sqrt(D)) v[j] over the valid tokens j that token i attends to; 0 if there are none
//
// Token i attends to j if |i - j| <= Window. With Causal it attends to the tokens j <= i of its own block of Window
// tokens and of the previous block; with Exact to those with j <= i and i - j <= Window. No token attends to a
// masked token, but a masked token has a result. A token that i does not attend to changes no bit of y[i], even if
// it is infinite or NaN. An infinite value that i attends to may be replaced by the largest finite number, if other
// queries of the tile do not attend to it.
//
// A call computes a whole sequence, or the part that starts at token From. Its qkv then starts at token First, at
// or before the first token that the part attends to. The bits of a token do not depend on the part.
//
// With Precision F16 or BF16 products run on cooperative matrices; scores, softmax and sums are float32.
//
// Shader: shaders/src/window_attention.comp. CPU reference: internal/ref.WindowAttention. Source: arXiv 2004.05150,
// 2205.14135.
type WindowAttention struct {
	config  WindowAttentionConfig
	kernels *attentionKernels
}

// WindowAttentionConfig is fixed when the kernel is compiled.
type WindowAttentionConfig struct {
	Heads, DimHead int // H; D, 1 to 128, even with F16 and BF16
	Window         int // at least 1
	Causal         bool
	Exact          bool  // only with Causal: a token attends to the Window tokens before it, not to whole blocks
	Precision      DType // of qkv and y
}

// WindowAttentionArgs is one attention.
type WindowAttentionArgs struct {
	QKV   vk.Range // of tokens First to First+Rows-1
	Mask  vk.Range // 0: padding; absent: all tokens are valid
	Y     vk.Range // of tokens From to From+Count-1
	Items int
	N     int // tokens of an item

	Rows, First int // Rows 0: N
	From, Count int // Count 0: N

	MaskItems, FirstItem int // items of the mask, and the one of item 0; MaskItems 0: Items
}

type windowAttentionPush struct{ n, rows, firstRow, from, count, firstItem, first, end uint32 }

var _ = [1]struct{}{}[unsafe.Sizeof(windowAttentionPush{})-32]

// NewWindowAttention makes the attention for a device. Its kernels are compiled when they are first recorded.
func NewWindowAttention(dev *vk.Device, c WindowAttentionConfig) (*WindowAttention, error) {
	const op = "WindowAttention"
	if err := c.check(op); err != nil {
		return nil, err
	}
	tiles := attentionMatrixTiles
	if c.Window <= 128 {
		tiles = attentionMatrixShort
	}
	k, err := newAttentionKernels(dev, op, attentionConfig{
		name: "window_attention", heads: c.Heads, dimHead: c.DimHead, precision: c.Precision, matrixTiles: tiles, spec: c.spec(),
	})
	if err != nil {
		return nil, err
	}
	return &WindowAttention{c, k}, nil
}

func (c WindowAttentionConfig) check(op string) error {
	if err := firstError(checkHeads(op, c.Heads, c.DimHead, c.Precision), checkPositive(op, dim{"Window", c.Window})); err != nil {
		return err
	}
	if c.Exact && !c.Causal {
		return fmt.Errorf("pipelines: %s: Exact is true without Causal, want it only with Causal: other windows are always exact", op)
	}
	if c.Window >= 1<<30 { // the kernel adds a position and a window in 32 bits
		return fmt.Errorf("pipelines: %s: Window is %d, want less than %d", op, c.Window, 1<<30)
	}
	return nil
}

// spec returns the specialisation constants of shaders/src/include/window_attention.glsl.
func (c WindowAttentionConfig) spec() map[uint32]uint32 {
	return map[uint32]uint32{
		shaders.WindowAttentionWindow: uint32(c.Window), shaders.WindowAttentionCausal: specBool(c.Causal), shaders.WindowAttentionExact: specBool(c.Exact),
	}
}

// meanKeys is the mean number of tokens that a token of n attends to, but for the ends of the sequence.
func (c WindowAttentionConfig) meanKeys(n int) float64 {
	switch {
	case c.Exact:
		return float64(min(c.Window+1, n))
	case c.Causal:
		return min(1.5*float64(c.Window), float64(n))
	}
	return float64(min(2*c.Window+1, n))
}

// Record appends the attention to a command list: one dispatch, or several if it is very large.
func (w *WindowAttention) Record(list *vk.CommandList, a WindowAttentionArgs) error {
	const op = "WindowAttention"
	if a.Rows == 0 {
		a.Rows = a.N
	}
	if a.Count == 0 {
		a.Count = a.N
	}
	if a.MaskItems == 0 {
		a.MaskItems = a.Items
	}
	if err := w.check(op, a); err != nil {
		return err
	}
	c := w.config
	push := windowAttentionPush{
		n: uint32(a.N), rows: uint32(a.Rows), firstRow: uint32(a.First), from: uint32(a.From), count: uint32(a.Count), firstItem: uint32(a.FirstItem),
	}
	return w.kernels.record(list, op, attentionWork{
		queries: a.Count, keys: min(2*c.Window+1, a.N) + attentionCPUTile.queries, querySets: uint64(a.Items) * uint64(c.Heads),
		flops: 4 * float64(a.Items) * float64(a.Count) * float64(c.Heads*c.DimHead) * c.meanKeys(a.N), bytes: float64(a.QKV.Size() + a.Y.Size() + a.Mask.Size()),
		args: []vk.Access{vk.Read(a.QKV), vk.Read(a.Mask), vk.Write(a.Y)},
	}, func(first, end uint32) []byte {
		push.first, push.end = first, end
		return vk.Scalars(&push)
	})
}

// keyRange returns the first token that any of the tokens from .. from+count-1 attends to, and the one after the last.
func (c WindowAttentionConfig) keyRange(from, count, n int) (first, end int) {
	switch {
	case c.Exact:
		return max(from-c.Window, 0), from + count
	case c.Causal:
		return max(from/c.Window-1, 0) * c.Window, from + count
	}
	return max(from-c.Window, 0), min(from+count+c.Window, n)
}

func (w *WindowAttention) check(op string, a WindowAttentionArgs) error {
	c := w.config
	items, rows, n, count, h, d := dim{"Items", a.Items}, dim{"Rows", a.Rows}, dim{"N", a.N}, dim{"Count", a.Count}, dim{"H", c.Heads}, dim{"D", c.DimHead}
	if err := checkPositive(op, items, rows, n, count, dim{"MaskItems", a.MaskItems}, dim{"MaskItems*N", a.MaskItems * a.N}); err != nil {
		return err
	}
	if err := checkRowCount(op, items, rows, dim{"3", 3}, h); err != nil {
		return err
	}
	if err := checkWindowTokens(op, a.N); err != nil {
		return err
	}
	if a.From < 0 || a.Count > a.N-a.From {
		return fmt.Errorf("pipelines: %s: From is %d and Count %d, want a part of the N tokens, %d", op, a.From, a.Count, a.N)
	}
	if first, end := c.keyRange(a.From, a.Count, a.N); a.First < 0 || a.First > first || a.First+a.Rows < end || a.First+a.Rows > a.N {
		return fmt.Errorf("pipelines: %s: First is %d and Rows %d, want a part of the N tokens, %d, with %d to %d, which the queries attend to", op, a.First, a.Rows, a.N, first, end-1)
	}
	if a.FirstItem < 0 || a.FirstItem+a.Items > a.MaskItems {
		return fmt.Errorf("pipelines: %s: FirstItem is %d, want 0 to MaskItems, %d, minus Items, %d", op, a.FirstItem, a.MaskItems, a.Items)
	}
	return firstError(
		c.Precision.checkHeadTensor(op, "qkv", a.QKV, items, rows, dim{"3", 3}, h, d),
		checkOptional(op, "mask", a.Mask, vec4Align, u8, dim{"MaskItems", a.MaskItems}, n),
		c.Precision.checkHeadTensor(op, "y", a.Y, items, count, h, d),
	)
}

// checkWindowTokens checks the tokens of an item: the kernels add a position and a window in 32 bits.
func checkWindowTokens(op string, n int) error {
	if n >= 1<<30 {
		return fmt.Errorf("pipelines: %s: N is %d, want less than %d", op, n, 1<<30)
	}
	return nil
}

// Close frees the kernels.
func (w *WindowAttention) Close() error {
	if w == nil {
		return nil
	}
	return w.kernels.Close()
}
