package colt5

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/colt5-vulkan/colt5/safetensors"
	"github.com/colt5-vulkan/colt5/vk"
)

// Parameter is a weight of a module under its PyTorch name.
type Parameter struct {
	Name   string
	Tensor *Tensor // f32; owned and closed by the module

	fill func(r *rand.Rand, data []float32) // sets the initial values
}

// weights are the parameters of a module. Without a device they have shapes but no memory.
type weights struct {
	dev       *vk.Device
	precision DType
	list      []Parameter
	err       error // the first error of add

	matrices     []*Tensor // weights that products read as 16-bit copies
	castVersions []uint64  // Tensor.version of each matrix when its copy was made
	castList     *vk.CommandList
	castBytes    uint64 // of the copies
}

// add adds a parameter; init sets its elements. After an error, which it keeps in w, it adds nothing.
func (w *weights) add(name string, fill func(*rand.Rand, []float32), shape ...int) *Tensor {
	if w.err != nil {
		return nil
	}
	t := &Tensor{dtype: F32, shape: shape}
	if _, err := elements(F32, shape); err != nil {
		w.err = fmt.Errorf("parameter %s: %w", name, err)
		return nil
	}
	if w.dev != nil {
		var err error
		if t, err = NewTensor(w.dev, F32, shape...); err != nil {
			w.err = fmt.Errorf("parameter %s: %w", name, err)
			return nil
		}
	}
	w.list = append(w.list, Parameter{name, t, fill})
	return t
}

// uniform is PyTorch's distribution of a Linear layer's weight and bias: uniform in +-1/sqrt(in).
func uniform(in int) func(*rand.Rand, []float32) {
	bound := 1 / math.Sqrt(float64(in))
	return func(r *rand.Rand, data []float32) {
		for i := range data {
			data[i] = float32((2*r.Float64() - 1) * bound)
		}
	}
}

// gaussian is a normal distribution with mean 0.
func gaussian(deviation float64) func(*rand.Rand, []float32) {
	return func(r *rand.Rand, data []float32) {
		for i := range data {
			data[i] = float32(r.NormFloat64() * deviation)
		}
	}
}

func zeros(_ *rand.Rand, data []float32) { clear(data) }

func ones(_ *rand.Rand, data []float32) {
	for i := range data {
		data[i] = 1
	}
}

// init sets the initial values, which depend on the seed and the parameter's position only.
func (w *weights) init(ctx context.Context, seed uint64) error {
	for i, p := range w.list {
		data := make([]float32, p.Tensor.Len())
		p.fill(rand.New(rand.NewPCG(seed, uint64(i))), data)
		if err := p.Tensor.Write(ctx, data); err != nil {
			return err
		}
	}
	return nil
}

// load reads a state dict. All names, shapes and dtypes are checked before the first parameter is written.
func (w *weights) load(ctx context.Context, path string) error {
	f, err := safetensors.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := w.matches(f); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	for _, p := range w.list {
		data, err := f.ReadFloat32(p.Name)
		if err == nil {
			err = p.Tensor.Write(ctx, data)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	return nil
}

// matches checks that a file has the parameters and nothing else.
func (w *weights) matches(f *safetensors.File) error {
	var problems []string
	known := map[string]bool{}
	for _, p := range w.list {
		known[p.Name] = true
		info, ok := f.Info(p.Name)
		switch {
		case !ok:
			problems = append(problems, fmt.Sprintf("%s is missing, want %v", p.Name, p.Tensor))
		case !sameShape(info.Shape, p.Tensor.shape):
			problems = append(problems, fmt.Sprintf("%s is %v%s, want %v", p.Name, info.DType, fmt.Sprint(info.Shape), p.Tensor))
		case info.DType != safetensors.F32 && info.DType != safetensors.F16 && info.DType != safetensors.BF16:
			problems = append(problems, fmt.Sprintf("%s is %v, want f32, f16 or bf16", p.Name, info.DType))
		}
	}
	for _, name := range f.Names() {
		if !known[name] {
			problems = append(problems, name+" is not a parameter of this module")
		}
	}
	if problems != nil {
		return errors.New(strings.Join(problems, "; "))
	}
	return nil
}

func sameShape[T int | int64](got []T, want []int) bool {
	return slices.EqualFunc(got, want, func(a T, b int) bool { return int64(a) == int64(b) })
}

// save writes a state dict and replaces the file atomically.
func (w *weights) save(ctx context.Context, path string) error {
	var list []safetensors.Tensor
	for _, p := range w.list {
		shape := make([]int64, len(p.Tensor.shape))
		for i, n := range p.Tensor.shape {
			shape[i] = int64(n)
		}
		list = append(list, safetensors.Tensor{Name: p.Name, DType: safetensors.F32, Shape: shape, Data: func(to io.Writer) error {
			data, err := p.Tensor.Float32(ctx)
			if err != nil {
				return err
			}
			return safetensors.Float32s(data)(to)
		}})
	}
	return safetensors.Write(path, nil, list)
}

// routingToken adds the routing tokens of a router.
func (w *weights) routingToken(name string, r, c int, o RouterSettings) *Tensor {
	deviation := 1.0
	if o.ScaleRoutingTokens {
		deviation = 1 / math.Sqrt(float64(c))
	}
	return w.add(name, gaussian(deviation), r, c)
}

// bytes is the device memory of the weights, cast copies included.
func (w *weights) bytes() uint64 {
	n := w.castBytes
	for _, p := range w.list {
		n += uint64(p.Tensor.size())
	}
	return n
}

func (w *weights) close() error {
	err := w.closeCasts()
	for _, p := range w.list {
		err = errors.Join(err, p.Tensor.Close())
	}
	return err
}
