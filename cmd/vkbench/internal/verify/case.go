package verify

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/colt5-vulkan/colt5/colt5"
	"github.com/colt5-vulkan/colt5/internal/cli/scope"
	"github.com/colt5-vulkan/colt5/internal/golden"
	"github.com/colt5-vulkan/colt5/vk"
)

// setupFunc creates the module and the tensors of a golden case in a scope. Errors may be left to the scope.
type setupFunc func(*scope.Scope, *golden.Case) (*instance, error)

// instance is a golden case on a device.
type instance struct {
	tensors
	forward    forwardFunc
	parameters []colt5.Parameter
	routers    bool                            // forward has routing records
	compare    func(values, *comparison) error // with the golden case

	// upstream returns the gradients of outputs, given the outputs; nil: the golden case's, under the same names.
	upstream func(values) (map[string][]float32, error)
}

// tensors are those of a call, by the names that golden cases use. An optional one may be missing.
type tensors struct{ inputs, outputs map[string]*colt5.Tensor }

// forwardFunc runs forward on tensors, or adds it to the graph whose values they are. Unless records is nil, it stores the
// routing records in it.
type forwardFunc func(ctx context.Context, t tensors, records *[]colt5.RoutingRecord) error

// check runs a case twice, and once more with routing records, and compares. It returns the values of the first run.
// With gradients it compares those too.
func check(s *scope.Scope, c *golden.Case, setup setupFunc, gradients bool, found *comparison) (first values, err error) {
	x, err := setup(s, c)
	if err = errors.Join(err, s.Err()); err != nil {
		return first, err
	}
	ctx := s.Context()
	if first, err = x.run(ctx, 0, nil); err != nil {
		return first, err
	}
	second, err := x.run(ctx, 1, nil)
	if err != nil {
		return first, err
	}
	found.sameBits(first, second, "the second run has different bits")
	if x.routers {
		recorded, err := x.run(ctx, 2, &first.records)
		if err != nil {
			return first, err
		}
		found.sameBits(first, recorded, "a run with routing records has different bits")
	}
	if err := x.compare(first, found); err != nil || !gradients {
		return first, err
	}
	return first, x.checkGradients(s, c, first, found)
}

// run poisons the outputs, runs forward, and reads the outputs.
func (x *instance) run(ctx context.Context, i int, records *[]colt5.RoutingRecord) (values, error) {
	if err := x.poison(ctx, i); err != nil {
		return values{}, err
	}
	if err := x.forward(ctx, x.tensors, records); err != nil {
		return values{}, err
	}
	return x.read(ctx)
}

// poison fills the outputs with NaN, or as integers with values that are no indices. The bits depend on the run, so
// that elements that are not written differ between runs.
func (x *instance) poison(ctx context.Context, run int) error {
	for _, t := range x.outputs {
		fill := bytes.Repeat([]byte{0xff, 0xff, 0xff - byte(run), 0xff}, t.Len())
		var err error
		if t.DType() == colt5.I32 {
			data := make([]int32, t.Len())
			copy(vk.Bytes(data), fill)
			err = t.Write(ctx, data)
		} else {
			data := make([]float32, t.Len())
			copy(vk.Bytes(data), fill)
			err = t.Write(ctx, data)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (x *instance) read(ctx context.Context) (values, error) {
	v := values{floats: map[string][]float32{}, ints: map[string][]int32{}, bits: map[string][]byte{}}
	for name, t := range x.outputs {
		var err error
		if t.DType() == colt5.I32 {
			v.ints[name], err = t.Int32(ctx)
			v.bits[name] = vk.Bytes(v.ints[name])
		} else {
			v.floats[name], err = t.Float32(ctx)
			v.bits[name] = vk.Bytes(v.floats[name])
		}
		if err != nil {
			return values{}, err
		}
	}
	return v, nil
}

// values are outputs on the host, by name.
type values struct {
	floats  map[string][]float32
	ints    map[string][]int32
	bits    map[string][]byte     // of both
	records []colt5.RoutingRecord // of the module's routers
}

// writeDigests writes a line "CASE OUTPUT SHA256" for each output, sorted by name.
func (v values) writeDigests(w io.Writer, name string) {
	for _, output := range slices.Sorted(maps.Keys(v.bits)) {
		fmt.Fprintf(w, "%s %s %x\n", name, output, sha256.Sum256(v.bits[output]))
	}
}
