package pipelines

import (
	"errors"
	"fmt"
	"unsafe"

	"github.com/colt5-vulkan/colt5/shaders"
	"github.com/colt5-vulkan/colt5/vk"
)

// CrossEntropy is the cross-entropy of logits with labels, its sums, and its gradient.
//
//	logits [Items, N, V] f32 in    labels [Items, N] i32 in    upstream [1] f32 in, optional, 1 without it
//	losses [Items, N] f32 out    sums [Items, 2] f32 out, optional: the sum of the item's losses, and the number of its labels
//	dlogits [Items, N, V] f32 out, optional, may be logits    invalid labels [1] u32 in and out
//	losses[b, i] = log(sum_j exp(logits[b, i, j])) - logits[b, i, labels[b, i]]
//	dlogits[b, i, j] = (softmax(logits[b, i])[j] - (j == labels[b, i])) * upstream
//
// A label of -1 is ignored: its loss and gradient are 0, whatever the logits, and it is not in the number of labels. A
// label outside of -1..V-1 has loss and gradient 0 too, and adds 1 to the count of invalid labels, which the caller sets
// to 0 before.
//
// Where the logits do not exist all at once, a dispatch for each part of the rows computes losses, without sums; one without
// logits then computes the sums of the losses.
//
// A logit of -inf excludes a class: probability and gradient are 0, and the loss of its label is +inf. Loss and gradient
// of a row with NaN or +inf, or with only -inf, are NaN.
//
// The order of summation depends on V for a row, and on N for an item. N is at most 2^24, so that the number of labels is
// exact. Ranges start at multiples of 4 bytes.
//
// Shaders: shaders/src/cross_entropy.comp, shaders/src/cross_entropy_sum.comp. CPU reference: internal/ref.CrossEntropy.
type CrossEntropy struct {
	config       CrossEntropyConfig
	rowsPerGroup uint64
	rows, sums   *vk.Kernel
}

// CrossEntropyConfig is fixed when the kernel is compiled.
type CrossEntropyConfig struct {
	V int // classes
}

// CrossEntropyArgs names the memory and the sizes.
type CrossEntropyArgs struct {
	Logits        vk.Range // [Items, N, V]; absent: Losses is read, and only Sums are computed
	Labels        vk.Range // [Items, N]
	Losses        vk.Range // [Items, N]
	Sums          vk.Range // [Items, 2]; absent: not wanted
	DLogits       vk.Range // [Items, N, V]; may be Logits; absent: not wanted
	Upstream      vk.Range // [1], the gradient of the sum of losses; absent: 1. Only with DLogits
	InvalidLabels vk.Range // [1]; absent without Logits
	Items, N      int
}

type (
	crossEntropyPush    struct{ rows uint32 }              // after six addresses
	crossEntropySumPush struct{ items, n, classes uint32 } // after three addresses
)

var (
	_ = [1]struct{}{}[unsafe.Sizeof(crossEntropyPush{})-4]
	_ = [1]struct{}{}[unsafe.Sizeof(crossEntropySumPush{})-12]
)

// crossEntropyMaxRows is the largest number of rows of an item: float32 has all integers up to it.
const crossEntropyMaxRows = 1 << 24

// NewCrossEntropy compiles the kernels.
func NewCrossEntropy(dev *vk.Device, c CrossEntropyConfig) (*CrossEntropy, error) {
	const op = "CrossEntropy"
	if c.V < 1 || c.V > maxRowLength {
		return nil, fmt.Errorf("pipelines: %s: V is %d, want 1 to %d", op, c.V, maxRowLength)
	}
	invocationsPerRow, rows := normInvocationsPerRow(c.V, normInvocations)
	if err := checkIterations(dev.Caps(), op, fmt.Sprintf("a row of %d classes", c.V), 3*(c.V/int(invocationsPerRow)+1)); err != nil {
		return nil, err
	}
	e := &CrossEntropy{config: c, rowsPerGroup: uint64(rows)}
	var err error
	e.rows, err = newKernel(dev, "cross_entropy", map[uint32]uint32{
		shaders.RowNormInvocationsPerRow: invocationsPerRow, shaders.RowNormRowsPerWorkgroup: rows, shaders.CrossEntropyClasses: uint32(c.V),
	})
	if err == nil {
		e.sums, err = newKernel(dev, "cross_entropy_sum", nil)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("pipelines: %s: %w", op, err), e.Close())
	}
	return e, nil
}

