package vk

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
func (l *CommandList) schedule() {
	n := len(l.steps)
	l.order, l.barriers, l.cuts = make([]int, n), make([]bool, n), l.cuts[:0]
	for i := range l.order {
		l.order[i] = i
	}
	if l.config.BarrierEverywhere || l.config.Profile {
		for i := range l.barriers {
			l.barriers[i] = l.config.BarrierEverywhere || i > 0
		}
	} else {
		level := l.levels()
		slices.SortStableFunc(l.order, func(a, b int) int {
			return cmp.Or(cmp.Compare(level[a], level[b]), cmp.Compare(l.steps[a].workgroups, l.steps[b].workgroups))
		})
		for i := range l.order[1:] {
			l.barriers[i+1] = level[l.order[i]] != level[l.order[i+1]]
		}
	}
	l.cut()
	for i, left := 0, l.skippedBarrier; i < n && left >= 0; i++ {
		if l.barriers[i] {
			l.barriers[i] = left > 0
			left--
		}
	}
}

// cut starts another submit where there is enough work. Every submit starts with a barrier of its own.
func (l *CommandList) cut() {
	sum := 0.0
	for i, s := range l.order {
		flops := l.steps[s].flops
		if sum > 0 && flops > 0 && sum+flops > segmentFlops {
			l.cuts = append(l.cuts, i)
			l.barriers[i], sum = l.config.BarrierEverywhere, 0
		}
		sum += flops
	}
}

// parted says whether a barrier, or the start of a submit, stands before place i in the order.
func (l *CommandList) parted(i int) bool { return l.barriers[i] || slices.Contains(l.cuts, i) }

// kinds says for every place in the order of what kinds the steps are that no barrier parts from it.
func (l *CommandList) kinds() []uint32 {
	list := make([]uint32, len(l.order))
	for from := 0; from < len(list); {
		all, to := l.steps[l.order[from]].kind, from+1
		for ; to < len(list) && !l.parted(to); to++ {
			all |= l.steps[l.order[to]].kind
		}
		for ; from < to; from++ {
			list[from] = all
		}
	}
	return list
}

// levels finds the level of every step. Parts of a step have one.
func (l *CommandList) levels() []int {
	units, list := make([]int, len(l.steps)), make([]int, len(l.steps))
	for j := range l.steps {
		now := &l.steps[j]
		for i := j - 1; i >= 0; i-- { // the last ones first: after them few are high enough to look at
			before := &l.steps[i]
			if units[before.unit] >= units[now.unit] && before.unit != now.unit && conflicts(before.accesses, now.accesses) {
				units[now.unit] = units[before.unit] + 1
			}
		}
	}
	for i, s := range l.steps {
		list[i] = units[s.unit]
	}
	return list
}

// conflicts says whether a step must wait for another one: a read after a write, or a write after anything.
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

// Barriers is the number of barriers in a run, without those at the starts of submits. Without TapeConfig.BarrierEverywhere there
// cannot be fewer.
func (l *CommandList) Barriers() int {
	l.mu.lock()
	defer l.mu.unlock()
	if !l.ready {
		l.schedule()
	}
	n := 0
	for _, b := range l.barriers {
		if b {
			n++
		}
	}
	return n
}

// check is the hazard checker. It knows nothing of how the order and the barriers were found: it takes every two steps that touch a common
// byte, one of them writing, and wants them to run in the order of their recording, with a barrier or a new submit between. Parts of
// a step are let off: the ranges do not tell their parts of the memory apart.
func (l *CommandList) check() error {
	when, group := make([]int, len(l.steps)), 1
	for i, s := range l.order {
		if l.parted(i) {
			group++
		}
		if when[s] != 0 {
			return fmt.Errorf("hazard: step %d (%s) runs twice", s, l.steps[s].name)
		}
		when[s] = group
	}
	for j := range l.steps {
		b := &l.steps[j]
		if when[j] == 0 {
			return fmt.Errorf("hazard: step %d (%s) does not run", j, b.name)
		}
		for i := range l.steps[:j] {
			a := &l.steps[i]
			if when[i] < when[j] || a.unit == b.unit {
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
