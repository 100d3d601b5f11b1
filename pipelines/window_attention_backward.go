package pipelines

import (
	"unsafe"

	"github.com/colt5-vulkan/colt5/vk"
)

// WindowAttentionBackward computes the gradients of the queries, keys and values of [WindowAttention] from that of its
// result. It computes the softmax again.
//
//	qkv [Items, N, 3, H, D] in    mask [Items, N] u8 in, optional    y, dy [Items, N, H, D] in
//	dqkv [Items, N, 3, H, D] out
//	s_ij = q_i . k_j / sqrt(D)    p_i = softmax(s_i) over the tokens j that token i attends to
//	ds_ij = p_ij * (dy_i . v_j - dy_i . y_i)
//	dq_i = sum_j ds_ij * k_j / sqrt(D)    dk_j = sum_i ds_ij * q_i / sqrt(D)    dv_j = sum_i p_ij * dy_i
//
// qkv, dy and dqkv have the Precision of the config. With 16 bits, p and ds are rounded to it before they are multiplied
// with rows; softmax and sums are float32.
//
// The key and value of a masked token are not read and have gradient 0, and so does a query that attends to no token. A
// masked token still has a query. An infinite or NaN element of a row makes gradients of rows around it NaN.
//
// Two dispatches: dq and the softmax of the queries, then dk and dv. The order of summation depends on D, the window and
// the position of the token.
//
// Shader: shaders/src/window_attention_backward.comp. CPU reference: internal/ref.WindowAttentionBackward. Source: arXiv
// 2205.14135.
type WindowAttentionBackward struct {
	config  WindowAttentionConfig
	kernels *attentionBackwardKernels
}

// WindowAttentionBackwardArgs is one backward pass over whole items.
type WindowAttentionBackwardArgs struct {
	QKV     vk.Range // of the forward call
	Mask    vk.Range // 0: padding; absent: all tokens are valid
	Y       vk.Range // the result of the forward call
	DY      vk.Range // the gradient of the result
	DQKV    vk.Range // all of it is written
	Scratch vk.Range // of WindowAttentionBackwardScratch bytes
	Items   int
	N       int // tokens of an item
}

type windowAttentionBackwardPush struct{ n, first, end uint32 } // after six addresses

var _ = [1]struct{}{}[unsafe.Sizeof(windowAttentionBackwardPush{})-12]

// WindowAttentionBackwardScratch is the size of the scratch memory in bytes.
func WindowAttentionBackwardScratch(c WindowAttentionConfig, items, n int) uint64 {
	if c.Heads < 1 || items < 1 || n < 1 {
		return 0
	}
	return attentionStateBytes * uint64(items) * uint64(n) * uint64(c.Heads)
}

// NewWindowAttentionBackward makes the backward pass for a device, with the config of the forward pass. Record compiles
// kernels when it first needs them.
func NewWindowAttentionBackward(dev *vk.Device, c WindowAttentionConfig) (*WindowAttentionBackward, error) {
	const op = "WindowAttentionBackward"
	if err := c.check(op); err != nil {
		return nil, err
	}
	k, err := newAttentionBackwardKernels(dev, op, attentionConfig{
		name: "window_attention_backward", heads: c.Heads, dimHead: c.DimHead, precision: c.Precision, spec: c.spec(),
	})
	if err != nil {
		return nil, err
	}
	return &WindowAttentionBackward{c, k}, nil
}

// Record appends two dispatches to a command list, or more if they are very large.
func (w *WindowAttentionBackward) Record(list *vk.CommandList, a WindowAttentionBackwardArgs) error {
	const op = "WindowAttentionBackward"
	if err := w.check(op, a); err != nil {
		return err
	}
	c := w.config
	reach := 2*c.Window + 64 // most tokens that a tile of tokens attends to, or that attend to it
	return w.kernels.recordStages(list, op, attentionBackwardWork{
		sets: uint64(a.Items) * uint64(c.Heads), rows: a.N, others: min(reach, a.N),
		pairs: float64(a.Items) * float64(a.N) * float64(c.Heads) * c.meanKeys(a.N),
		bytes: float64(a.QKV.Size() + a.DY.Size() + a.Scratch.Size() + a.Mask.Size()),
		args:  []vk.Access{vk.Read(a.QKV), vk.Read(a.Mask), vk.Read(a.DY), vk.Read(a.Y)},
	}, a.Scratch, a.DQKV, func(first, end uint32) []byte {
		return vk.Scalars(&windowAttentionBackwardPush{uint32(a.N), first, end})
	})
}

func (w *WindowAttentionBackward) check(op string, a WindowAttentionBackwardArgs) error {
	c := w.config
	items, n, three, h, d := dim{"Items", a.Items}, dim{"N", a.N}, dim{"3", 3}, dim{"H", c.Heads}, dim{"D", c.DimHead}
	if err := checkPositive(op, items, n, dim{"Items*N", a.Items * a.N}); err != nil {
		return err
	}
	if err := checkRowCount(op, items, n, three, h); err != nil {
		return err
	}
	if err := checkWindowTokens(op, a.N); err != nil {
		return err
	}
	return firstError(
		c.Precision.checkHeadTensor(op, "qkv", a.QKV, items, n, three, h, d),
		checkOptional(op, "mask", a.Mask, vec4Align, u8, items, n),
		c.Precision.checkHeadTensor(op, "y", a.Y, items, n, h, d),
		c.Precision.checkHeadTensor(op, "dy", a.DY, items, n, h, d),
		c.Precision.checkHeadTensor(op, "dqkv", a.DQKV, items, n, three, h, d),
		checkRange(op, "scratch", a.Scratch, vec4Align, WindowAttentionBackwardScratch(c, a.Items, a.N), "WindowAttentionBackwardScratch"),
	)
}

// Close frees the kernels. It may be called again, and on nil.
func (w *WindowAttentionBackward) Close() error {
	if w == nil {
		return nil
	}
	return w.kernels.Close()
}
