package train

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"strings"

	"github.com/colt5-vulkan/colt5/internal/errtext"
	"github.com/colt5-vulkan/colt5/pipelines"
	"github.com/colt5-vulkan/colt5/vk"
)

// Parameter is a tensor that an Optimizer updates.
type Parameter struct {
	Name  string   // unique; where it ends in ".weight" and the shape has two dimensions, the parameter decays
	Shape []int    // of a float32 tensor
	Data  vk.Range // its memory, from a multiple of 16 bytes on
}

func (p Parameter) elements() int {
	n := 1
	for _, d := range p.Shape {
		n *= d
	}
	return n
}

func (p Parameter) decays() bool { return strings.HasSuffix(p.Name, ".weight") && len(p.Shape) == 2 }

// Optimizer updates parameters by AdamW, and has the memory of their gradients. Everything that it needs from step to
// step is in device memory, so that the host waits for nothing:
//
//	o, err := train.NewOptimizer(ctx, dev, parameters, train.OptimizerConfig{Clip: 1})
//	for i := range microBatches {
//		// submit the forward and backward pass of part i, which writes the parts of o.Gradients(i), and o.Loss(i)
//		err = o.SubmitGradients(ctx, i)
//	}
//	err = o.SubmitStep(ctx)        // the parameters change
//	log, err := o.Records(ctx, 0)  // loss, norm, rate, .. of all steps so far
//
// RecordGradients and RecordStep record the same into a command list of the caller.
//
// The gradients are those of (sum of losses) * loss scale, not of the mean: the optimiser divides by the count of
// labels. The gradients of micro-batches are added in a balanced binary tree of their numbers, in float32, with zeros
// for numbers up to a power of two.
//
// An Optimizer is used by one goroutine at a time.
type Optimizer struct {
	dev        *vk.Device
	config     OptimizerConfig
	parameters []Parameter
	offsets    []int // of the parameters in an arena, in elements
	elements   int   // of an arena, without the loss

	arenas               []*vk.Buffer // gradients and loss, one more than the levels of the tree
	m, v                 *vk.Buffer
	state, norm, scratch *vk.Buffer
	records, table       *vk.Buffer // table: of AdamW

	adamW        *pipelines.AdamW
	gradientNorm *pipelines.GradientNorm
	stepState    *pipelines.OptimizerState
	add          *pipelines.Add

	lists       map[int]*vk.CommandList // those that SubmitGradients and SubmitStep submit, by micro-batch; stepList
	firstRecord int                     // step of the oldest record: that of the last Load
}

// lossElements is the space of the loss behind the gradients: the sum of losses, the count of labels, and a padding.
const lossElements = 4

// NewOptimizer allocates gradients and moments, which are 0, and compiles the kernels. The caller must call Close; the
// memory of the parameters stays the caller's.
func NewOptimizer(ctx context.Context, dev *vk.Device, parameters []Parameter, c OptimizerConfig) (*Optimizer, error) {
	o := &Optimizer{dev: dev, config: c.withDefaults(), parameters: append([]Parameter(nil), parameters...)}
	err := o.config.check()
	if err == nil {
		err = o.layout()
	}
	if err == nil {
		err = o.checkMemory()
	}
	if err == nil {
		err = o.allocate(ctx)
	}
	if err == nil {
		err = o.compile()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("train: NewOptimizer: %w", err), o.Close())
	}
	return o, nil
}

// layout checks the parameters and sets their offsets: one after another, each from a multiple of 4 elements on.
func (o *Optimizer) layout() error {
	if len(o.parameters) == 0 {
		return errors.New("there are 0 parameters, want at least 1")
	}
	names := map[string]bool{}
	for i, p := range o.parameters {
		if p.Name == "" || names[p.Name] {
			return fmt.Errorf("parameter %d has the name %s, want a unique one", i, errtext.Quote(p.Name))
		}
		names[p.Name] = true
		elements := 1
		for _, d := range p.Shape {
			if elements = elements * min(max(d, 0), math.MaxInt32); elements < 1 || elements > math.MaxInt32 {
				return fmt.Errorf("parameter %s has shape %v, want sizes of at least 1 and at most %d elements",
					errtext.Name(p.Name), p.Shape, math.MaxInt32)
			}
		}
		o.offsets = append(o.offsets, o.elements)
		o.elements += (p.elements() + 3) / 4 * 4
	}
	return nil
}

// checkMemory checks the memory of the parameters.
func (o *Optimizer) checkMemory() error {
	for _, p := range o.parameters {
		if p.Data.Device() != o.dev || p.Data.Size() != 4*uint64(p.elements()) {
			return fmt.Errorf("parameter %s has %d bytes, want %d, on the device of the optimiser",
				errtext.Name(p.Name), p.Data.Size(), 4*p.elements())
		}
		if p.Data.Offset()%16 != 0 {
			return fmt.Errorf("parameter %s starts at byte %d of its buffer, want a multiple of 16", errtext.Name(p.Name), p.Data.Offset())
		}
	}
	return nil
}

