package train

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
)

// IgnoreLabel is the label of a position that has none.
const IgnoreLabel = -1

// Batch is the input of a step. Its slices are reused for later steps.
type Batch struct {
	Items, Length int
	IDs           []uint8 // [Items, Length]: the bytes of the items, 0 where the mask is 0
	Mask          []uint8 // [Items, Length]: 1 for a byte, 0 for padding; nil: no padding
	Labels        []int32 // [Items, Length] of language models, [Items] of documents; IgnoreLabel: none

	Targets []float32 // [Items, n] of Graph.MeanSquaredError; of no Batches of this package
}

// reset sets the sizes, with undefined elements.
func (b *Batch) reset(items, length, labels int, masked bool) {
	b.Items, b.Length = items, length
	b.IDs, b.Labels = resized(b.IDs, items*length), resized(b.Labels, labels)
	if masked {
		b.Mask = resized(b.Mask, items*length)
	} else {
		b.Mask = nil
	}
}

func resized[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n)
	}
	return s[:n]
}

// Batches makes the batches of a run. The batch of a step depends on the step alone, so that a run that resumes has the
// batches of one that was not interrupted.
type Batches interface {
	// Batch fills in the batch of a step, from 0 on.
	Batch(ctx context.Context, step int64, b *Batch) error
}

// Data is what batches of a language model are made from: a Corpus, or a [bytes.Reader].
type Data interface {
	io.ReaderAt
	Size() int64
}

// BatchOptions are the sizes of batches.
type BatchOptions struct {
	Items  int    // at least 1
	Length int    // bytes of an item: at least 1
	Seed   uint64 // of random batches
}

func (o BatchOptions) check(op string) error {
	if o.Items < 1 {
		return fmt.Errorf("train: %s: Items is %d, want at least 1", op, o.Items)
	}
	if o.Length < 1 {
		return fmt.Errorf("train: %s: Length is %d, want at least 1", op, o.Length)
	}
	if o.Length > math.MaxInt32/o.Items {
		return fmt.Errorf("train: %s: Items*Length is %d*%d, want at most %d", op, o.Items, o.Length, math.MaxInt32)
	}
	return nil
}

// RandomBatches are batches of a language model at random positions of the data.
type RandomBatches struct {
	data    Data
	options BatchOptions
}

// NewRandomBatches makes batches from data of at least Length + 2 bytes. Item b of step t is the Length bytes from
//
//	SplitMix64(Seed * 2^32 + t * Items + b) mod (size - Length - 1)
//
// on, and the label of each byte is the byte after it.
func NewRandomBatches(data Data, o BatchOptions) (*RandomBatches, error) {
	if err := o.check("NewRandomBatches"); err != nil {
		return nil, err
	}
	if n := data.Size(); n < int64(o.Length)+2 {
		return nil, fmt.Errorf("train: NewRandomBatches: data has %d bytes, want at least Length + 2, %d", n, o.Length+2)
	}
	return &RandomBatches{data, o}, nil
}

// Batch implements Batches.
func (r *RandomBatches) Batch(ctx context.Context, step int64, b *Batch) error {
	o := r.options
	b.reset(o.Items, o.Length, o.Items*o.Length, false)
	buffer := make([]byte, o.Length+1)
	for item := range o.Items {
		if err := ctx.Err(); err != nil {
			return err
		}
		start := randomIndex(o.Seed, step, o.Items, item, uint64(r.data.Size()-int64(o.Length)-1))
		if err := readFull(r.data, buffer, int64(start)); err != nil {
			return fmt.Errorf("train: step %d: item %d at byte %d: %w", step, item, start, err)
		}
		b.setText(item, buffer)
	}
	return nil
}

// setText sets an item to text without its last byte, and its labels to text without its first.
func (b *Batch) setText(item int, text []byte) {
	copy(b.IDs[item*b.Length:], text[:b.Length])
	for i, label := range text[1:] {
		b.Labels[item*b.Length+i] = int32(label)
	}
}

// readFull reads all of p.
func readFull(r io.ReaderAt, p []byte, off int64) error {
	n, err := r.ReadAt(p, off)
	if n == len(p) { // io.EOF at the end is no error
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		return fmt.Errorf("%d of %d bytes were read: %w", n, len(p), io.ErrUnexpectedEOF)
	}
	return err
}

// Windows are batches that cover data from its start to its end, to measure the loss of held-out data.
type Windows struct {
	data    Data
	options BatchOptions
	overlap int
}

// NewWindows makes batches in which every byte of the data but the first is the label of one position: those of Length
// bytes each that follow each other, each of which starts overlap bytes before the end of the one before. The bytes of
// the overlap have a label only in the first of the two, so overlap is how many bytes a prediction sees at least, as
// far as there are as many. The last window, which may be shorter, is padded, and so is the last batch. Seed has no
// effect.
func NewWindows(data Data, o BatchOptions, overlap int) (*Windows, error) {
	if err := o.check("NewWindows"); err != nil {
		return nil, err
	}
	if overlap < 0 || overlap >= o.Length {
		return nil, fmt.Errorf("train: NewWindows: overlap is %d, want 0 to Length - 1, %d", overlap, o.Length-1)
	}
	if data.Size() < 2 {
		return nil, fmt.Errorf("train: NewWindows: data has %d bytes, want at least 2", data.Size())
	}
	return &Windows{data, o, overlap}, nil
}

// windows is the number of windows.
func (w *Windows) windows() int64 {
	stride := int64(w.options.Length - w.overlap)
	labels := w.data.Size() - 1
	return 1 + max(labels-int64(w.options.Length)+stride-1, 0)/stride
}

// Steps is the number of batches.
func (w *Windows) Steps() int64 {
	return (w.windows() + int64(w.options.Items) - 1) / int64(w.options.Items)
}

// Batch implements Batches, for steps 0 to Steps - 1.
func (w *Windows) Batch(ctx context.Context, step int64, b *Batch) error {
	o := w.options
	if step < 0 || step >= w.Steps() {
		return fmt.Errorf("train: Windows.Batch: step is %d, want 0 to %d", step, w.Steps()-1)
	}
	b.reset(o.Items, o.Length, o.Items*o.Length, true)
	clear(b.IDs)
	clear(b.Mask)
	for i := range b.Labels {
		b.Labels[i] = IgnoreLabel
	}
	buffer := make([]byte, o.Length+1)
	for item := range o.Items {
		window := step*int64(o.Items) + int64(item)
		if err := ctx.Err(); err != nil || window >= w.windows() {
			return err
		}
		start := window * int64(o.Length-w.overlap)
		text := buffer[:min(int64(len(buffer)), w.data.Size()-start)]
		if err := readFull(w.data, text, start); err != nil {
			return fmt.Errorf("train: window %d at byte %d: %w", window, start, err)
		}
		first := item * o.Length
		copy(b.IDs[first:], text[:len(text)-1])
		for i := range text[1:] {
			b.Mask[first+i] = 1
			if window == 0 || i >= w.overlap {
				b.Labels[first+i] = int32(text[i+1])
			}
		}
	}
	return nil
}
