package colt5

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/colt5-vulkan/colt5/internal/errtext"
	"github.com/colt5-vulkan/colt5/vk"
)

// Run runs the graph on tensors by name: inputs, and outputs that receive the results. Outputs share no memory with each
// other or with inputs. If the context ends, outputs are undefined.
func (g *Graph) Run(ctx context.Context, tensors map[string]*Tensor, o GraphOptions) error {
	locked, err := g.enter(ctx)
	defer g.leaveAll(locked)
	if err == nil {
		err = g.run(ctx, tensors, o)
	}
	if err != nil {
		return g.fail("Run", err)
	}
	return nil
}

// Submit starts a run and returns: [Graph.Wait] waits for it. Until then the tensors of the run must not be used, but by what
// is submitted to the device later. A run in progress is waited for first. Statistics and routing records need Run.
func (g *Graph) Submit(ctx context.Context, tensors map[string]*Tensor, o GraphOptions) error {
	locked, err := g.enter(ctx)
	defer g.leaveAll(locked)
	if err == nil && (o.Stats != nil || o.Routing != nil) {
		err = errors.New("the options have Stats or Routing, want nil: Run fills them")
	}
	if err == nil {
		err = g.submit(ctx, tensors, o)
	}
	if err != nil {
		return g.fail("Submit", err)
	}
	return nil
}

// Wait waits for the run that Submit started, and returns its error. Without one it does nothing.
func (g *Graph) Wait(ctx context.Context) error {
	err := g.lock(ctx)
	if err == nil {
		defer g.leave()
		if err = fmt.Errorf("the graph is %w", vk.ErrClosed); !g.closed {
			err = g.wait(ctx)
		}
	}
	if err != nil {
		return g.fail("Wait", err)
	}
	return nil
}

// Prepare does all that Run does before the first run with tensors of these shapes, as Encoder.Prepare does. It neither
// reads nor writes the tensors.
func (g *Graph) Prepare(ctx context.Context, tensors map[string]*Tensor, o GraphOptions) error {
	locked, err := g.enter(ctx)
	defer g.leaveAll(locked)
	if err == nil {
		err = g.settle(ctx) // a new plan may close the one that was submitted
	}
	if err == nil {
		_, err = g.ready(ctx, tensors, o)
	}
	if err != nil {
		return g.fail("Prepare", err)
	}
	return nil
}

var errNoDevice = errors.New("the graph was made without a device")

// enter locks the graph and its modules, in an order that all graphs share. It returns how many locks it holds, also
// with an error.
func (g *Graph) enter(ctx context.Context) (locked int, err error) {
	if g.dev == nil && g.busy != nil {
		return 0, errNoDevice
	}
	if err := g.lock(ctx); err != nil {
		return 0, err
	}
	if g.closed {
		return 1, fmt.Errorf("the graph is %w", vk.ErrClosed)
	}
	if err := g.fix(); err != nil {
		return 1, err
	}
	for i, m := range g.modules {
		if err := m.lock(ctx); err != nil {
			return 1 + i, err
		}
		if m.closed {
			return 2 + i, fmt.Errorf("the module %s is %w", m.name, vk.ErrClosed)
		}
	}
	return 1 + len(g.modules), nil
}

func (g *Graph) leaveAll(locked int) {
	for i := locked - 2; i >= 0; i-- {
		g.modules[i].leave()
	}
	if locked > 0 {
		g.leave()
	}
}

// fix ends building.
func (g *Graph) fix() error {
	if g.err != nil || g.fixed {
		return g.err
	}
	if len(g.outputs) == 0 {
		return errors.New("the graph has no output, want at least one: see Graph.Output")
	}
	for _, n := range g.nodes {
		if n.module != nil && !slices.Contains(g.modules, n.module) {
			g.modules = append(g.modules, n.module)
		}
	}
	slices.SortFunc(g.modules, func(a, b *base) int { return cmp.Compare(a.serial, b.serial) })
	g.fixed = true
	return nil
}

