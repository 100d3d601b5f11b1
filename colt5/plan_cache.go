package colt5

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/colt5-vulkan/colt5/vk"
)

// PlanLimits bounds the plans that a module or a graph keeps for later calls. Before a new plan would exceed a limit, the plans
// used longest ago are closed. The plan used last is kept in any case.
type PlanLimits struct {
	Count int    // plans; 0: 64
	Bytes uint64 // the workspaces of all plans; 0: an eighth of the device's memory
}

const defaultPlanCount = 64

// LimitPlans bounds the plans that the module keeps from now on, and closes those that exceed the limits. It waits for
// the call in progress.
func (m *base) LimitPlans(ctx context.Context, l PlanLimits) error {
	return m.exclusive(ctx, "LimitPlans", func() error { return m.plans.limit(m.dev, l) })
}

// LimitPlans bounds the plans that the graph keeps from now on, and closes those that exceed the limits. It waits for the
// run in progress. The graph may still be incomplete.
func (g *Graph) LimitPlans(ctx context.Context, l PlanLimits) error {
	err := g.lock(ctx)
	if err == nil {
		defer g.leave()
		switch {
		case g.closed:
			err = fmt.Errorf("the graph is %w", vk.ErrClosed)
		case g.dev == nil:
			err = errNoDevice
		default:
			err = g.plans.limit(g.dev, l)
		}
	}
	if err != nil {
		return g.fail("LimitPlans", err)
	}
	return nil
}

// planCache keeps the plans of a module or a graph, by what they depend on. The zero value is empty and has the default limits.
type planCache[K comparable] struct {
	limits  PlanLimits
	entries map[K]*list.Element
	used    list.List // of planEntry[K], latest use first
	bytes   uint64    // workspaces of the entries
	evicted []*plan   // not closed yet, because the device still used them
}

type planEntry[K comparable] struct {
	key   K
	plan  *plan
	bytes uint64
}

// limit sets the limits.
func (c *planCache[K]) limit(dev *vk.Device, l PlanLimits) error {
	if l.Count < 0 {
		return fmt.Errorf("%s is %d, want 0 (the default) or more", "PlanLimits.Count", l.Count)
	}
	c.limits = l
	return c.evict(dev, 0, 0)
}

// find returns the plan for a key, nil if there is none.
func (c *planCache[K]) find(key K) *plan {
	e := c.entries[key]
	if e == nil {
		return nil
	}
	c.used.MoveToFront(e)
	return e.Value.(planEntry[K]).plan
}

// evict closes the plans used longest ago until so many more plans, with so many bytes of workspace, keep the limits. A
// plan that fails to close is closed by a later evict or close.
func (c *planCache[K]) evict(dev *vk.Device, plans int, bytes uint64) error {
	l := c.limits
	if l.Count == 0 {
		l.Count = defaultPlanCount
	}
	if l.Bytes == 0 {
		l.Bytes = dev.Caps().MemoryBytes / 8
	}
	for n := c.used.Len(); n > 0 && n+plans > 1 && (n+plans > l.Count || c.bytes+bytes > l.Bytes); n-- {
		e := c.used.Remove(c.used.Back()).(planEntry[K])
		delete(c.entries, e.key)
		c.bytes -= e.bytes
		c.evicted = append(c.evicted, e.plan)
	}
	return c.closeEvicted()
}

// add keeps a new plan with so many bytes of workspace, for which evict made space.
func (c *planCache[K]) add(key K, p *plan, bytes uint64) {
	if c.entries == nil {
		c.entries = map[K]*list.Element{}
	}
	c.entries[key] = c.used.PushFront(planEntry[K]{key, p, bytes})
	c.bytes += bytes
}

func (c *planCache[K]) closeEvicted() error {
	var all error
	c.evicted = slices.DeleteFunc(c.evicted, func(p *plan) bool {
		err := p.close()
		all = errors.Join(all, err)
		return err == nil
	})
	return all
}

// close closes all plans. Plans that fail to close are kept for the next try.
func (c *planCache[K]) close() error {
	for e := c.used.Front(); e != nil; e = e.Next() {
		c.evicted = append(c.evicted, e.Value.(planEntry[K]).plan)
	}
	c.entries, c.bytes = nil, 0
	c.used.Init()
	return c.closeEvicted()
}
