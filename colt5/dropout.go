package colt5

import (
	"errors"
	"fmt"

	"github.com/colt5-vulkan/colt5/pipelines"
	"github.com/colt5-vulkan/colt5/vk"
)

// Dropout is the position of a run in the random numbers of dropout, which are a function of it and of the element alone:
// those of Philox4x32-10 with the key Seed and a counter of Step, use and element. A run with the same values drops the same
// elements.
type Dropout struct {
	Seed      uint64
	Step      uint32 // of the training
	FirstItem uint32 // number of the run's first batch item among those of the step, of which the run has a part; else 0
}

// Dropout sets elements of x, of any shape, to 0 with a probability of rate, at least 0 and below 1, and divides the others by
// 1 - rate. Without GraphOptions.Dropout it is x.
func (g *Graph) Dropout(x *Tensor, rate float64) *Tensor {
	return g.operation("Dropout", dropout{rate}, arg{name: "x", tensor: x})
}

// checkRate checks the rate of a dropout.
func checkRate(rate float64) error {
	if !(rate >= 0 && rate <= 1-0x1p-32) {
		return fmt.Errorf("rate is %v, want at least 0 and below 1", rate)
	}
	return nil
}

// dropout is the layer of Graph.Dropout.
type dropout struct{ rate float64 }

func (dropout) result() shape { return shape{} }

// setShapes makes y a tensor of the shape of x.
func (d dropout) setShapes(c *call) error {
	c.anyRank = true
	return checkRate(d.rate)
}

// view makes y the input where nothing is dropped.
func (d dropout) view(c *call) (offset uint64, ok bool) { return 0, !c.dropout || d.rate == 0 }

func (d dropout) record(b *builder) {
	if _, off := d.view(&b.call); off {
		b.copy(b.arg("y"), b.arg("x"))
		return
	}
	b.drop(b.arg("y"), b.arg("x"), b.call.lead(), d.rate, 0)
}

// backward drops the elements of the gradient that the forward pass dropped.
func (d dropout) backward(b *builder) {
	dx, dy, count := b.startedGradient("x"), b.upstream("y").Range, b.call.lead()
	if _, off := d.view(&b.call); off {
		b.addGradient(dx, dy, count)
		return
	}
	own := b.floats(count)
	b.drop(own.Range, dy, count, d.rate, 0)
	b.addGradient(dx, own.Range, count)
	b.release(own)
}

// dropoutState is the position of the next run in the random numbers, and its memory.
type dropoutState struct {
	host   *vk.HostBuffer // written before a run,
	buffer *vk.Buffer     // which copies it here
	words  [4]uint32      // as pipelines.DropoutArgs.State
	uneven bool           // items of a tensor have no multiple of 4 elements, so runs cannot start with another item
}

// open allocates the memory, and records the copy at the start of a run.
func (d *dropoutState) open(list *vk.CommandList) (err error) {
	if d.host, err = list.Device().NewHostBuffer("dropout", 16); err != nil {
		return err
	}
	if d.buffer, err = list.Device().NewBuffer("dropout", 16); err != nil {
		return err
	}
	return list.Copy(d.buffer.Range(), d.host.Range())
}

func (d *dropoutState) close() error { return errors.Join(d.host.Close(), d.buffer.Close()) }

// dropping reports whether a dropout of the call's layer with a rate drops anything.
func (b *builder) dropping(rate float64) bool { return b.call.dropout && rate > 0 }

// drop records y = dropout(x), for count elements of all items. The uses of a node have different numbers. The backward pass
// drops the same elements of a gradient.
func (b *builder) drop(y, x vk.Range, count int, rate float64, use int) {
	b.limitSum(count)
	if !b.drops {
		b.drops = true
		b.constants += 16
	}
	if b.err != nil || b.list == nil {
		return
	}
	if b.plan.dropout == nil {
		d := &dropoutState{}
		b.plan.dropout = d
		if err := d.open(b.list); err != nil {
			b.fail(err)
			return
		}
	}
	a := pipelines.DropoutArgs{
		X: x, Y: y, State: b.plan.dropout.buffer.Range(), Count: count, Rate: rate, Layer: uint32(b.number)<<16 | uint32(use), Item: uint64(count / b.items()),
	}
	if a.Item%4 != 0 {
		a.Item, b.plan.dropout.uneven = 0, true
	}
	record(b, pipelines.NewDropout, pipelines.DropoutConfig{}, a)
}

// dropAndAdd records y = x + dropout(branch), in place of branch.
func (b *builder) dropAndAdd(y, x, branch vk.Range, count int, rate float64, use int) {
	b.drop(branch, branch, count, rate, use)
	record(b, pipelines.NewAdd, pipelines.AddConfig{}, pipelines.AddArgs{A: x, B: branch, Y: y, N: count})
}

// dropGradient is the gradient of a branch from that of dropout(branch), in memory that it allocates once; dy itself where
// nothing is dropped.
func (b *builder) dropGradient(memory *allocation, dy vk.Range, count int, rate float64, use int) vk.Range {
	if !b.dropping(rate) {
		return dy
	}
	if memory.extent == (extent{}) {
		*memory = b.floats(count)
	}
	b.drop(memory.Range, dy, count, rate, use)
	return memory.Range
}

// setDropout sets the position of the next run.
func (p *plan) setDropout(d Dropout) error {
	if p.dropout == nil {
		return nil
	}
	if d.FirstItem > 0 && p.dropout.uneven {
		return fmt.Errorf("GraphOptions.Dropout.FirstItem is %d, want 0: items of a tensor have no multiple of 4 elements", d.FirstItem)
	}
	p.dropout.words = [4]uint32{uint32(d.Seed), uint32(d.Seed >> 32), d.Step, d.FirstItem}
	return nil
}
