package pipelines

import (
	"errors"
	"fmt"

	"github.com/colt5-vulkan/colt5/vk"
)

// PatchEmbedBackward is the gradient of [PatchEmbed]: that of the images, and those of weight and bias for each image.
//
//	x [B, Channels, Height, Width] f32 in    weight [P1 * P2 * Channels] f32 in
//	dy [B * Height/P1 * Width/P2, P1 * P2 * Channels] f32 in    dx [B, Channels, Height, Width] f32 out, optional
//	dweight, dbias [B, P1 * P2 * Channels] f32 out; with the config's AddParameters in and out
//
// It has no kernel of its own: [Permute] cuts the images into patches, [LayerNormBackward] computes the gradient of the
// patches, and Permute puts that of the pixels back into the images. The batch has at most 2^31-1 elements.
//
// CPU reference: internal/ref.PatchEmbedBackward.
type PatchEmbedBackward struct {
	config  PatchEmbedConfig
	permute *Permute
	norm    *LayerNormBackward
}

// PatchEmbedBackwardConfig is fixed when the kernels are compiled.
type PatchEmbedBackwardConfig struct {
	PatchEmbedConfig
	AddParameters bool // add to dweight and dbias; false: write them
}

// PatchEmbedBackwardArgs names the memory and the size. All ranges start at multiples of 16 bytes. Outputs overlap no
// other range.
type PatchEmbedBackwardArgs struct {
	X              vk.Range // [B, Channels, Height, Width]
	Weight         vk.Range // [P1 * P2 * Channels]
	DY             vk.Range // [B * Height/P1 * Width/P2, P1 * P2 * Channels]
	DX             vk.Range // [B, Channels, Height, Width]; absent: not wanted
	DWeight, DBias vk.Range // [B, P1 * P2 * Channels]
	Scratch        vk.Range // of PatchEmbedBackwardScratch bytes
	B              int
}

// backwardParts are the sizes in bytes of the parts of scratch memory: patches, as much for their gradient, and the scratch
// memory of LayerNormBackward.
func (c PatchEmbedConfig) backwardParts(b int) (patches, norm uint64) {
	patches = 4 * uint64(b) * uint64(c.patches()) * uint64(c.row())
	return (patches + vec4Align - 1) / vec4Align * vec4Align, LayerNormBackwardScratch(b, c.patches(), c.row())
}

// PatchEmbedBackwardScratch is the size of the scratch memory in bytes: patches, their gradient, and what LayerNormBackward
// needs. It is 0 for an invalid config.
func PatchEmbedBackwardScratch(c PatchEmbedConfig, b int) uint64 {
	if c.check() != nil || b < 1 {
		return 0
	}
	patches, norm := c.backwardParts(b)
	return 2*patches + norm
}

// NewPatchEmbedBackward checks the config.
func NewPatchEmbedBackward(dev *vk.Device, c PatchEmbedBackwardConfig) (*PatchEmbedBackward, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	e := &PatchEmbedBackward{config: c.PatchEmbedConfig}
	var err error
	if e.permute, err = NewPermute(dev, PermuteConfig{}); err == nil {
		e.norm, err = NewLayerNormBackward(dev, LayerNormBackwardConfig{C: c.row(), AddParameters: c.AddParameters})
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("pipelines: PatchEmbedBackward: %w", err), e.Close())
	}
	return e, nil
}

// Record appends the dispatches of the parts to a command list.
func (e *PatchEmbedBackward) Record(list *vk.CommandList, a PatchEmbedBackwardArgs) error {
	if err := e.check(a); err != nil {
		return err
	}
	bytes := a.X.Size()
	size, normSize := e.config.backwardParts(a.B)
	patches, dpatches := a.Scratch.Slice(0, bytes), a.Scratch.Slice(size, bytes)
	toPatches, toImages := e.config.axes(a.B)
	toPatches.X, toPatches.Y, toImages.X, toImages.Y = a.X, patches, dpatches, a.DX
	if err := firstError(e.permute.Record(list, toPatches), e.norm.Record(list, LayerNormBackwardArgs{
		X: patches, Weight: a.Weight, DY: a.DY, DX: dpatches, DWeight: a.DWeight, DBias: a.DBias, Scratch: a.Scratch.Slice(2*size, normSize),
		Items: a.B, Rows: e.config.patches(),
	})); err != nil || a.DX.IsZero() {
		return err
	}
	return e.permute.Record(list, toImages)
}

func (e *PatchEmbedBackward) check(a PatchEmbedBackwardArgs) error {
	const op = "PatchEmbedBackward"
	c, b := e.config, dim{"B", a.B}
	rows, row := dim{"rows", a.B * c.patches()}, dim{"P1*P2*Channels", c.row()}
	if err := checkPositive(op, b, rows, dim{"elements", rows.n * row.n}); err != nil {
		return err
	}
	image := []dim{b, {"Channels", c.Channels}, {"Height", c.Height}, {"Width", c.Width}}
	return firstError(
		checkTensor(op, "x", a.X, vec4Align, f32, image...),
		checkTensor(op, "weight", a.Weight, vec4Align, f32, row),
		checkTensor(op, "dy", a.DY, vec4Align, f32, rows, row),
		checkOptional(op, "dx", a.DX, vec4Align, f32, image...),
		checkTensor(op, "dweight", a.DWeight, vec4Align, f32, b, row),
		checkTensor(op, "dbias", a.DBias, vec4Align, f32, b, row),
		checkRange(op, "scratch", a.Scratch, vec4Align, PatchEmbedBackwardScratch(c, a.B), "PatchEmbedBackwardScratch"),
	)
}

// axes returns the permutations from images to patches and back.
func (c PatchEmbedConfig) axes(b int) (toPatches, toImages PermuteArgs) {
	rows, columns, pixels, row := c.Height/c.PatchHeight, c.Width/c.PatchWidth, c.Height*c.Width, c.row()
	toPatches.Shape = []int{b, rows, columns, c.PatchHeight, c.PatchWidth, c.Channels}
	toPatches.Strides = []int{c.Channels * pixels, c.PatchHeight * c.Width, c.PatchWidth, c.Width, 1, pixels}
	toImages.Shape = []int{b, c.Channels, rows, c.PatchHeight, columns, c.PatchWidth}
	toImages.Strides = []int{rows * columns * row, 1, columns * row, c.PatchWidth * c.Channels, row, c.Channels}
	return toPatches, toImages
}

// Close frees the kernels. It may be called again, and on nil.
func (e *PatchEmbedBackward) Close() error {
	if e == nil {
		return nil
	}
	return errors.Join(e.permute.Close(), e.norm.Close())
}
