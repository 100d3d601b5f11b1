package pipelines

import (
	"fmt"
	"unsafe"

	"github.com/colt5-vulkan/colt5/shaders"
	"github.com/colt5-vulkan/colt5/vk"
)

// Embed is a token embedding: it copies rows of a table by token id.
//
//	ids [Rows] i32 or u8 in    table [V, C] f32 in    y [Rows, C] f32 out    invalid ids [1] u32 in and out, optional
//	y[r] = table[ids[r]]
//
// An id outside 0..V-1 gives zeros and adds 1 to the count of invalid ids, which the caller sets to 0 before.
//
// Shader: shaders/src/embed.comp. CPU reference: internal/ref.Embed.
type Embed struct {
	config EmbedConfig
	kernel *vk.Kernel
}

// EmbedConfig is fixed when the kernel is compiled.
type EmbedConfig struct {
	C       int  // elements of a row
	V       int  // rows of the table
	ByteIDs bool // ids are u8; false: i32
}

// EmbedArgs names the memory and the size of one dispatch.
type EmbedArgs struct {
	IDs        vk.Range // [Rows]
	Table      vk.Range // [V, C]
	Y          vk.Range // [Rows, C]
	InvalidIDs vk.Range // [1]; may be absent only where every id is valid: ByteIDs, with V at least 256
	Rows       int
}

type embedPush struct{ rows uint32 }

var _ = [1]struct{}{}[unsafe.Sizeof(embedPush{})-4]

// NewEmbed compiles the kernel.
func NewEmbed(dev *vk.Device, c EmbedConfig) (*Embed, error) {
	if err := firstError(checkRowLength("Embed", c.C), checkPositive("Embed", dim{"V", c.V})); err != nil {
		return nil, err
	}
	name, cols := rowVariant("embed", c.C)
	k, err := newKernel(dev, name, map[uint32]uint32{
		shaders.RowwiseColumns:   cols,
		shaders.EmbedVocabulary:  uint32(c.V),
		shaders.EmbedIDsAreBytes: specBool(c.ByteIDs),
	})
	if err != nil {
		return nil, fmt.Errorf("pipelines: Embed: %w", err)
	}
	return &Embed{c, k}, nil
}

// Record appends one dispatch to a command list.
func (e *Embed) Record(list *vk.CommandList, a EmbedArgs) error {
	const op = "Embed"
	r, v, c := dim{"Rows", a.Rows}, dim{"V", e.config.V}, dim{"C", e.config.C}
	if err := checkPositive(op, r); err != nil {
		return err
	}
	id := i32
	if e.config.ByteIDs {
		id = u8
	}
	if err := firstError(
		checkTensor(op, "ids", a.IDs, vec4Align, id, r),
		checkTensor(op, "table", a.Table, vec4Align, f32, v, c),
		checkTensor(op, "y", a.Y, vec4Align, f32, r, c),
		checkOptional(op, "invalid ids", a.InvalidIDs, vec4Align, u32, dim{"Counts", 1}),
	); err != nil {
		return err
	}
	if a.InvalidIDs.IsZero() && !(e.config.ByteIDs && e.config.V >= 256) {
		return fmt.Errorf("pipelines: %s: invalid ids is missing, want [Counts 1] u32, 4 bytes: an id may be outside of V %d", op, e.config.V)
	}
	groups, err := rowGroups(list, op, e.config.C, uint64(a.Rows))
	if err != nil {
		return err
	}
	return list.Dispatch(vk.Dispatch{
		Kernel: e.kernel,
		Groups: groups,
		Args:   []vk.Access{vk.Read(a.IDs), vk.Read(a.Table), vk.Write(a.Y), vk.ReadWrite(a.InvalidIDs)},
		Push:   vk.Scalars(&embedPush{uint32(a.Rows)}),
		Bytes:  float64(a.IDs.Size() + 2*a.Y.Size()),
	})
}

// Close frees the kernel. It may be called again, and on nil.
func (e *Embed) Close() error {
	if e == nil {
		return nil
	}
	return e.kernel.Close()
}
