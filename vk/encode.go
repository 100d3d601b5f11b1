package vk

import (
	"fmt"
	"slices"
	"unsafe"
)

// emit lays out the operations of every segment, and finds the patches there.
func (t *CommandList) emit() {
	first := make([]int, len(t.steps)+1) // patch of a step
	for i := range t.steps {
		first[i+1] = first[i]
		for first[i+1] < len(t.patches) && t.patches[first[i+1]].step == i {
			first[i+1]++
		}
	}
	t.segments = nil
	kinds := t.kinds()
	ops := t.appendStamp(nil, 0)
	for i, n := range t.order {
		switch {
		case slices.Contains(t.cuts, i):
			t.segments = append(t.segments, ops)
			ops = appendBarrier(nil, kindAny, kinds[i])
		case t.barriers[i] && !t.config.Profile: // a stamp has one
			ops = appendBarrier(ops, kinds[max(i-1, 0)], kinds[i])
		}
		s := t.steps[n]
		for k := first[n]; k < first[n+1]; k++ {
			t.patches[k].segment, t.patches[k].start = len(t.segments), len(ops)
		}
		ops = append(ops, t.ops[s.from:s.from+s.size]...)
		if t.config.Profile {
			ops = t.appendStamp(ops, i+1)
		}
	}
	if !t.config.Profile {
		ops = t.appendStamp(ops, 1)
	}
	t.segments = append(t.segments, ops)
}

// appendStamp writes a time stamp. Without a barrier some devices write it when the work before it is launched, not when it is done; at
// the start it is the barrier that every submit begins with.
func (t *CommandList) appendStamp(ops []byte, i int) []byte {
	return appendTimestamp(appendBarrier(ops, kindAny, kindAny), t.queries, uint32(i))
}

// commandSet is a command buffer for every segment of a tape, with the memory that was bound to the slots when it was written.
type commandSet struct {
	bound   []Range
	list    []commandBuffer
	buffers []unsafe.Pointer // those of list
	written bool
}

func (c *commandSet) destroy(d *Device) {
	for i := range c.list {
		c.list[i].destroy(d)
	}
	*c = commandSet{}
}

// open makes the command buffers, unless they are there.
func (c *commandSet) open(d *Device, count int) error {
	for len(c.list) < count {
		var b commandBuffer
		if err := b.open(d); err != nil {
			return err
		}
		c.list, c.buffers = append(c.list, b), append(c.buffers, b.buffer)
	}
	return nil
}

func (c *commandSet) fits(slots []*Binding) bool {
	if !c.written || len(c.bound) != len(slots) {
		return false
	}
	for i, s := range slots {
		if c.bound[i] != s.bound {
			return false
		}
	}
	return true
}

// resolve takes command buffers for what is bound: those that were written for it, or else it writes those that were not used last.
// So do two sets of memory in turn cost no more than one.
func (t *CommandList) resolve() error {
	for i := range t.sets {
		if t.sets[i].fits(t.slots) {
			t.set, t.stale = &t.sets[i], false
			return nil
		}
	}
	c := &t.sets[0]
	if t.set == c {
		c = &t.sets[1]
	}
	if err := t.write(c); err != nil {
		return err
	}
	t.set, t.stale = c, false
	return nil
}

// write writes the command buffers of a set for what is bound.
func (t *CommandList) write(c *commandSet) error {
	for _, s := range t.slots {
		if s.bound.buf == nil {
			return fmt.Errorf("nothing is bound to slot %q", s.name)
		}
	}
	if err := t.aliases(); err != nil {
		return err
	}
	for _, p := range t.patches {
		r := p.binding.bound
		r.offset += p.offset
		r.write(t.segments[p.segment][p.start+p.at:], p.pair)
	}
	if err := c.open(t.dev, len(t.segments)); err != nil {
		return err
	}
	c.written = false
	for i, ops := range t.segments {
		if err := c.list[i].encode(t.dev, ops); err != nil {
			return err
		}
	}
	c.bound = c.bound[:0]
	for _, s := range t.slots {
		c.bound = append(c.bound, s.bound)
	}
	c.written = true
	return nil
}

// aliases rejects memory bound to a slot that the tape writes, where another slot or the tape itself uses that memory: the barriers
// were derived without knowing it.
func (t *CommandList) aliases() error {
	for i, s := range t.slots {
		for _, o := range t.slots[:i] {
			if (s.wrote || o.wrote) && s.bound.overlaps(o.bound) {
				return fmt.Errorf("slots %q and %q are bound to overlapping parts of %s, and one of them is written", o.name, s.name, s.bound.name())
			}
		}
		for _, u := range t.own[s.bound.buf] {
			if (s.wrote || u.write) && s.bound.overlaps(u.Range) {
				return fmt.Errorf("slot %q is bound to a part of %s that the tape uses itself", s.name, s.bound.name())
			}
		}
	}
	return nil
}
