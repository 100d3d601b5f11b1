package vk

// #include "native.h"
import "C"

import (
	"cmp"
	"fmt"
	"slices"
)

// segmentFlops is the work after which a tape goes on in another submit. Slow devices do some 0.5 TFLOP/s, and some systems stop
// work that takes two seconds.
const segmentFlops = 5e11

// schedule decides the order in which the steps run, and where barriers stand. A step's level is one more than the highest level of the
// earlier steps that it must wait for: those that wrote what it touches, or read what it writes. Steps run level by level, with one
// barrier between: there cannot be fewer, for every level holds a step that waits for one of the level before. In a level those with
// few workgroups come first, because a device starts them in this order: behind a large one they would wait for the end of it. With
// Profile or BarrierEverywhere the steps run as they were recorded.
func (t *Tape) schedule() {
	n := len(t.steps)
	t.order, t.barriers, t.cuts = make([]int, n), make([]bool, n), t.cuts[:0]
	for i := range t.order {
		t.order[i] = i
	}
	if t.config.BarrierEverywhere || t.config.Profile {
		for i := range t.barriers {
			t.barriers[i] = t.config.BarrierEverywhere || i > 0
		}
	} else {
		level := t.levels()
		slices.SortStableFunc(t.order, func(a, b int) int {
			return cmp.Or(cmp.Compare(level[a], level[b]), cmp.Compare(t.steps[a].groups, t.steps[b].groups))
		})
		for i := range t.order[1:] {
			t.barriers[i+1] = level[t.order[i]] != level[t.order[i+1]]
		}
	}
	t.cut()
	for i, left := 0, t.planted; i < n && left >= 0; i++ {
		if t.barriers[i] {
			t.barriers[i] = left > 0
			left--
		}
	}
}

// cut starts another submit where there is enough work. Every submit starts with a barrier of its own.
func (t *Tape) cut() {
	sum := 0.0
	for i, s := range t.order {
		flops := t.steps[s].flops
		if sum > 0 && flops > 0 && sum+flops > segmentFlops {
			t.cuts = append(t.cuts, i)
			t.barriers[i], sum = t.config.BarrierEverywhere, 0
		}
		sum += flops
	}
}

// parted says whether a barrier, or the start of a submit, stands before place i in the order.
func (t *Tape) parted(i int) bool { return t.barriers[i] || slices.Contains(t.cuts, i) }

// kinds says for every place in the order of what kinds the steps are that no barrier parts from it.
func (t *Tape) kinds() []uint32 {
	list := make([]uint32, len(t.order))
	for from := 0; from < len(list); {
		all, to := t.steps[t.order[from]].kind, from+1
		for ; to < len(list) && !t.parted(to); to++ {
			all |= t.steps[t.order[to]].kind
		}
		for ; from < to; from++ {
			list[from] = all
		}
	}
	return list
}

// place is what ranges are part of: a buffer or a slot. What is bound to different slots is compared when it is bound.
type place struct {
	buf  *Buffer
	slot *Slot
}

func (r Range) place() place { return place{r.buf, r.slot} }

// lane is a buffer or slot, cut where a range starts or ends: the levels of the last steps that wrote and read each piece.
type lane struct {
	edges       []uint64
	wrote, read []int
	written     bool
}

// pieces are the first piece of a range, and the one after its last.
func (l *lane) pieces(r Range) (from, to int) {
	from, _ = slices.BinarySearch(l.edges, r.offset)
	to, _ = slices.BinarySearch(l.edges, r.offset+r.size)
	return from, to
}

// lanes are the buffers and slots that the steps touch.
func (t *Tape) lanes() map[place]*lane {
	lanes := map[place]*lane{}
	for _, s := range t.steps {
		for _, a := range s.accesses {
			if a.Range.IsZero() {
				continue
			}
			l := lanes[a.Range.place()]
			if l == nil {
				l = &lane{}
				lanes[a.Range.place()] = l
			}
			l.edges = append(l.edges, a.Range.offset, a.Range.offset+a.Range.size)
			l.written = l.written || a.write
		}
	}
	for _, l := range lanes {
		slices.Sort(l.edges)
		l.edges = slices.Compact(l.edges)
		l.wrote, l.read = make([]int, len(l.edges)), make([]int, len(l.edges))
	}
	return lanes
}

