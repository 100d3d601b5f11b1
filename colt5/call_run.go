package colt5

import (
	"context"
	"errors"
)

// This file runs a call: it finds or makes its plan, and runs that.

// run runs a call: all steps of a Forward. If the tensors are values of a graph, it becomes a node of that graph instead.
func (m *base) run(ctx context.Context, c *call) error {
	if g := c.graph(); g != nil {
		if err := g.addModule(ctx, m, c); err != nil {
			return m.fail("Forward", err)
		}
		return nil
	}
	if err := m.enter(ctx, "Forward"); err != nil {
		return err
	}
	defer m.leave()
	if err := m.forward(ctx, c); err != nil {
		return m.fail("Forward", err)
	}
	return nil
}

// prepare makes the plan of a call, and does not run it.
func (m *base) prepare(ctx context.Context, c *call) error {
	if c.graph() != nil {
		return m.fail("Prepare", errors.New("the tensors are values of a graph, want tensors with memory; Graph.Prepare prepares a graph"))
	}
	return m.exclusive(ctx, "Prepare", func() error {
		_, err := m.ready(ctx, c)
		return err
	})
}

// ready checks a call and makes what its run needs: the plan and the copies of weights.
func (m *base) ready(ctx context.Context, c *call) (*plan, error) {
	if err := c.check(m.dev); err != nil {
		return nil, err
	}
	p, err := m.plan(ctx, c)
	if err != nil {
		return nil, err
	}
	return p, m.weights.cast(ctx)
}

func (m *base) forward(ctx context.Context, c *call) error {
	c.reset()
	p, err := m.ready(ctx, c)
	if err != nil {
		return err
	}
	var tensors [maxArgs]external
	n := 0
	for i := range c.args.list() {
		tensors[i] = external{c.args[i].tensor, c.args[i].kind.written()}
		n++
	}
	for i := range p.random {
		p.random[i].seed = c.randomSeed
	}
	if err := p.run(ctx, tensors[:n]); err != nil {
		return err
	}
	if err := p.checkIDs(); err != nil {
		return err
	}
	return p.report(ctx, c.stats, c.routing)
}

// reset clears what an earlier call left in the results of this one.
func (c *call) reset() {
	if c.stats != nil {
		*c.stats = CallStats{Profile: c.stats.Profile}
	}
	if c.routing != nil {
		*c.routing = nil
	}
}

// plan returns the cached plan of a checked call, or makes one.
func (m *base) plan(ctx context.Context, c *call) (*plan, error) {
	key := c.key()
	if p := m.plans.find(key); p != nil {
		return p, nil
	}
	p, err := newPlan(ctx, m.dev, m.name, m.program(c), c.profiled(), &m.plans)
	if err != nil {
		return nil, adviseBatch(err, m.dev, c.dim(dimB), func(batch int) (*program, error) {
			smaller := *c
			smaller.bind(dimB, batch)
			return m.program(&smaller), nil
		})
	}
	m.plans.add(key, p, p.stats.Workspace)
	return p, nil
}
