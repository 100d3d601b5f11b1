package pipelines

import (
	"fmt"
	"unsafe"

	"github.com/colt5-vulkan/colt5/shaders"
	"github.com/colt5-vulkan/colt5/vk"
)

// PatchAttention is full attention inside each square patch of an image.
//
//	qkv [Height, Width, 3, Heads, DimHead] in    y [Height, Width, Heads, DimHead] out, both in the Precision
//	y[i, h] = sum_j softmax_j(q[i, h] . k[j, h] / sqrt(DimHead)) v[j, h]    over the pixels j of i's patch
//
// A pixel has the q of all heads, then the k of all, then the v of all, as a product with [3*Heads*DimHead, C] writes
// them.
//
// With Precision F16 or BF16 products run on cooperative matrices; scores, softmax and sums are float32.
//
// Shader: shaders/src/patch_attention.comp. CPU reference: internal/ref.PatchAttention.
type PatchAttention struct {
	config  PatchAttentionConfig
	kernels *attentionKernels
}

// PatchAttentionConfig is fixed when the kernel is compiled.
type PatchAttentionConfig struct {
	Heads     int
	DimHead   int   // 1 to 128, even with F16 and BF16
	Patch     int   // side of a patch in pixels, 1 to 1024
	Precision DType // of qkv and y
}

// PatchAttentionArgs is one attention. It reads QKV and writes Y.
type PatchAttentionArgs struct {
	QKV, Y        vk.Range
	Height, Width int // multiples of Patch, in pixels; Height is the sum over all images, or that of a band of one image
}

type patchAttentionPush struct{ width, first, end uint32 }

var _ = [1]struct{}{}[unsafe.Sizeof(patchAttentionPush{})-12]

// NewPatchAttention makes the attention for a device. Its kernels are compiled when they are first recorded.
func NewPatchAttention(dev *vk.Device, c PatchAttentionConfig) (*PatchAttention, error) {
	const op = "PatchAttention"
	if err := c.check(op); err != nil {
		return nil, err
	}
	k, err := newAttentionKernels(dev, op, attentionConfig{
		name: "patch_attention", heads: c.Heads, dimHead: c.DimHead, precision: c.Precision, matrixTiles: attentionMatrixWide,
		spec: c.spec(),
	})
	if err != nil {
		return nil, err
	}
	return &PatchAttention{c, k}, nil
}

func (c PatchAttentionConfig) check(op string) error {
	if err := checkHeads(op, c.Heads, c.DimHead, c.Precision); err != nil {
		return err
	}
	if c.Patch < 1 || c.Patch > 1024 {
		return fmt.Errorf("pipelines: %s: Patch is %d, want 1 to 1024", op, c.Patch)
	}
	return nil
}

// spec returns the specialisation constants of shaders/src/include/patch_attention.glsl.
func (c PatchAttentionConfig) spec() map[uint32]uint32 {
	return map[uint32]uint32{shaders.PatchAttentionPatchSize: uint32(c.Patch)}
}

// Record appends the attention to a command list: one dispatch, or several if it is very large.
func (p *PatchAttention) Record(list *vk.CommandList, a PatchAttentionArgs) error {
	const op = "PatchAttention"
	if err := p.check(op, a); err != nil {
		return err
	}
	c, tokens := p.config, p.config.Patch*p.config.Patch
	units := uint64(a.Height/c.Patch) * uint64(a.Width/c.Patch) * uint64(c.Heads)
	return p.kernels.record(list, op, attentionWork{
		queries: tokens, keys: tokens, querySets: units,
		flops: 4 * float64(c.DimHead) * float64(units) * float64(tokens) * float64(tokens),
		bytes: float64(a.QKV.Size() + a.Y.Size()),
		args:  []vk.Access{vk.Read(a.QKV), vk.Write(a.Y)},
	}, func(first, end uint32) []byte {
		return vk.Scalars(&patchAttentionPush{uint32(a.Width), first, end})
	})
}

// checkSizes checks the size of the image.
func (c PatchAttentionConfig) checkSizes(op string, height, width int) error {
	h, w := dim{"Height", height}, dim{"Width", width}
	if err := checkPositive(op, h, w); err != nil {
		return err
	}
	for _, d := range []dim{h, w} {
		if d.n%c.Patch != 0 {
			return fmt.Errorf("pipelines: %s: %s is %d, want a multiple of Patch, %d", op, d.name, d.n, c.Patch)
		}
	}
	return checkRowCount(op, h, w, dim{"3", 3}, dim{"Heads", c.Heads})
}

func (p *PatchAttention) check(op string, a PatchAttentionArgs) error {
	c := p.config
	if err := c.checkSizes(op, a.Height, a.Width); err != nil {
		return err
	}
	h, w, three, heads, dimHead := dim{"Height", a.Height}, dim{"Width", a.Width}, dim{"3", 3}, dim{"Heads", c.Heads}, dim{"DimHead", c.DimHead}
	return firstError(
		c.Precision.checkHeadTensor(op, "qkv", a.QKV, h, w, three, heads, dimHead),
		c.Precision.checkHeadTensor(op, "y", a.Y, h, w, heads, dimHead),
	)
}

// Close frees the kernels.
func (p *PatchAttention) Close() error {
	if p == nil {
		return nil
	}
	return p.kernels.Close()
}