// levels finds the level of every step, from 1 on. Parts of a step have one.
func (t *Tape) levels() []int {
	lanes, list := t.lanes(), make([]int, len(t.steps))
	for from, to := 0, 0; from < len(t.steps); from = to {
		for to = from + 1; to < len(t.steps) && t.steps[to].unit == from; to++ {
		}
		level := 0
		touched := func(do func(l *lane, from, to int, write bool)) {
			for _, s := range t.steps[from:to] {
				for _, a := range s.accesses {
					if l := lanes[a.Range.place()]; l != nil && l.written {
						first, end := l.pieces(a.Range)
						do(l, first, end, a.write)
					}
				}
			}
		}
		touched(func(l *lane, from, to int, write bool) {
			level = max(level, slices.Max(l.wrote[from:to]))
			if write {
				level = max(level, slices.Max(l.read[from:to]))
			}
		})
		level++
		touched(func(l *lane, from, to int, write bool) {
			for i := from; i < to; i++ {
				if write {
					l.wrote[i] = level
				} else {
					l.read[i] = max(l.read[i], level)
				}
			}
		})
		for i := from; i < to; i++ {
			list[i] = level
		}
	}
	return list
}

// Barriers is the number of barriers in a run, without those at the starts of submits. Without TapeConfig.BarrierEverywhere there
// cannot be fewer.
func (t *Tape) Barriers() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.ready {
		t.schedule()
	}
	n := 0
	for _, b := range t.barriers {
		if b {
			n++
		}
	}
	return n
}

// touch is an access of a step, for the hazard checker.
type touch struct {
	Access
	step int
}

// check is the hazard checker. It knows nothing of how the order and the barriers were found: it takes every two steps that touch a common
// byte, one of them writing, and wants them to run in the order of their recording, with a barrier or a new submit between. Parts of
// a step are let off: the ranges do not tell their parts of the memory apart.
func (t *Tape) check() error {
	when, group := make([]int, len(t.steps)), 1
	for i, s := range t.order {
		if t.parted(i) {
			group++
		}
		if when[s] != 0 {
			return fmt.Errorf("hazard: step %d (%s) runs twice", s, t.steps[s].name)
		}
		when[s] = group
	}
	all := map[place][]touch{}
	for i, s := range t.steps {
		if when[i] == 0 {
			return fmt.Errorf("hazard: step %d (%s) does not run", i, s.name)
		}
		for _, a := range s.accesses {
			if !a.Range.IsZero() {
				all[a.Range.place()] = append(all[a.Range.place()], touch{a, i})
			}
		}
	}
	for _, list := range all {
		if err := t.disordered(list, when); err != nil {
			return err
		}
	}
	return nil
}

// disordered looks for a hazard in what is done to one buffer or slot: along its bytes, every access meets those that start inside it.
func (t *Tape) disordered(list []touch, when []int) error {
	if !slices.ContainsFunc(list, func(x touch) bool { return x.write }) {
		return nil
	}
	slices.SortStableFunc(list, func(a, b touch) int { return cmp.Compare(a.Range.offset, b.Range.offset) })
	for i, x := range list {
		for _, y := range list[i+1:] {
			if y.Range.offset >= x.Range.offset+x.Range.size {
				break
			}
			first, second := x.step, y.step
			if first > second {
				first, second = second, first
			}
			if (x.write || y.write) && when[first] >= when[second] && t.steps[first].unit != t.steps[second].unit {
				return fmt.Errorf("hazard: step %d (%s) and step %d (%s) both touch %s, and there is no barrier between them",
					first, t.steps[first].name, second, t.steps[second].name, x.Range.name())
			}
		}
	}
	return nil
}