// levels is the height of the tree in which micro-batches are added.
func (c OptimizerConfig) levels() int { return bits.Len(uint(c.MicroBatches - 1)) }

// bufferSizes are the sizes of an optimiser's buffers.
type bufferSizes struct{ gradients, moments, state, norm, scratch, records, table uint64 }

func (o *Optimizer) sizes() bufferSizes {
	c, bytes := o.config, 4*uint64(o.elements)
	return bufferSizes{
		gradients: bytes + 4*lossElements, moments: bytes, state: pipelines.OptimizerStateBytes, norm: 8,
		scratch: pipelines.GradientNormScratch(o.elements), records: uint64(c.Records) * pipelines.OptimizerRecordBytes,
		table: pipelines.AdamWTableBytes(o.updated()),
	}
}

// Memory is the device memory of an optimiser in bytes, without that of the parameters, whose Data is not used. The
// error is that of NewOptimizer.
func (c OptimizerConfig) Memory(parameters []Parameter) (uint64, error) {
	o := &Optimizer{config: c.withDefaults(), parameters: parameters}
	err := o.config.check()
	if err == nil {
		err = o.layout()
	}
	if err != nil {
		return 0, fmt.Errorf("train: OptimizerConfig.Memory: %w", err)
	}
	s := o.sizes()
	return uint64(o.config.levels()+1)*s.gradients + 2*s.moments + s.state + s.norm + s.scratch + s.records + s.table, nil
}

func (o *Optimizer) allocate(ctx context.Context) error {
	zero, err := o.dev.NewCommandList(vk.CommandListConfig{Name: "zero"})
	if err != nil {
		return err
	}
	alloc := func(name string, bytes uint64) (b *vk.Buffer) {
		if err != nil {
			return nil
		}
		if b, err = o.dev.NewBuffer(name, bytes); err == nil {
			err = zero.Fill(b.Range(), 0)
		}
		return b
	}
	s := o.sizes()
	for range o.config.levels() + 1 {
		o.arenas = append(o.arenas, alloc("gradients", s.gradients))
	}
	o.m, o.v = alloc("first moments", s.moments), alloc("second moments", s.moments)
	o.state, o.norm, o.scratch = alloc("optimiser state", s.state), alloc("norm", s.norm), alloc("norm scratch", s.scratch)
	o.records, o.table = alloc("records", s.records), alloc("table of parameters", s.table)
	if err == nil {
		err = zero.Run(ctx)
	}
	if err == nil {
		err = o.dev.Upload(ctx, vk.Transfer{Range: o.table.Range(), Data: vk.Bytes(pipelines.AdamWTable(o.updated()))})
	}
	if err := errors.Join(err, zero.Close()); err != nil {
		return fmt.Errorf("%d parameters, %d elements: %w", len(o.parameters), o.elements, err)
	}
	return o.setState(ctx, State{LossScale: o.config.LossScale.Initial})
}

func (o *Optimizer) compile() (err error) {
	a := o.config.AdamW
	o.adamW, err = pipelines.NewAdamW(o.dev, pipelines.AdamWConfig{Beta1: a.Beta1, Beta2: a.Beta2, Eps: a.Eps, Decay: a.Decay})
	if err != nil {
		return err
	}
	if o.gradientNorm, err = pipelines.NewGradientNorm(o.dev, pipelines.GradientNormConfig{}); err != nil {
		return err
	}
	if o.stepState, err = pipelines.NewOptimizerState(o.dev, o.config.state()); err != nil {
		return err
	}
	o.add, err = pipelines.NewAdd(o.dev, pipelines.AddConfig{})
	return err
}

// Config returns the config with its defaults in place.
func (o *Optimizer) Config() OptimizerConfig { return o.config }

// Gradients is where the gradients of micro-batch i are written: those of all parameters in order, each from a multiple
// of 4 elements on. The padding between them must stay 0. The range is absent if there is no micro-batch i; so also those
// of Gradient and Loss.
func (o *Optimizer) Gradients(i int) vk.Range { return o.part(i, 0, 4*uint64(o.elements)) }

// Gradient is the part of Gradients(i) that belongs to a parameter, by its position in the list of NewOptimizer.
func (o *Optimizer) Gradient(i, parameter int) vk.Range {
	if parameter < 0 || parameter >= len(o.parameters) {
		return vk.Range{}
	}
	return o.part(i, 4*uint64(o.offsets[parameter]), o.parameters[parameter].Data.Size())
}

// Loss is where the loss of micro-batch i is written, as two float32 from a multiple of 16 bytes on: the sum of the
// losses of its labels, and their count.
func (o *Optimizer) Loss(i int) vk.Range { return o.part(i, 4*uint64(o.elements), 8) }

// LossScale is the float32 that the gradients of the loss are multiplied by: the gradient of the sum of losses in the
// backward pass. It starts at a multiple of 16 bytes.
func (o *Optimizer) LossScale() vk.Range {
	return o.state.Range().Slice(pipelines.OptimizerStateScale, 4)
}

