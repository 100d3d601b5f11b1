package colt5

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

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
	buffers   map[string]bool // state of the PyTorch module that is no parameter here; ignored when loading
	err       error           // the first error of add
	shares    uint64          // how often Share has replaced parameters

	allocStaged func(shape []int) (*Tensor, error) // for tests: allocates what replace uploads to; nil: NewTensor

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
	t := &Tensor{dtype: F32, shape: shape, storage: newStorage(nil)}
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

// rotaryBuffer is the name of the frequencies that PyTorch saves with a module that has rotary_emb. Here they are
// computed.
const rotaryBuffer = ".rotary_emb.inv_freq"

// buffer adds the name of a tensor that is ignored when loading.
func (w *weights) buffer(name string) {
	if w.buffers == nil {
		w.buffers = map[string]bool{}
	}
	w.buffers[name] = true
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

// initial returns the initial values of a parameter, which depend on the seed and the parameter's position only.
func (w *weights) initial(seed uint64) func(i int) ([]float32, error) {
	return func(i int) ([]float32, error) {
		data := make([]float32, w.list[i].Tensor.Len())
		w.list[i].fill(rand.New(rand.NewPCG(seed, uint64(i))), data)
		return data, nil
	}
}

// all returns the indices of the parameters.
func (w *weights) all() []int {
	indices := make([]int, len(w.list))
	for i := range indices {
		indices[i] = i
	}
	return indices
}

func sameShape[T int | int64](got []T, want []int) bool {
	return slices.EqualFunc(got, want, func(a T, b int) bool { return int64(a) == int64(b) })
}

// routingToken adds the routing tokens of a router.
func (w *weights) routingToken(name string, r, c int, o RouterSettings) *Tensor {
	deviation := 1.0
	if o.ScaleRoutingTokens {
		deviation = 1 / math.Sqrt(float64(c))
	}
	return w.add(name, gaussian(deviation), r, c)
}

// bytes is the device memory of the weights, cast copies included, at most maxBytes.
func (w *weights) bytes() uint64 {
	n := w.castBytes
	for _, p := range w.list {
		n = min(n+uint64(p.Tensor.size()), maxBytes)
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
