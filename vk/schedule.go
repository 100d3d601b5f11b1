package vk

import (
	"cmp"
	"fmt"
	"slices"
)

// segmentFlops is the work of one submit, in floating-point operations; a longer list is split into several. Slow
// devices do about 0.5 TFLOP/s, and some systems reset a device whose submit takes two seconds.
const segmentFlops = 5e11

// schedule sets the order of the steps and the barriers between them. The dependency level of a step is one more than
// the highest level of the earlier steps that it depends on: those that wrote what it accesses, or read what it writes.
// Steps run level by level with one barrier between levels. That is the minimum, because every level holds a step that
// depends on one of the level before. Within a level, steps with few workgroups come first: a device starts steps in
// order, so a small step after a large one would wait for the end of the large one. With Profile or BarrierEverywhere
// the steps run in recorded order. The result is kept until a step is added.
func (l *CommandList) schedule() {
	if l.scheduled {
		return
	}
	l.scheduled = true
	n := len(l.steps)
	l.order, l.barriers, l.submitStarts = make([]int, n), make([]bool, n), l.submitStarts[:0]
	for i := range l.order {
		l.order[i] = i
	}
	if l.config.BarrierEverywhere || l.config.Profile {
		for i := range l.barriers {
			l.barriers[i] = l.config.BarrierEverywhere || i > 0
		}
	} else {
		level := l.dependencyLevels()
		slices.SortStableFunc(l.order, func(a, b int) int {
			return cmp.Or(cmp.Compare(level[a], level[b]), cmp.Compare(l.steps[a].workgroups, l.steps[b].workgroups))
		})
		for i := range l.order[1:] {
			l.barriers[i+1] = level[l.order[i]] != level[l.order[i+1]]
		}
	}
	l.splitSubmits()
	for i, left := 0, l.skippedBarrier; i < n && left >= 0; i++ {
		if l.barriers[i] {
			l.barriers[i] = left > 0
			left--
		}
	}
}

// splitSubmits starts another submit where segmentFlops is exceeded. Every submit begins with a barrier, so none
// precedes its first step.
func (l *CommandList) splitSubmits() {
	sum := 0.0
	for i, s := range l.order {
		flops := l.steps[s].flops
		if sum > 0 && flops > 0 && sum+flops > segmentFlops {
			l.submitStarts = append(l.submitStarts, i)
			l.barriers[i], sum = l.config.BarrierEverywhere, 0
		}
		sum += flops
	}
}

// separated reports whether a barrier or the start of a submit precedes position i of the order.
func (l *CommandList) separated(i int) bool {
	return l.barriers[i] || slices.Contains(l.submitStarts, i)
}

// kindsOfWork returns, for every position of the order, the kinds of all steps that no barrier separates from it.
func (l *CommandList) kindsOfWork() []uint32 {
	list := make([]uint32, len(l.order))
	for from := 0; from < len(list); {
		all, to := l.steps[l.order[from]].kind, from+1
		for ; to < len(list) && !l.separated(to); to++ {
			all |= l.steps[l.order[to]].kind
		}
		for ; from < to; from++ {
			list[from] = all
		}
	}
	return list
}

// dependencyLevels returns the level of every step. The steps of an independent set have one level.
func (l *CommandList) dependencyLevels() []int {
	levels, list := make([]int, len(l.steps)), make([]int, len(l.steps)) // levels: of a set, by its first step
	for j := range l.steps {
		now := &l.steps[j]
		for i := j - 1; i >= 0; i-- { // latest first: after those, few steps have a level high enough to be compared
			before := &l.steps[i]
			if levels[before.independentSet] >= levels[now.independentSet] && before.independentSet != now.independentSet && conflicts(before.accesses, now.accesses) {
				levels[now.independentSet] = levels[before.independentSet] + 1
			}
		}
	}
	for i, s := range l.steps {
		list[i] = levels[s.independentSet]
	}
	return list
}

// conflicts reports whether a step depends on an earlier one: a read after a write, or a write after any access.
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

// Barriers returns the number of barriers in a run, not counting those at the starts of submits. Without
// CommandListConfig.Profile and BarrierEverywhere it is the minimum.
func (l *CommandList) Barriers() int {
	l.mu.lock()
	defer l.mu.unlock()
	l.schedule()
	n := 0
	for _, b := range l.barriers {
		if b {
			n++
		}
	}
	return n
}

// checkHazards checks a schedule independently of how it was found: any two steps that access a common byte, at least
// one of them writing, must run in recorded order with a barrier or the start of a submit between them. Steps of one
// independent set are exempt, because their ranges overlap although the accessed bytes do not.
func (l *CommandList) checkHazards() error {
	interval, current := make([]int, len(l.steps)), 1 // interval between barriers in which a step runs
	for i, s := range l.order {
		if l.separated(i) {
			current++
		}
		if interval[s] != 0 {
			return fmt.Errorf("hazard: step %d (%s) runs twice", s, l.steps[s].name)
		}
		interval[s] = current
	}
	for j := range l.steps {
		b := &l.steps[j]
		if interval[j] == 0 {
			return fmt.Errorf("hazard: step %d (%s) does not run", j, b.name)
		}
		for i := range l.steps[:j] {
			a := &l.steps[i]
			if interval[i] < interval[j] || a.independentSet == b.independentSet {
				continue
			}
			for _, x := range a.accesses {
				for _, y := range b.accesses {
					if (x.write || y.write) && x.Range.overlaps(y.Range) {
						return fmt.Errorf("hazard: step %d (%s) and step %d (%s) both access %s, but are reordered or have no barrier between them",
							i, a.name, j, b.name, x.Range.name())
					}
				}
			}
		}
	}
	return nil
}
