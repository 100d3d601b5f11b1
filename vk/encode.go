package vk

import (
	"fmt"
	"slices"
	"unsafe"
)

// emit lays out the operations of every segment, and finds the patches there.
func (l *CommandList) emit() {
	first := make([]int, len(l.steps)+1) // patch of a step
	for i := range l.steps {
		first[i+1] = first[i]
		for first[i+1] < len(l.patches) && l.patches[first[i+1]].step == i {
			first[i+1]++
		}
	}
	l.segments = nil
	kinds := l.kinds()
	ops := l.appendStamp(nil, 0)
	for i, n := range l.order {
		switch {
		case slices.Contains(l.cuts, i):
			l.segments = append(l.segments, ops)
			ops = appendBarrier(nil, kindAny, kinds[i])
		case l.barriers[i] && !l.config.Profile: // a stamp has one
			ops = appendBarrier(ops, kinds[max(i-1, 0)], kinds[i])
		}
		s := l.steps[n]
		for k := first[n]; k < first[n+1]; k++ {
			l.patches[k].segment, l.patches[k].start = len(l.segments), len(ops)
		}
		ops = append(ops, l.ops[s.from:s.from+s.size]...)
		if l.config.Profile {
			ops = l.appendStamp(ops, i+1)
		}
	}
	if !l.config.Profile {
		ops = l.appendStamp(ops, 1)
	}
	l.segments = append(l.segments, ops)
}

// appendStamp writes a time stamp. Without a barrier some devices write it when the work before it is launched, not when it is done; at
// the start it is the barrier that every submit begins with.
func (l *CommandList) appendStamp(ops []byte, i int) []byte {
	return appendTimestamp(appendBarrier(ops, kindAny, kindAny), l.queries, uint32(i))
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
func (l *CommandList) resolve() error {
	for i := range l.sets {
		if l.sets[i].fits(l.bindings) {
			l.set, l.stale = &l.sets[i], false
			return nil
		}
	}
	c := &l.sets[0]
	if l.set == c {
		c = &l.sets[1]
	}
	if err := l.write(c); err != nil {
		return err
	}
	l.set, l.stale = c, false
	return nil
}

// write writes the command buffers of a set for what is bound.
func (l *CommandList) write(c *commandSet) error {
	for _, s := range l.bindings {
		if s.bound.buf == nil {
			return fmt.Errorf("binding %q is not bound", s.name)
		}
	}
	if err := l.aliases(); err != nil {
		return err
	}
	for _, p := range l.patches {
		r := p.binding.bound
		r.offset += p.offset
		r.write(l.segments[p.segment][p.start+p.at:], p.pair)
	}
	if err := c.open(l.dev, len(l.segments)); err != nil {
		return err
	}
	c.written = false
	for i, ops := range l.segments {
		if err := c.list[i].encode(l.dev, ops); err != nil {
			return err
		}
	}
	c.bound = c.bound[:0]
	for _, s := range l.bindings {
		c.bound = append(c.bound, s.bound)
	}
	c.written = true
	return nil
}

// aliases rejects memory bound to a slot that the tape writes, where another slot or the tape itself uses that memory: the barriers
// were derived without knowing it.
func (l *CommandList) aliases() error {
	for i, s := range l.bindings {
		for _, o := range l.bindings[:i] {
			if (s.written || o.written) && s.bound.overlaps(o.bound) {
				return fmt.Errorf("bindings %q and %q are bound to overlapping parts of %s, and one of them is written", o.name, s.name, s.bound.name())
			}
		}
		for _, u := range l.uses[s.bound.buf] {
			if (s.written || u.write) && s.bound.overlaps(u.Range) {
				return fmt.Errorf("binding %q is bound to a part of %s that the command list uses itself", s.name, s.bound.name())
			}
		}
	}
	return nil
}
