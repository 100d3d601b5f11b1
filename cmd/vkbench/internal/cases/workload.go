package cases

import (
	"context"
	"crypto/sha256"
	"fmt"

	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/validate"
	"github.com/colt5-vulkan/colt5/colt5"
	"github.com/colt5-vulkan/colt5/vk"
)

// Workload is a case on a device, ready to run.
type Workload struct {
	Run     func(context.Context) error
	Stats   func() (colt5.CallStats, error) // of the last run
	Outputs []Output
}

// Output is an output of a workload: floats or indices.
type Output struct {
	name      string
	poison    func(context.Context) error                       // writes NaN, or as indices -1
	read      func(context.Context) ([]float32, []int32, error) // one of the two
	constant  bool                                              // all floats may be equal
	rowLength int                                               // of indices
	limit     int                                               // of indices
	check     func(ctx context.Context, floats []float32) error // additional check; nil: none
}

// Validate poisons the outputs, runs the workload once, and checks that all outputs were written with plausible values.
func (w *Workload) Validate(ctx context.Context) error {
	for _, o := range w.Outputs {
		if err := o.poison(ctx); err != nil {
			return err
		}
	}
	if err := w.Run(ctx); err != nil {
		return err
	}
	for _, o := range w.Outputs {
		if err := o.validate(ctx); err != nil {
			return fmt.Errorf("%s: %w", o.name, err)
		}
	}
	return nil
}

// Digest returns a SHA-256 of the outputs of the last run.
func (w *Workload) Digest(ctx context.Context) (sum [sha256.Size]byte, err error) {
	hash := sha256.New()
	for _, o := range w.Outputs {
		floats, indices, err := o.read(ctx)
		if err != nil {
			return sum, fmt.Errorf("%s: %w", o.name, err)
		}
		hash.Write(vk.Bytes(floats))
		hash.Write(vk.Bytes(indices))
	}
	hash.Sum(sum[:0])
	return sum, nil
}

func (o Output) validate(ctx context.Context) error {
	floats, indices, err := o.read(ctx)
	switch {
	case err != nil:
		return err
	case indices != nil:
		return validate.Indices(indices, o.rowLength, o.limit)
	}
	if err := validate.Floats(floats, o.constant); err != nil || o.check == nil {
		return err
	}
	return o.check(ctx, floats)
}

// nanFill returns count elements of NaN, or as integers of -1, which is no index.
func nanFill[T float32 | int32](count int) []T {
	list := make([]T, count)
	raw := vk.Bytes(list)
	for i := range raw {
		raw[i] = 0xff
	}
	return list
}

// FloatOutput is a float output of a module.
func FloatOutput(name string, t *colt5.Tensor) Output {
	return Output{
		name:   name,
		poison: func(ctx context.Context) error { return t.Write(ctx, nanFill[float32](t.Len())) },
		read: func(ctx context.Context) ([]float32, []int32, error) {
			data, err := t.Float32(ctx)
			return data, nil, err
		},
	}
}

// IndexOutput is an output of a module with indices below limit that are unique in each row of the last dimension.
func IndexOutput(name string, t *colt5.Tensor, limit int) Output {
	shape := t.Shape()
	return Output{
		name: name, rowLength: shape[len(shape)-1], limit: limit,
		poison: func(ctx context.Context) error { return t.Write(ctx, nanFill[int32](t.Len())) },
		read: func(ctx context.Context) ([]float32, []int32, error) {
			data, err := t.Int32(ctx)
			return nil, data, err
		},
	}
}
