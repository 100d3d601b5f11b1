package vk

import (
	"fmt"
	"slices"
)

// The order in which a tape's steps run, the barriers between them, and the checker that goes over both.

// arrange brings the steps into the order of their run, and lays them out in segments with the barriers that they need.
func (t *Tape) arrange() error {
	if t.arranged {
		return nil
	}
	if !t.config.Profile && !t.config.BarrierEverywhere {
		levels := t.levels()
		slices.SortStableFunc(t.steps, func(a, b step) int { return levels[a.recorded] - levels[b.recorded] })
	}
	var since []Access // what was touched since the last barrier
	for i := range t.steps {
		s := &t.steps[i]
		if last := t.last(); last.flops > 0 && s.flops > 0 && last.flops+s.flops > segmentFlops {
			if err := t.segment(); err != nil {
				return err
			}
			since = since[:0] // every submit starts with a barrier
		}
		last := t.last()
		last.flops += s.flops
		s.segment = len(t.segments) - 1
		s.barrier = (t.config.BarrierEverywhere || conflicts(since, s.accesses)) && i != t.planted
		if s.barrier {
			last.ops = appendBarrier(last.ops)
			since = since[:0]
		}
		for _, a := range s.accesses {
			if !a.Range.IsZero() {
				since = append(since, a)
			}
		}
		for _, p := range s.patches {
			p.segment, p.at = s.segment, p.at+len(last.ops)
			t.patches = append(t.patches, p)
		}
		last.ops = append(last.ops, s.ops...)
		s.ops, s.patches = nil, nil
		t.stamp()
	}
	t.arranged = true
	return nil
}

// levels are those of the steps, as recorded.
func (t *Tape) levels() []int {
	levels := make([]int, len(t.steps))
	for j, s := range t.steps {
		for i, before := range t.steps[:j] {
			if levels[i] >= levels[j] && conflicts(before.accesses, s.accesses) {
				levels[j] = levels[i] + 1
			}
		}
	}
	return levels
}

// overlaps says whether two ranges of one buffer or slot share a byte. What is bound to different slots is compared when it is bound.
func (r Range) overlaps(o Range) bool {
	return !r.IsZero() && r.buf == o.buf && r.slot == o.slot && r.offset < o.offset+o.size && o.offset < r.offset+r.size
}

// conflicts says whether a step must wait for what was touched before: a read after a write, or a write after anything.
func conflicts(before, now []Access) bool {
	for _, a := range now {
		for _, b := range before {
			if (a.write || b.write) && a.Range.overlaps(b.Range) {
				return true
			}
		}
	}
	return false
}

// check is the hazard checker. It knows nothing of how order and barriers were derived: it takes every pair of steps that touch a common
// byte, one of them writing, and wants them in the order of the recording, and in a submit a barrier between them.
func (t *Tape) check() error {
	for j := range t.steps {
		b, apart := &t.steps[j], false
		for i := j - 1; i >= 0; i-- {
			a := &t.steps[i]
			apart = apart || t.steps[i+1].barrier || a.segment != b.segment
			if apart && a.recorded < b.recorded {
				continue
			}
			for _, x := range a.accesses {
				for _, y := range b.accesses {
					if (x.write || y.write) && x.Range.overlaps(y.Range) {
						return fmt.Errorf("hazard: step %d (%s) and step %d (%s) both touch %s, and they change places or there is no barrier between them",
							i, a.name, j, b.name, x.Range.name())
					}
				}
			}
		}
	}
	return nil
}
