package pipelines

import (
	"fmt"
	"math"
	"unsafe"

	"github.com/colt5-vulkan/colt5/shaders"
	"github.com/colt5-vulkan/colt5/vk"
)

// PatchEmbed cuts images into patches and applies LayerNorm to each patch.
//
//	x [B, Channels, Height, Width] f32 in    weight, bias [P1 * P2 * Channels] f32 in
//	y [B * Height/P1 * Width/P2, P1 * P2 * Channels] f32 out    P1 = PatchHeight, P2 = PatchWidth
//	y[patch, (i, j, c)] = (v - mean) / sqrt(var + 1e-5) * weight + bias    v = x[b, c, top + i, left + j]
//
// The length of a patch, less its mean, is below 1.8e19. Patches are row-major in the image. A row of y holds the pixels of a patch row-major, with adjacent channels. Ranges
// start at multiples of 16 bytes where their rows are a multiple of 4 elements (Width for x, P1 * P2 * Channels for the
// others), else at multiples of 4.
//
// Shader: shaders/src/patch_embed.comp. CPU reference: internal/ref.PatchEmbed. Source: arXiv 2010.11929.
type PatchEmbed struct {
	config       PatchEmbedConfig
	rowsPerGroup uint64 // patches per workgroup
	kernel       *vk.Kernel
}

// PatchEmbedConfig is fixed when the kernel is compiled.
type PatchEmbedConfig struct {
	Channels, Height, Width int // of an image
	PatchHeight, PatchWidth int // divisors of Height and Width
}

// PatchEmbedArgs names the memory and the size of one dispatch. It writes all of Y.
type PatchEmbedArgs struct {
	X            vk.Range // [B, Channels, Height, Width]
	Weight, Bias vk.Range // [P1 * P2 * Channels]
	Y            vk.Range // [B * Height/P1 * Width/P2, P1 * P2 * Channels]
	B            int
}

type patchEmbedPush struct{ rows uint32 }

var _ = [1]struct{}{}[unsafe.Sizeof(patchEmbedPush{})-4]

// patchEmbedMaxImage is the largest number of elements of an image: the shader counts its bytes in 32 bits.
const patchEmbedMaxImage = 1<<30 - 1

// NewPatchEmbed compiles the kernel for images of one size.
func NewPatchEmbed(dev *vk.Device, c PatchEmbedConfig) (*PatchEmbed, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	invocationsPerRow, rows := normInvocationsPerRow(c.row(), 256)
	if err := checkIterations(dev.Caps(), "PatchEmbed", fmt.Sprintf("a patch of %d floats", c.row()), 3*(c.row()/int(invocationsPerRow)+1)); err != nil {
		return nil, err
	}
	k, err := newKernel(dev, "patch_embed", map[uint32]uint32{
		shaders.RowNormInvocationsPerRow: invocationsPerRow,
		shaders.RowNormRowsPerWorkgroup:  rows,
		shaders.PatchEmbedChannels:       uint32(c.Channels),
		shaders.PatchEmbedHeight:         uint32(c.Height),
		shaders.PatchEmbedWidth:          uint32(c.Width),
		shaders.PatchEmbedPatchHeight:    uint32(c.PatchHeight),
		shaders.PatchEmbedPatchWidth:     uint32(c.PatchWidth),
	})
	if err != nil {
		return nil, fmt.Errorf("pipelines: PatchEmbed: %w", err)
	}
	return &PatchEmbed{config: c, rowsPerGroup: uint64(rows), kernel: k}, nil
}

func (c PatchEmbedConfig) check() error {
	const op = "PatchEmbed"
	if err := checkPositive(op, dim{"Channels", c.Channels}, dim{"Height", c.Height}, dim{"Width", c.Width},
		dim{"PatchHeight", c.PatchHeight}, dim{"PatchWidth", c.PatchWidth}); err != nil {
		return err
	}
	if c.Height > patchEmbedMaxImage/c.Width || c.Channels > patchEmbedMaxImage/(c.Height*c.Width) {
		return fmt.Errorf("pipelines: %s: Channels %d, Height %d and Width %d, want a product of at most %d",
			op, c.Channels, c.Height, c.Width, patchEmbedMaxImage)
	}
	if c.Height%c.PatchHeight != 0 {
		return fmt.Errorf("pipelines: %s: Height is %d, want a multiple of PatchHeight, %d", op, c.Height, c.PatchHeight)
	}
	if c.Width%c.PatchWidth != 0 {
		return fmt.Errorf("pipelines: %s: Width is %d, want a multiple of PatchWidth, %d", op, c.Width, c.PatchWidth)
	}
	return nil
}

