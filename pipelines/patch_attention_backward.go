package pipelines

import (
	"unsafe"

	"github.com/colt5-vulkan/colt5/vk"
)

// PatchAttentionBackward computes the gradients of the queries, keys and values of [PatchAttention] from that of its
// result. It computes the softmax again.
//
//	qkv [Height, Width, 3, Heads, DimHead] in    y, dy [Height, Width, Heads, DimHead] in
//	dqkv [Height, Width, 3, Heads, DimHead] out
//	s_ij = q_i . k_j / sqrt(DimHead)    p_i = softmax(s_i) over the pixels j of i's patch
//	ds_ij = p_ij * (dy_i . v_j - dy_i . y_i)
//	dq_i = sum_j ds_ij * k_j / sqrt(DimHead)    dk_j = sum_i ds_ij * q_i / sqrt(DimHead)    dv_j = sum_i p_ij * dy_i
//
// qkv, dy and dqkv have the Precision of the config. With 16 bits, p and ds are rounded to it before they are multiplied
// with rows; softmax and sums are float32.
//
// Two dispatches: dq and the softmax of the queries, then dk and dv. The order of summation depends on DimHead and Patch.
//
// Shader: shaders/src/patch_attention_backward.comp. CPU reference: internal/ref.PatchAttentionBackward. Source: arXiv
// 2205.14135.
type PatchAttentionBackward struct {
	config  PatchAttentionConfig
	kernels *attentionBackwardKernels
}

// PatchAttentionBackwardArgs is one backward pass.
type PatchAttentionBackwardArgs struct {
	QKV           vk.Range // of the forward call
	Y             vk.Range // the result of the forward call
	DY            vk.Range // the gradient of the result
	DQKV          vk.Range // all of it is written
	Scratch       vk.Range // of PatchAttentionBackwardScratch bytes
	Height, Width int      // multiples of Patch, in pixels; Height is the sum over all images, or that of a band of one image
}

type patchAttentionBackwardPush struct{ width, first, end uint32 } // after five addresses

var _ = [1]struct{}{}[unsafe.Sizeof(patchAttentionBackwardPush{})-12]

// PatchAttentionBackwardScratch is the size of the scratch memory in bytes.
func PatchAttentionBackwardScratch(c PatchAttentionConfig, height, width int) uint64 {
	if c.Heads < 1 || height < 1 || width < 1 {
		return 0
	}
	return attentionStateBytes * uint64(height) * uint64(width) * uint64(c.Heads)
}

// NewPatchAttentionBackward makes the backward pass for a device, with the config of the forward pass. Record compiles
// kernels when it first needs them.
func NewPatchAttentionBackward(dev *vk.Device, c PatchAttentionConfig) (*PatchAttentionBackward, error) {
	const op = "PatchAttentionBackward"
	if err := c.check(op); err != nil {
		return nil, err
	}
	k, err := newAttentionBackwardKernels(dev, op, attentionConfig{
		name: "patch_attention_backward", heads: c.Heads, dimHead: c.DimHead, precision: c.Precision, spec: c.spec(),
	})
	if err != nil {
		return nil, err
	}
	return &PatchAttentionBackward{c, k}, nil
}

// Record appends two dispatches to a command list, or more if they are very large.
func (p *PatchAttentionBackward) Record(list *vk.CommandList, a PatchAttentionBackwardArgs) error {
	const op = "PatchAttentionBackward"
	if err := p.check(op, a); err != nil {
		return err
	}
	c, tokens := p.config, p.config.Patch*p.config.Patch
	units := uint64(a.Height/c.Patch) * uint64(a.Width/c.Patch) * uint64(c.Heads)
	return p.kernels.recordStages(list, op, attentionBackwardWork{
		sets: units, rows: tokens, others: tokens, pairs: float64(units) * float64(tokens) * float64(tokens),
		bytes: float64(a.QKV.Size() + a.DY.Size() + a.Scratch.Size()), args: []vk.Access{vk.Read(a.QKV), vk.Read(a.DY), vk.Read(a.Y)},
	}, a.Scratch, a.DQKV, func(first, end uint32) []byte {
		return vk.Scalars(&patchAttentionBackwardPush{uint32(a.Width), first, end})
	})
}

func (p *PatchAttentionBackward) check(op string, a PatchAttentionBackwardArgs) error {
	c := p.config
	if err := c.checkSizes(op, a.Height, a.Width); err != nil {
		return err
	}
	h, w, three, heads, dimHead := dim{"Height", a.Height}, dim{"Width", a.Width}, dim{"3", 3}, dim{"Heads", c.Heads}, dim{"DimHead", c.DimHead}
	return firstError(
		c.Precision.checkHeadTensor(op, "qkv", a.QKV, h, w, three, heads, dimHead),
		c.Precision.checkHeadTensor(op, "y", a.Y, h, w, heads, dimHead),
		c.Precision.checkHeadTensor(op, "dy", a.DY, h, w, heads, dimHead),
		c.Precision.checkHeadTensor(op, "dqkv", a.DQKV, h, w, three, heads, dimHead),
		checkRange(op, "scratch", a.Scratch, vec4Align, PatchAttentionBackwardScratch(c, a.Height, a.Width), "PatchAttentionBackwardScratch"),
	)
}

// Close frees the kernels. It may be called again, and on nil.
func (p *PatchAttentionBackward) Close() error {
	if p == nil {
		return nil
	}
	return p.kernels.Close()
}
