package pipelines

import (
	"fmt"
	"unsafe"

	"github.com/colt5-vulkan/colt5/vk"
)

// WindowAttention is the attention of every token of a sequence to its neighbourhood.
//
//	qkv [Items, Rows, 3, H, D] in the Precision    mask [MaskItems, N] u8 in, optional    y [Items, Count, H, D] likewise out
//	y[i] = sum_j softmax_j(q[i] . k[j] / sqrt(D)) v[j] over the valid tokens j that token i sees; 0 if there are none
//
// Token i sees j if |i - j| <= Window; that is in its own block of Window tokens and in both neighbours. With Causal it sees the tokens of its
// own block and of the one before, j <= i. A masked token is seen by none, but gets its result. What a token does not see changes no bit of its
// result, be it infinite or NaN; a value that it sees may count as the largest number then, where others of its tile do not see it.
//
// A call computes the whole sequence, or the part of it that starts at token From; its qkv then starts at token First, at or before
// the first token that the part sees. The bits of a token do not depend on the part.
//
// With Precision F16 or BF16 products run on cooperative matrices; scores, softmax and sums are float32.
//
// Shader: shaders/window_attention.comp. Reference: internal/ref.WindowAttention. Source: arXiv 2004.05150, 2205.14135.
type WindowAttention struct {
	config  WindowAttentionConfig
	kernels *attentionKernels
}

// WindowAttentionConfig is baked into the kernel.
type WindowAttentionConfig struct {
	Heads, DimHead int // H; D, 1 to 128, even with F16 and BF16
	Window         int // at least 1
	Causal         bool
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

	MaskItems, FirstItem int // the mask's items, and which of them is item 0; MaskItems 0: Items
}

type windowAttentionPush struct{ n, rows, firstRow, from, count, firstItem, first, groups uint32 }

const (
	_ = uint(32 - unsafe.Sizeof(windowAttentionPush{}))
	_ = uint(unsafe.Sizeof(windowAttentionPush{}) - 32)
)

// NewWindowAttention checks the config. Kernels are compiled when Record first needs them.
func NewWindowAttention(dev *vk.Device, c WindowAttentionConfig) (*WindowAttention, error) {
	const op = "WindowAttention"
	if err := firstError(attentionHeads(op, c.Heads, c.DimHead, c.Precision), checkPositive(op, dim{"Window", c.Window})); err != nil {
		return nil, err
	}
	if c.Window >= 1<<30 { // sums of a place and a window are below 2^32
		return nil, fmt.Errorf("pipelines: %s: Window is %d, want less than %d", op, c.Window, 1<<30)
	}
	list := attentionMatrixTiles
	if c.Window <= 128 {
		list = attentionMatrixShort
	}
	k, err := newAttentionKernels(dev, op, attentionConfig{
		name: "window_attention", dimHead: c.DimHead, precision: c.Precision, matrices: list,
		spec: map[uint32]uint32{8: uint32(c.Heads), 9: uint32(c.Window), 10: specBool(c.Causal)},
	})
	if err != nil {
		return nil, err
	}
	return &WindowAttention{c, k}, nil
}

// Record adds the attention to a tape: one dispatch, or several if it is very large.
func (w *WindowAttention) Record(t *vk.CommandList, a WindowAttentionArgs) error {
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
	if err := w.check(a); err != nil {
		return err
	}
	c := w.config
	push := windowAttentionPush{
		n: uint32(a.N), rows: uint32(a.Rows), firstRow: uint32(a.First), from: uint32(a.From), count: uint32(a.Count), firstItem: uint32(a.FirstItem),
	}
	seen := float64(min(2*c.Window+1, a.N))
	if c.Causal {
		seen = min(1.5*float64(c.Window), float64(a.N))
	}
	return w.kernels.record(t, op, attentionWork{
		queries: a.Count, keys: min(2*c.Window+1, a.N) + attentionCPU.queries, units: uint64(a.Items) * uint64(c.Heads),
		flops: 4 * float64(a.Items) * float64(a.Count) * float64(c.Heads*c.DimHead) * seen, bytes: float64(a.QKV.Size() + a.Y.Size() + a.Mask.Size()),
		args: []vk.Access{vk.Read(a.QKV), vk.Read(a.Mask), vk.Write(a.Y)},
	}, func(first, groups uint32) []byte {
		push.first, push.groups = first, groups
		return vk.Scalars(&push)
	})
}

// sees are the first token that any of from .. from+count-1 sees, and the one after the last.
func (c WindowAttentionConfig) sees(from, count, n int) (first, end int) {
	if c.Causal {
		return max(from/c.Window-1, 0) * c.Window, from + count
	}
	return max(from-c.Window, 0), min(from+count+c.Window, n)
}

func (w *WindowAttention) check(a WindowAttentionArgs) error {
	const op = "WindowAttention"
	c := w.config
	items, rows, n, count, h, d := dim{"Items", a.Items}, dim{"Rows", a.Rows}, dim{"N", a.N}, dim{"Count", a.Count}, dim{"H", c.Heads}, dim{"D", c.DimHead}
	if err := checkPositive(op, items, rows, n, count, dim{"MaskItems", a.MaskItems}, dim{"MaskItems*N", a.MaskItems * a.N}); err != nil {
		return err
	}
	if err := attentionRows(op, items, rows, dim{"3", 3}, h); err != nil {
		return err
	}
	if a.N >= 1<<30 {
		return fmt.Errorf("pipelines: %s: N is %d, want less than %d", op, a.N, 1<<30)
	}
	if a.From < 0 || a.Count > a.N-a.From {
		return fmt.Errorf("pipelines: %s: From is %d and Count %d, want a part of N, %d", op, a.From, a.Count, a.N)
	}
	if first, end := c.sees(a.From, a.Count, a.N); a.First < 0 || a.First > first || a.First+a.Rows < end || a.First+a.Rows > a.N {
		return fmt.Errorf("pipelines: %s: First is %d and Rows %d, want a part of N, %d, with tokens %d to %d, which the queries see", op, a.First, a.Rows, a.N, first, end-1)
	}
	if a.FirstItem < 0 || a.FirstItem+a.Items > a.MaskItems {
		return fmt.Errorf("pipelines: %s: FirstItem is %d, want 0 to MaskItems %d less Items %d", op, a.FirstItem, a.MaskItems, a.Items)
	}
	return firstError(
		c.Precision.heads(op, "qkv", a.QKV, items, rows, dim{"3", 3}, h, d),
		checkOptional(op, "mask", a.Mask, vec4Align, u8, dim{"MaskItems", a.MaskItems}, n),
		c.Precision.heads(op, "y", a.Y, items, count, h, d),
	)
}

// Close frees the kernels.
func (w *WindowAttention) Close() error {
	if w == nil {
		return nil
	}
	return w.kernels.Close()
}