// ready collects the tensors of a run and makes what it needs: the plan and the copies of weights.
func (g *Graph) ready(ctx context.Context, tensors map[string]*Tensor, o GraphOptions) (*plan, error) {
	if err := g.collect(tensors); err != nil {
		return nil, err
	}
	if err := g.collectBackward(o.Backward); err != nil {
		return nil, err
	}
	p, err := g.plan(ctx, &call{stats: o.Stats, routing: o.Routing, replay: o.Replay != nil, dropout: o.Dropout != nil}, o.Backward)
	if err != nil {
		return nil, err
	}
	for _, m := range g.modules {
		if err := m.weights.cast(ctx); err != nil {
			return nil, fmt.Errorf("%s: %w", m.name, err)
		}
	}
	return p, nil
}

func (g *Graph) run(ctx context.Context, tensors map[string]*Tensor, o GraphOptions) error {
	c := call{stats: o.Stats, routing: o.Routing}
	c.reset()
	p, err := g.next(ctx, tensors, o)
	if err != nil {
		return err
	}
	if err := p.run(ctx, g.externals); err != nil {
		return err
	}
	if err := p.checkIDs(); err != nil {
		return err
	}
	return p.report(ctx, o.Stats, o.Routing)
}

func (g *Graph) submit(ctx context.Context, tensors map[string]*Tensor, o GraphOptions) error {
	p, err := g.next(ctx, tensors, o)
	if err != nil {
		return err
	}
	if err := p.submit(ctx, g.externals); err != nil {
		return err
	}
	g.submitted = p
	return nil
}

// next waits for a submitted run, and makes the plan of the next one.
func (g *Graph) next(ctx context.Context, tensors map[string]*Tensor, o GraphOptions) (*plan, error) {
	if err := g.wait(ctx); err != nil {
		return nil, err
	}
	p, err := g.ready(ctx, tensors, o)
	if err != nil {
		return nil, err
	}
	for i := range p.random {
		p.random[i].seed = p.random[i].nodeSeed + o.RandomSeed
	}
	if o.Replay != nil {
		err = p.setReplay(o.Replay)
	}
	if o.Dropout != nil && err == nil {
		err = p.setDropout(*o.Dropout)
	}
	return p, err
}

// wait waits for the submitted run, and returns its error. If the context ends first, a later wait waits again.
func (g *Graph) wait(ctx context.Context) error {
	if err := g.settle(ctx); err != nil {
		return err
	}
	err := g.failed
	g.failed = nil
	return err
}

// settle waits for the submitted run, and keeps its error for the next wait.
func (g *Graph) settle(ctx context.Context) error {
	p := g.submitted
	if p == nil {
		return nil
	}
	if err := p.list.Wait(ctx); err != nil {
		return err
	}
	g.submitted, g.failed = nil, p.checkIDs()
	return nil
}

// collect puts the tensors of a run into the order of the inputs and outputs, and checks what does not depend on shapes.
func (g *Graph) collect(tensors map[string]*Tensor) error {
	g.externals = g.externals[:0]
	found := 0
	add := func(name string, written bool) error {
		t, ok := tensors[name]
		if ok {
			found++
		}
		return g.addExternal("", name, t, written)
	}
	for _, v := range g.inputs {
		if err := add(v.value.name, false); err != nil {
			return err
		}
	}
	for _, out := range g.outputs {
		if err := add(out.name, true); err != nil {
			return err
		}
	}
	if found < len(tensors) {
		return g.unknownName(maps.Keys(tensors))
	}
	return nil
}

