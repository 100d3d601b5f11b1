package pipelines

import (
	"errors"
	"fmt"
	"unsafe"

	"github.com/colt5-vulkan/colt5/shaders"
	"github.com/colt5-vulkan/colt5/vk"
)

// EmbedBackward is the gradient of Embed's table, for each batch item.
//
//	ids [Items, N] i32 or u8 in    dy [Items, N, C] f32 in    dtable [Items, V, C] f32 out; with the config's Add in and out
//	dtable[b, v] (+)= sum of dy[b, i] over the tokens i with ids[b, i] = v
//
// Ids outside 0..V-1 have no part in it. The first dispatch sorts the tokens of each item by id, the second adds the rows
// of each id. The order of summation of a row depends on the number of its tokens in the item alone. An item costs
// ceil(V/256) * N reads of ids and, because it writes its own table, V * C elements. On CPU drivers N is at most about
// 230,000.
//
// Shader: shaders/src/embed_backward.comp. CPU reference: internal/ref.EmbedBackward.
type EmbedBackward struct {
	config       EmbedBackwardConfig
	rowsPerGroup uint64 // rows of dtable that a workgroup of the sum computes
	sort, sum    *vk.Kernel
}

// EmbedBackwardConfig is fixed when the kernel is compiled.
type EmbedBackwardConfig struct {
	C       int  // elements of a row
	V       int  // rows of the table, at most 2^28
	ByteIDs bool // ids are u8; false: i32
	Add     bool // add to dtable; false: write all of it
}

// EmbedBackwardArgs names the memory and the sizes.
type EmbedBackwardArgs struct {
	IDs      vk.Range // [Items, N]
	DY       vk.Range // [Items, N, C]
	DTable   vk.Range // [Items, V, C]
	Scratch  vk.Range // of EmbedBackwardScratch bytes
	Items, N int
}

type embedBackwardPush struct{ items, n uint32 } // after five addresses

var _ = [1]struct{}{}[unsafe.Sizeof(embedBackwardPush{})-8]

const (
	embedBackwardIDs     = 256     // THREADS of the shader: ids that a workgroup sorts
	embedBackwardWidth   = 32      // WIDTH of the shader: columns of a workgroup, in floats or vec4
	embedBackwardMaxRows = 1 << 28 // rows of a table: the shader counts the bytes of buckets in 32 bits
)

// EmbedBackwardScratch is the size of the scratch memory in bytes: the tokens of each item in order of ids.
func EmbedBackwardScratch(items, n, v int) uint64 {
	if items < 1 || n < 1 || v < 1 {
		return 0
	}
	return uint64(items) * (8*uint64(v) + 4*uint64(n))
}

// NewEmbedBackward compiles the kernels.
func NewEmbedBackward(dev *vk.Device, c EmbedBackwardConfig) (*EmbedBackward, error) {
	const op = "EmbedBackward"
	if err := checkRowLength(op, c.C); err != nil {
		return nil, err
	}
	if c.V < 1 || c.V > embedBackwardMaxRows {
		return nil, fmt.Errorf("pipelines: %s: V is %d, want 1 to %d", op, c.V, embedBackwardMaxRows)
	}
	// Most rows of a large table have no tokens. A workgroup for each would cost more than it writes.
	e := &EmbedBackward{config: c, rowsPerGroup: uint64(min(max(c.V/1024, 1), 64))}
	name, cols := rowVariant("embed_backward_sum", c.C)
	var err error
	e.sort, err = newKernel(dev, "embed_backward_sort", map[uint32]uint32{
		shaders.EmbedBackwardVocabulary: uint32(c.V), shaders.EmbedBackwardIDsAreBytes: specBool(c.ByteIDs),
	})
	if err == nil {
		e.sum, err = newKernel(dev, name, map[uint32]uint32{
			shaders.EmbedBackwardColumns: cols, shaders.EmbedBackwardVocabulary: uint32(c.V), shaders.EmbedBackwardAdd: specBool(c.Add),
			shaders.EmbedBackwardRowsPerWorkgroup: uint32(e.rowsPerGroup),
		})
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("pipelines: %s: %w", op, err), e.Close())
	}
	return e, nil
}

// Record appends two dispatches to a command list.
func (e *EmbedBackward) Record(list *vk.CommandList, a EmbedBackwardArgs) error {
	const op = "EmbedBackward"
	items, n, v, c := dim{"Items", a.Items}, dim{"N", a.N}, dim{"V", e.config.V}, dim{"C", e.config.C}
	if err := checkPositive(op, items, n, dim{"Items*N", items.n * n.n}, dim{"Items*V", items.n * v.n}); err != nil {
		return err
	}
	if a.N > maxRowLength {
		return fmt.Errorf("pipelines: %s: N is %d, want at most %d", op, a.N, maxRowLength)
	}
	id := i32
	if e.config.ByteIDs {
		id = u8
	}
	if err := firstError(
		checkTensor(op, "ids", a.IDs, vec4Align, id, items, n),
		checkTensor(op, "dy", a.DY, rowAlign(c.n), f32, items, n, c),
		checkTensor(op, "dtable", a.DTable, rowAlign(c.n), f32, items, v, c),
		checkRange(op, "scratch", a.Scratch, vec4Align, EmbedBackwardScratch(a.Items, a.N, v.n), "EmbedBackwardScratch"),
	); err != nil {
		return err
	}
	// For every 256 tokens SORT makes an iteration in each of two loops and 64 to compare; SUM makes fewer.
	caps, tokens := list.Device().Caps(), fmt.Sprintf("an item of %d tokens", a.N)
	if err := checkIterations(caps, op, tokens, 66*(a.N/embedBackwardIDs+8)); err != nil {
		return err
	}
	_, cols := rowVariant("", c.n)
	sortGroups, err := workgroups(caps, op, uint64(items.n)*ceilDiv(uint64(v.n), embedBackwardIDs))
	if err != nil {
		return err
	}
	sumGroups, err := workgroups(caps, op, uint64(items.n)*ceilDiv(uint64(v.n), e.rowsPerGroup)*ceilDiv(uint64(cols), embedBackwardWidth))
	if err != nil {
		return err
	}
	bucketBytes, none := 8*uint64(items.n)*uint64(v.n), vk.Range{}
	buckets, order := a.Scratch.Slice(0, bucketBytes), a.Scratch.Slice(bucketBytes, 4*uint64(items.n)*uint64(n.n))
	push := vk.Scalars(&embedBackwardPush{uint32(a.Items), uint32(a.N)})
	if err := list.Dispatch(vk.Dispatch{
		Kernel: e.sort, Groups: sortGroups, Push: push,
		Args:  []vk.Access{vk.Read(a.IDs), vk.Read(none), vk.Read(none), vk.Write(buckets), vk.Write(order)},
		Bytes: float64(a.IDs.Size() + a.Scratch.Size()),
	}); err != nil {
		return err
	}
	sum := vk.Dispatch{
		Kernel: e.sum, Groups: sumGroups, Push: push,
		Args:  []vk.Access{vk.Read(none), vk.Read(a.DY), vk.Write(a.DTable), vk.Read(buckets), vk.Read(order)},
		Flops: float64(a.DY.Size() / 4), Bytes: float64(a.DY.Size() + a.DTable.Size() + a.Scratch.Size()),
	}
	if e.config.Add {
		sum.Args[2] = vk.ReadWrite(a.DTable)
	}
	return list.Dispatch(sum)
}

// Close frees the kernels. It may be called again, and on nil.
func (e *EmbedBackward) Close() error {
	if e == nil {
		return nil
	}
	return errors.Join(e.sort.Close(), e.sum.Close())
}