// part is a part of the memory that micro-batch i writes. Before it, the sums of as many subtrees are waiting as i has
// bits, each in an arena of its own.
func (o *Optimizer) part(i int, offset, size uint64) vk.Range {
	if i < 0 || i >= o.config.MicroBatches {
		return vk.Range{}
	}
	return o.arenas[bits.OnesCount(uint(i))].Range().Slice(offset, size)
}

// RecordGradients records what follows the backward pass of micro-batch i: it adds the gradients of those subtrees of
// the binary tree that are complete with it. The micro-batches are recorded in order.
func (o *Optimizer) RecordGradients(list *vk.CommandList, i int) error {
	if i < 0 || i >= o.config.MicroBatches {
		return fmt.Errorf("train: Optimizer.RecordGradients: i is %d, want 0 to MicroBatches - 1, %d", i, o.config.MicroBatches-1)
	}
	top := bits.OnesCount(uint(i))
	sums := bits.TrailingZeros(^uint(i)) // the subtrees that end with i
	if i == o.config.MicroBatches-1 {
		sums = top // the subtrees to the right have no gradients: they are 0
	}
	for ; sums > 0; sums-- {
		a, b := o.arenas[top-1].Range(), o.arenas[top].Range()
		if err := o.add.Record(list, pipelines.AddArgs{A: a, B: b, Y: a, N: o.elements + lossElements}); err != nil {
			return fmt.Errorf("train: Optimizer.RecordGradients: %w", err)
		}
		top--
	}
	return nil
}

// RecordStep records the update of the parameters: norm and clipping of the gradients, learning rate, AdamW, and the
// next loss scale. Gradients with an infinity or a NaN change nothing but the loss scale.
func (o *Optimizer) RecordStep(list *vk.CommandList) error {
	if err := o.recordStep(list); err != nil {
		return fmt.Errorf("train: Optimizer.RecordStep: %w", err)
	}
	return nil
}

func (o *Optimizer) recordStep(list *vk.CommandList) error {
	norm, state := o.norm.Range(), o.state.Range()
	if err := o.gradientNorm.Record(list, pipelines.GradientNormArgs{
		X: o.Gradients(0), Norm: norm, Scratch: o.scratch.Range(), N: o.elements,
	}); err != nil {
		return err
	}
	if err := o.stepState.Record(list, pipelines.OptimizerStateArgs{
		Norm: norm, Loss: o.Loss(0), State: state, Records: o.records.Range(), Capacity: o.config.Records,
	}); err != nil {
		return err
	}
	return o.adamW.Record(list, pipelines.AdamWArgs{
		Parameters: o.updated(), Table: o.table.Range(), G: o.Gradients(0), M: o.m.Range(), V: o.v.Range(), State: state,
	})
}

// updated is the parameters for AdamW.
func (o *Optimizer) updated() []pipelines.AdamWParameter {
	list := make([]pipelines.AdamWParameter, len(o.parameters))
	for i, p := range o.parameters {
		list[i] = pipelines.AdamWParameter{P: p.Data, N: p.elements(), Decays: p.decays()}
	}
	return list
}

// stepList is the key of the list of SubmitStep in Optimizer.lists.
const stepList = -1

// SubmitGradients submits what RecordGradients records for micro-batch i, and does not wait for it.
func (o *Optimizer) SubmitGradients(ctx context.Context, i int) error {
	return o.submit(ctx, i, func(list *vk.CommandList) error { return o.RecordGradients(list, i) })
}

// SubmitStep submits what RecordStep records, and does not wait for it.
func (o *Optimizer) SubmitStep(ctx context.Context) error {
	return o.submit(ctx, stepList, o.RecordStep)
}

// submit submits a list, which it records the first time.
func (o *Optimizer) submit(ctx context.Context, key int, record func(*vk.CommandList) error) error {
	list := o.lists[key]
	if list == nil {
		var err error
		if list, err = o.dev.NewCommandList(vk.CommandListConfig{Name: "optimiser"}); err != nil {
			return fmt.Errorf("train: Optimizer: %w", err)
		}
		if err := record(list); err != nil {
			return errors.Join(err, list.Close())
		}
		if o.lists == nil {
			o.lists = map[int]*vk.CommandList{}
		}
		o.lists[key] = list
	}
	if list.Steps() == 0 { // no subtree ends with this micro-batch
		return nil
	}
	if err := list.Submit(ctx); err != nil {
		return fmt.Errorf("train: Optimizer: %w", err)
	}
	return nil
}

// Close frees the memory and the kernels. Closing it again does nothing.
func (o *Optimizer) Close() error {
	if o == nil {
		return nil
	}
	var err error
	for key, list := range o.lists {
		if e := list.Close(); e != nil {
			err = errors.Join(err, e)
			continue
		}
		delete(o.lists, key)
	}
	err = errors.Join(err, o.adamW.Close(), o.gradientNorm.Close(), o.stepState.Close(), o.add.Close())
	for _, b := range append([]*vk.Buffer{o.m, o.v, o.state, o.norm, o.scratch, o.records, o.table}, o.arenas...) {
		if b != nil {
			err = errors.Join(err, b.Close())
		}
	}
	return err
}