// addExternal adds a tensor of a run. what is the map that it is from, for messages.
func (g *Graph) addExternal(what, name string, t *Tensor, written bool) error {
	switch {
	case t == nil:
	case !t.hasMemory():
		return fmt.Errorf("%s%s is %v, want a tensor with memory", what, errtext.Name(name), t)
	case t.closed.Load():
		return fmt.Errorf("%s%s is a tensor that is %w", what, errtext.Name(name), vk.ErrClosed)
	case t.Device() != g.dev:
		return fmt.Errorf("%s%s is on another device than the graph: it was made with another vk.Device", what, errtext.Name(name))
	}
	g.externals = append(g.externals, external{t, written})
	return nil
}

// unknownName is the error of a name that is neither an input nor an output.
func (g *Graph) unknownName(names func(yield func(string) bool)) error {
	var known []string
	for _, v := range g.inputs {
		known = append(known, v.value.name)
	}
	for _, out := range g.outputs {
		known = append(known, out.name)
	}
	for _, name := range slices.Sorted(names) {
		if !slices.Contains(known, name) {
			return fmt.Errorf("the graph has no input or output %s, it has %s", errtext.Quote(name), listNames(known))
		}
	}
	return nil
}

// listNames is the first few names, for a message.
func listNames(names []string) string {
	const most = 8
	list := make([]string, min(len(names), most))
	for i := range list {
		list[i] = errtext.Name(names[i])
	}
	if len(names) > most {
		list = append(list, fmt.Sprintf("and %d more", len(names)-most))
	}
	return strings.Join(list, ", ")
}

// plan returns the cached plan for the collected tensors, or makes one.
func (g *Graph) plan(ctx context.Context, c *call, back *Backward) (*plan, error) {
	g.appendKey(c, back)
	if number, ok := g.keys[string(g.key)]; ok { // does not allocate
		if p := g.plans.find(number); p != nil {
			return p, nil
		}
	}
	given := make([]*Tensor, len(g.externals))
	for i, t := range g.externals {
		given[i] = t.tensor
	}
	of, err := g.resolve(given[:len(g.inputs)+len(g.outputs)], c)
	if err == nil && back != nil {
		err = g.resolveBackward(of, given, back.offsets(), back.Recompute)
	}
	if err != nil {
		return nil, err
	}
	p, err := newPlan(ctx, g.dev, "graph", of, c.profiled(), &g.plans)
	if err != nil {
		return nil, g.adviseBatch(err, given, back)
	}
	maps.DeleteFunc(g.keys, func(_ string, number int) bool { return g.plans.entries[number] == nil })
	g.numbers++
	g.keys[string(g.key)] = g.numbers
	g.plans.add(g.numbers, p, p.stats.Workspace)
	return p, nil
}

// appendKey sets key to all that a plan depends on.
func (g *Graph) appendKey(c *call, back *Backward) {
	flags := uint64(0)
	if c.profiled() {
		flags |= 1
	}
	if c.routing != nil {
		flags |= 2
	}
	if back != nil {
		flags |= 4
	}
	if c.replay {
		flags |= 8
	}
	if c.dropout {
		flags |= 16
	}
	g.key = binary.AppendUvarint(g.key[:0], flags)
	g.key = binary.AppendUvarint(g.key, back.serial())
	if back != nil {
		g.key = binary.AppendVarint(g.key, int64(back.Recompute))
	}
	for _, t := range g.externals {
		if t.tensor == nil {
			g.key = append(g.key, 0)
			continue
		}
		g.key = append(g.key, byte(len(t.tensor.shape)), byte(t.tensor.dtype))
		for _, n := range t.tensor.shape {
			g.key = binary.AppendUvarint(g.key, uint64(n))
		}
	}
	for _, m := range g.modules {
		g.key = binary.AppendUvarint(g.key, m.weights.shares)
	}
}

// Close frees the graph's plans, after the run in progress. The modules stay open. Closing again, or nil, does nothing.
func (g *Graph) Close() error {
	if g == nil || g.busy == nil {
		return nil
	}
	g.busy <- struct{}{}
	defer g.leave()
	g.closed = true
	return errors.Join(g.plans.close(), g.kernels.close())
}
