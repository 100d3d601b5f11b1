package vk

import (
	"fmt"
	"slices"
	"unsafe"
)

// buildOps builds the commands of every segment, and locates the patches in them.
func (l *CommandList) buildOps() {
	first := make([]int, len(l.steps)+1) // first patch of a step
	for i := range l.steps {
		first[i+1] = first[i]
		for first[i+1] < len(l.patches) && l.patches[first[i+1]].step == i {
			first[i+1]++
		}
	}
	l.segments = nil
	kinds := l.kindsOfWork()
	ops := l.appendTimestamp(make([]byte, 0, len(l.ops)+(barrierBytes+timestampBytes)*(len(l.steps)+2)), 0)
	for i, n := range l.order {
		switch {
		case slices.Contains(l.submitStarts, i):
			l.segments = append(l.segments, ops)
			ops = appendBarrier(nil, kindAny, kinds[i])
		case l.barriers[i] && !l.config.Profile: // a timestamp has one
			ops = appendBarrier(ops, kinds[max(i-1, 0)], kinds[i])
		}
		s := &l.steps[n]
		for k := first[n]; k < first[n+1]; k++ {
			l.patches[k].segment, l.patches[k].start = len(l.segments), len(ops)
		}
		ops = append(ops, l.ops[s.from:s.from+s.size]...)
		if l.config.Profile {
			ops = l.appendTimestamp(ops, i+1)
		}
	}
	if !l.config.Profile {
		ops = l.appendTimestamp(ops, 1)
	}
	if slices.ContainsFunc(l.steps, writesHost) {
		ops = appendBarrier(ops, kindTransfer, kindHost)
	}
	l.segments = append(l.segments, ops)
}

// writesHost reports whether a step writes a HostBuffer.
func writesHost(s step) bool {
	return slices.ContainsFunc(s.accesses, func(a Access) bool { return a.write && a.Range.isHost() })
}

// appendTimestamp appends a barrier and a timestamp. Without the barrier some devices write the timestamp when the
// preceding work starts, not when it ends. At the start of a list it is the barrier that every submit begins with. A
// device without timestamps gets the barrier only.
func (l *CommandList) appendTimestamp(ops []byte, i int) []byte {
	ops = appendBarrier(ops, kindAny, kindAny)
	if !l.hasTimestamps() {
		return ops
	}
	return appendTimestamp(ops, l.queries, uint32(i))
}

// commandSet is one command buffer per segment, written for certain memory bound to the bindings.
type commandSet struct {
	bound    []Range
	commands []commandBuffer
	buffers  []unsafe.Pointer // the handles in commands
	written  bool             // all command buffers are written
}

func (c *commandSet) destroy(d *Device) {
	for i := range c.commands {
		c.commands[i].destroy(d)
	}
	*c = commandSet{}
}

// open makes the command buffers that are missing.
func (c *commandSet) open(d *Device, count int) error {
	for len(c.commands) < count {
		var b commandBuffer
		if err := b.open(d); err != nil {
			return err
		}
		c.commands, c.buffers = append(c.commands, b), append(c.buffers, b.buffer)
	}
	return nil
}

func (c *commandSet) matches(bindings []*Binding) bool {
	if !c.written || len(c.bound) != len(bindings) {
		return false
	}
	for i, s := range bindings {
		if c.bound[i] != s.bound {
			return false
		}
	}
	return true
}

// selectCommands selects the command buffers for what is bound: a set that was written for it, or else the set that
// was not used last, which it writes anew. Two sets of memory used alternately therefore cost nothing after the first
// two runs.
func (l *CommandList) selectCommands() error {
	for i := range l.sets {
		if l.sets[i].matches(l.bindings) {
			l.set, l.stale = &l.sets[i], false
			return nil
		}
	}
	c := &l.sets[0]
	if l.set == c {
		c = &l.sets[1]
	}
	if err := l.writeCommands(c); err != nil {
		return err
	}
	l.set, l.stale = c, false
	return nil
}

// writeCommands writes the command buffers of a set for what is bound.
func (l *CommandList) writeCommands(c *commandSet) error {
	for _, s := range l.bindings {
		if s.bound.buf == nil {
			return fmt.Errorf("binding %q is not bound", s.name)
		}
	}
	if err := l.checkAliases(); err != nil {
		return err
	}
	for _, p := range l.patches {
		r := p.binding.bound
		r.offset += p.offset
		r.put(l.segments[p.segment][p.start+p.at:], p.pair)
	}
	if err := c.open(l.dev, len(l.segments)); err != nil {
		return err
	}
	c.written = false
	for i, ops := range l.segments {
		if err := c.commands[i].write(l.dev, ops); err != nil {
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

// checkAliases rejects written memory that is accessed through two bindings, or through a binding and directly: the
// barriers were derived without knowing that the memory is the same.
func (l *CommandList) checkAliases() error {
	for i, s := range l.bindings {
		for _, o := range l.bindings[:i] {
			if (s.written || o.written) && s.bound.overlaps(o.bound) {
				return fmt.Errorf("bindings %q and %q are bound to overlapping parts of %s, and one of them is written", o.name, s.name, s.bound.name())
			}
		}
		if slices.Contains(l.buffers, s.bound.buf) && l.conflictsDirectly(s) {
			return fmt.Errorf("binding %q is bound to a part of %s that the command list also uses directly", s.name, s.bound.name())
		}
	}
	return nil
}

// conflictsDirectly reports whether a step accesses memory that is also bound to a binding, and one of them writes it.
func (l *CommandList) conflictsDirectly(b *Binding) bool {
	for i := range l.steps {
		for _, a := range l.steps[i].accesses {
			if (b.written || a.write) && b.bound.overlaps(a.Range) {
				return true
			}
		}
	}
	return false
}
