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
func (t *CommandList) schedule() {
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
func (t *CommandList) cut() {
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
func (t *CommandList) parted(i int) bool { return t.barriers[i] || slices.Contains(t.cuts, i) }

// kinds says for every place in the order of what kinds the steps are that no barrier parts from it.
func (t *CommandList) kinds() []uint32 {
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

// levels finds the level of every step. Parts of a step have one.
func (t *CommandList) levels() []int {
	units, list := make([]int, len(t.steps)), make([]int, len(t.steps))
	for j := range t.steps {
		now := &t.steps[j]
		for i := j - 1; i >= 0; i-- { // the last ones first: after them few are high enough to look at
			before := &t.steps[i]
			if units[before.unit] >= units[now.unit] && before.unit != now.unit && conflicts(before.accesses, now.accesses) {
				units[now.unit] = units[before.unit] + 1
			}
		}
	}
	for i, s := range t.steps {
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
func (t *CommandList) Barriers() int {
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

// check is the hazard checker. It knows nothing of how the order and the barriers were found: it takes every two steps that touch a common
// byte, one of them writing, and wants them to run in the order of their recording, with a barrier or a new submit between. Parts of
// a step are let off: the ranges do not tell their parts of the memory apart.
func (t *CommandList) check() error {
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
	for j := range t.steps {
		b := &t.steps[j]
		if when[j] == 0 {
			return fmt.Errorf("hazard: step %d (%s) does not run", j, b.name)
		}
		for i := range t.steps[:j] {
			a := &t.steps[i]
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