// row is the number of elements of a patch.
func (c PatchEmbedConfig) row() int { return c.PatchHeight * c.PatchWidth * c.Channels }

// patches is the number of patches of an image.
func (c PatchEmbedConfig) patches() int { return c.Height / c.PatchHeight * (c.Width / c.PatchWidth) }

// Record appends one dispatch to a command list.
func (e *PatchEmbed) Record(list *vk.CommandList, a PatchEmbedArgs) error {
	const op = "PatchEmbed"
	b, rows := dim{"B", a.B}, dim{"rows", a.B * e.config.patches()}
	if err := checkPositive(op, b, rows); err != nil {
		return err
	}
	c, h, w, row := dim{"Channels", e.config.Channels}, dim{"Height", e.config.Height}, dim{"Width", e.config.Width}, dim{"P1*P2*Channels", e.config.row()}
	align := rowAlign(row.n)
	if err := firstError(
		checkTensor(op, "x", a.X, rowAlign(w.n), f32, b, c, h, w),
		checkTensor(op, "weight", a.Weight, align, f32, row),
		checkTensor(op, "bias", a.Bias, align, f32, row),
		checkTensor(op, "y", a.Y, align, f32, rows, row),
	); err != nil {
		return err
	}
	groups, err := workgroups(list.Device().Caps(), op, ceilDiv(uint64(rows.n), e.rowsPerGroup))
	if err != nil {
		return err
	}
	return list.Dispatch(vk.Dispatch{
		Kernel: e.kernel,
		Groups: groups,
		Args:   []vk.Access{vk.Read(a.X), vk.Read(a.Weight), vk.Read(a.Bias), vk.Write(a.Y)},
		Push:   vk.Scalars(&patchEmbedPush{uint32(rows.n)}),
		Flops:  8 * float64(rows.n) * float64(row.n),
		Bytes:  float64(a.X.Size() + a.Y.Size() + a.Weight.Size() + a.Bias.Size()),
	})
}

// Close frees the kernel. It may be called again, and on nil.
func (e *PatchEmbed) Close() error {
	if e == nil {
		return nil
	}
	return e.kernel.Close()
}

// PatchPositions is the table of sine-cosine position embeddings for h rows of w patches, [h * w, c], row-major. The c
// columns are four quarters: sin(x * omega), cos(x * omega), sin(y * omega) and cos(y * omega), where x is the patch's
// column, y its row, and omega_i = 10000^(-i / (c/4 - 1)). It is computed in float64 on the host, because GLSL's sine
// has few exact bits. c is a multiple of 4, at least 8.
func PatchPositions(h, w, c int) ([]float32, error) {
	const op = "PatchPositions"
	if err := checkPositive(op, dim{"h", h}, dim{"w", w}, dim{"c", c}, dim{"h*w", h * w}); err != nil {
		return nil, err
	}
	if c%4 != 0 || c < 8 {
		return nil, fmt.Errorf("pipelines: %s: c is %d, want a multiple of 4, at least 8", op, c)
	}
	if h*w > math.MaxInt32/c {
		return nil, fmt.Errorf("pipelines: %s: h*w is %d and c %d, want a product of at most %d", op, h*w, c, math.MaxInt32)
	}
	quarter := c / 4
	table := make([]float32, h*w*c)
	for i := range quarter {
		omega := math.Pow(10000, -float64(i)/float64(quarter-1))
		for patch := range h * w {
			row := table[patch*c:]
			for j, position := range []int{patch % w, patch / w} {
				sin, cos := math.Sincos(float64(position) * omega)
				row[2*j*quarter+i], row[(2*j+1)*quarter+i] = float32(sin), float32(cos)
			}
		}
	}
	return table, nil
}