// Record appends one dispatch for the rows to a command list, and one for the sums.
func (e *CrossEntropy) Record(list *vk.CommandList, a CrossEntropyArgs) error {
	const op = "CrossEntropy"
	if err := e.check(a); err != nil {
		return err
	}
	if !a.Logits.IsZero() {
		if err := e.recordRows(list, op, a); err != nil {
			return err
		}
	}
	if a.Sums.IsZero() {
		return nil
	}
	groups, err := workgroups(list.Device().Caps(), op, uint64(a.Items))
	if err != nil {
		return err
	}
	return list.Dispatch(vk.Dispatch{
		Kernel: e.sums,
		Groups: groups,
		Args:   []vk.Access{vk.Read(a.Losses), vk.Read(a.Labels), vk.Write(a.Sums)},
		Push:   vk.Scalars(&crossEntropySumPush{uint32(a.Items), uint32(a.N), uint32(e.config.V)}),
		Flops:  float64(a.Items * a.N),
		Bytes:  float64(a.Losses.Size() + a.Labels.Size() + a.Sums.Size()),
	})
}

func (e *CrossEntropy) recordRows(list *vk.CommandList, op string, a CrossEntropyArgs) error {
	rows := a.Items * a.N
	groups, err := workgroups(list.Device().Caps(), op, ceilDiv(uint64(rows), e.rowsPerGroup))
	if err != nil {
		return err
	}
	return list.Dispatch(vk.Dispatch{
		Kernel: e.rows,
		Groups: groups,
		Args: []vk.Access{vk.Read(a.Logits), vk.Read(a.Labels), vk.Write(a.Losses), vk.Write(a.DLogits), vk.Read(a.Upstream),
			vk.ReadWrite(a.InvalidLabels)},
		Push:  vk.Scalars(&crossEntropyPush{uint32(rows)}),
		Flops: 20 * float64(a.Logits.Size()/4), // about: most are those of the exponential
		Bytes: float64(a.Logits.Size() + a.Labels.Size() + a.Losses.Size() + a.DLogits.Size()),
	})
}

func (e *CrossEntropy) check(a CrossEntropyArgs) error {
	const op = "CrossEntropy"
	items, n, v, one := dim{"Items", a.Items}, dim{"N", a.N}, dim{"V", e.config.V}, dim{"Values", 1}
	if err := checkPositive(op, items, n, dim{"Items*N", items.n * n.n}); err != nil {
		return err
	}
	if a.N > crossEntropyMaxRows {
		return fmt.Errorf("pipelines: %s: N is %d, want at most %d", op, a.N, crossEntropyMaxRows)
	}
	if a.DLogits.IsZero() && !a.Upstream.IsZero() {
		return fmt.Errorf("pipelines: %s: upstream has %d bytes, want none without dlogits", op, a.Upstream.Size())
	}
	if a.Logits.IsZero() {
		return e.checkSums(op, a, items, n)
	}
	return firstError(
		checkTensor(op, "logits", a.Logits, wordAlign, f32, items, n, v),
		checkTensor(op, "labels", a.Labels, wordAlign, i32, items, n),
		checkTensor(op, "losses", a.Losses, wordAlign, f32, items, n),
		checkOptional(op, "sums", a.Sums, wordAlign, f32, items, dim{"Sums", 2}),
		checkOptional(op, "dlogits", a.DLogits, wordAlign, f32, items, n, v),
		checkOptional(op, "upstream", a.Upstream, wordAlign, f32, one),
		checkTensor(op, "invalid labels", a.InvalidLabels, wordAlign, u32, dim{"Counts", 1}),
	)
}

// checkSums checks the arguments of sums alone.
func (e *CrossEntropy) checkSums(op string, a CrossEntropyArgs, items, n dim) error {
	if !a.DLogits.IsZero() || !a.InvalidLabels.IsZero() {
		return fmt.Errorf("pipelines: %s: dlogits has %d bytes and invalid labels %d, want none without logits", op, a.DLogits.Size(), a.InvalidLabels.Size())
	}
	return firstError(
		checkTensor(op, "labels", a.Labels, wordAlign, i32, items, n),
		checkTensor(op, "losses", a.Losses, wordAlign, f32, items, n),
		checkTensor(op, "sums", a.Sums, wordAlign, f32, items, dim{"Sums", 2}),
	)
}

// Close frees the kernels. It may be called again, and on nil.
func (e *CrossEntropy) Close() error {
	if e == nil {
		return nil
	}
	return errors.Join(e.rows.Close(), e.sums.Close())
}
