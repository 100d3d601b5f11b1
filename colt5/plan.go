package colt5

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"

	"github.com/colt5-vulkan/colt5/vk"
)

// plan is a module's call prepared for its shapes: a command list, its workspace, and bindings for the caller's
// tensors.
type plan struct {
	list      *vk.CommandList
	workspace *vk.Buffer     // nil: none needed
	tables    []*sharedTable // that the steps read
	bindings  []*vk.Binding  // of the tensors of a run; nil where one is absent
	stats     CallStats      // without the times

	random   []randomLogits
	replayed []*replayedLists
	dropout  *dropoutState // nil: none
	ids      []checkedIDs
	routing  []recordedRouter
}

// randomLogits are the logits of random routing, which the host fills before a run.
type randomLogits struct {
	buffer         *vk.Buffer
	node           *node
	router         string // name in the node
	seed, nodeSeed uint64 // of a run, and of the node's call
	stream         uint64 // of the seed's numbers
}

// checkedIDs is an input of token ids or labels, some of which may be out of range.
type checkedIDs struct {
	name  string         // of the input
	what  string         // what an id out of range is
	count *vk.HostBuffer // u32: how many were out of range in the last run
}

// external is a tensor of a run that is not in the workspace.
type external struct {
	tensor  *Tensor // nil: absent
	written bool
}

func (p *plan) close() error {
	if p == nil {
		return nil
	}
	err := errors.Join(p.list.Close(), p.workspace.Close())
	for _, t := range p.tables {
		err = errors.Join(err, t.release())
	}
	p.tables = nil
	for _, r := range p.random {
		err = errors.Join(err, r.buffer.Close())
	}
	for _, r := range p.replayed {
		err = errors.Join(err, r.buffer.Close())
	}
	for _, c := range p.ids {
		err = errors.Join(err, c.count.Close())
	}
	if p.dropout != nil {
		err = errors.Join(err, p.dropout.close())
	}
	return err
}

// planStore is a planCache with any kind of key.
type planStore interface {
	evict(dev *vk.Device, plans int, bytes uint64) error
	close() error
}

// newPlan makes the plan of a program, for a cache that has space for it then.
func newPlan(ctx context.Context, dev *vk.Device, name string, of *program, profile bool, cache planStore) (*plan, error) {
	b := &builder{caps: dev.Caps(), ctx: ctx}
	b.layOut(of)
	if b.err != nil {
		return nil, b.err
	}
	if err := cache.evict(dev, 1, b.peak+b.constants); err != nil {
		return nil, err
	}
	list, err := dev.NewCommandList(vk.CommandListConfig{Name: name, Profile: profile})
	if err != nil {
		return nil, err
	}
	p := &plan{list: list}
	for _, t := range of.externals {
		var binding *vk.Binding
		if t.bytes > 0 {
			binding = list.NewBinding(t.name, t.bytes)
		}
		p.bindings = append(p.bindings, binding)
	}
	if b.peak > 0 {
		p.workspace, err = dev.NewBuffer(name+" workspace", b.peak)
		if errors.Is(err, vk.ErrOutOfMemory) && cache.close() == nil { // other plans may hold the memory
			p.workspace, err = dev.NewBuffer(name+" workspace", b.peak)
		}
		if err != nil {
			return nil, errors.Join(err, p.close())
		}
	}
	measured := b.peak
	b.restart(b.limit, b.planned...)
	b.plan, b.list = p, list
	of.record(b)
	if b.peak != measured && b.err == nil {
		b.err = fmt.Errorf("internal error: the plan allocates %d bytes of workspace, but %d were laid out", b.peak, measured)
	}
	if b.err == nil {
		b.err = list.Finish()
	}
	if b.err != nil {
		return nil, errors.Join(b.err, p.close())
	}
	p.stats.StepNames, p.stats.Workspace, p.stats.Barriers = list.StepNames(), measured+b.constants, list.Barriers()
	p.stats.Flops, p.stats.Bytes = list.Work()
	return p, nil
}

// run binds the tensors and runs the plan.
func (p *plan) run(ctx context.Context, tensors []external) error {
	return p.start(ctx, tensors, p.list.Run)
}

// submit binds the tensors and starts the plan.
func (p *plan) submit(ctx context.Context, tensors []external) error {
	return p.start(ctx, tensors, p.list.Submit)
}

func (p *plan) start(ctx context.Context, tensors []external, start func(context.Context) error) error {
	if err := p.list.Wait(ctx); err != nil { // an earlier run whose caller did not wait for its end
		return err
	}
	for i, t := range tensors {
		if p.bindings[i] != nil {
			if err := p.list.Bind(p.bindings[i], t.tensor.memory); err != nil {
				return err
			}
		}
	}
	for _, r := range p.random {
		if err := r.upload(ctx, p.list.Device()); err != nil {
			return err
		}
	}
	for _, r := range p.replayed {
		if err := p.list.Device().Upload(ctx, vk.Transfer{Range: r.buffer.Range(), Data: vk.Bytes(r.words)}); err != nil {
			return err
		}
	}
	if d := p.dropout; d != nil {
		if err := d.host.Write(0, vk.Bytes(d.words[:])); err != nil {
			return err
		}
	}
	err := start(ctx)
	for _, t := range tensors {
		if t.tensor != nil && t.written {
			t.tensor.version.Add(1)
		}
	}
	return err
}

// upload fills the logits with standard normal values.
func (r randomLogits) upload(ctx context.Context, dev *vk.Device) error {
	source := rand.New(rand.NewPCG(r.seed, r.stream))
	logits := make([]float32, r.buffer.Range().Size()/4)
	for i := range logits {
		logits[i] = float32(source.NormFloat64())
	}
	return dev.Upload(ctx, vk.Transfer{Range: r.buffer.Range(), Data: vk.Bytes(logits)})
}

// report fills the statistics and routing records that the caller wants.
func (p *plan) report(ctx context.Context, stats *CallStats, routing *[]RoutingRecord) error {
	if stats != nil {
		if err := p.fillStats(stats); err != nil {
			return err
		}
	}
	if routing != nil {
		records, err := p.routingRecords(ctx)
		if err != nil {
			return err
		}
		*routing = records
	}
	return nil
}

// checkIDs returns an error if an input of the last run, which was waited for, had token ids or labels out of range.
func (p *plan) checkIDs() error {
	for _, c := range p.ids {
		var count [1]uint32
		if err := c.count.Read(0, vk.Bytes(count[:])); err != nil {
			return err
		}
		if count[0] > 0 {
			return fmt.Errorf("%s has %d %s", c.name, count[0], c.what)
		}
	}
	return nil
}
