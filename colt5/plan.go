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
	bindings  []*vk.Binding  // by argument of the call; nil where it is absent
	stats     CallStats      // without the times

	randomLogits vk.Range // filled by the host before a run; absent: not random
	invalidIDs   vk.Range // the number of token ids outside the vocabulary; absent: none is possible
	vocabulary   int
	invalid      [1]uint32
	readInvalid  [1]vk.Transfer // of invalidIDs to invalid
	routing      []recordedRouter
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
	return err
}

// newPlan makes the plan of a call.
func (m *base) newPlan(ctx context.Context, of *call) (*plan, error) {
	c := *of // a copy, so that the caller's call does not escape to the heap
	b := &builder{call: &c, caps: m.dev.Caps(), precision: m.precision, kernels: &m.kernels, ctx: ctx}
	b.layOut(m.layer)
	if b.err != nil {
		return nil, b.err
	}
	if err := m.plans.evict(m.dev, 1, b.peak+b.constants); err != nil {
		return nil, err
	}
	list, err := m.dev.NewCommandList(vk.CommandListConfig{Name: m.name, Profile: c.profiled()})
	if err != nil {
		return nil, err
	}
	p := &plan{list: list}
	for _, a := range c.args.list() {
		var binding *vk.Binding
		if a.tensor != nil {
			binding = list.NewBinding(a.name, a.tensor.memory.Size())
		}
		p.bindings = append(p.bindings, binding)
	}
	if b.peak > 0 {
		p.workspace, err = m.dev.NewBuffer(m.name+" workspace", b.peak)
		if errors.Is(err, vk.ErrOutOfMemory) && m.plans.close() == nil { // other plans may hold the memory
			p.workspace, err = m.dev.NewBuffer(m.name+" workspace", b.peak)
		}
		if err != nil {
			return nil, errors.Join(err, p.close())
		}
	}
	measured := b.peak
	b.restart(b.limit)
	b.plan, b.list = p, list
	m.layer.record(b)
	if b.peak != measured && b.err == nil {
		b.err = fmt.Errorf("internal error: the plan allocates %d bytes of workspace, but %d were laid out", b.peak, measured)
	}
	if b.err == nil {
		b.err = list.Finish()
	}
	if b.err != nil {
		return nil, errors.Join(b.err, p.close())
	}
	p.stats = CallStats{StepNames: list.StepNames(), Workspace: measured + b.constants, Barriers: list.Barriers()}
	p.stats.Flops, p.stats.Bytes = list.Work()
	return p, nil
}

// run binds the call's tensors and runs the plan.
func (p *plan) run(ctx context.Context, c *call) error {
	if err := p.list.Wait(ctx); err != nil { // an earlier run whose caller did not wait for its end
		return err
	}
	for i := range c.args.list() {
		if p.bindings[i] != nil {
			if err := p.list.Bind(p.bindings[i], c.args[i].tensor.memory); err != nil {
				return err
			}
		}
	}
	if c.randomSeed != 0 {
		if err := p.uploadRandomLogits(ctx, c.randomSeed); err != nil {
			return err
		}
	}
	err := p.list.Run(ctx)
	for i := range c.args.list() {
		if t := c.args[i].tensor; t != nil && c.args[i].kind.written() {
			t.version.Add(1)
		}
	}
	return err
}

// uploadRandomLogits fills the logits of random routing with standard normal values.
func (p *plan) uploadRandomLogits(ctx context.Context, seed uint64) error {
	r := rand.New(rand.NewPCG(seed, 0))
	logits := make([]float32, p.randomLogits.Size()/4)
	for i := range logits {
		logits[i] = float32(r.NormFloat64())
	}
	return p.list.Device().Upload(ctx, vk.Transfer{Range: p.randomLogits, Data: vk.Bytes(logits)})
}

// report checks the token ids of the run, and fills the statistics and routing records that the call wants.
func (p *plan) report(ctx context.Context, c *call) error {
	if err := p.checkIDs(ctx); err != nil {
		return err
	}
	if c.stats != nil {
		if err := p.fillStats(c.stats); err != nil {
			return err
		}
	}
	if c.routing != nil {
		records, err := p.routingRecords(ctx)
		if err != nil {
			return err
		}
		*c.routing = records
	}
	return nil
}

// checkIDs returns an error if x had token ids outside the vocabulary.
func (p *plan) checkIDs(ctx context.Context) error {
	if p.invalidIDs.IsZero() {
		return nil
	}
	p.readInvalid[0] = vk.Transfer{Range: p.invalidIDs, Data: vk.Bytes(p.invalid[:])}
	if err := p.list.Device().Download(ctx, p.readInvalid[:]...); err != nil {
		return err
	}
	if p.invalid[0] > 0 {
		return fmt.Errorf("x has %d token ids outside the vocabulary of %d", p.invalid[0], p.vocabulary)
	}
	return nil
}
