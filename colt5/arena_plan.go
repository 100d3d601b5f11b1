package colt5

import (
	"cmp"
	"math"
	"slices"
)

// lifetime is an allocation of a recording: from its number among the allocations and releases to that of its release.
type lifetime struct {
	size           uint64
	born, released int
}

// lifetimes are the allocations of a recording, in order. The zero value is ready.
type lifetimes struct {
	list []lifetime
	live map[extent]int // index in list
	now  int            // allocations and releases so far
}

func (l *lifetimes) alloc(e extent) {
	if l.live == nil {
		l.live = map[extent]int{}
	}
	l.live[e] = len(l.list)
	l.list = append(l.list, lifetime{e.size, l.now, math.MaxInt})
	l.now++
}

func (l *lifetimes) release(e extent) {
	if i, ok := l.live[e]; ok {
		l.list[i].released = l.now
		l.now++
		delete(l.live, e)
	}
}

// maxPlanned is the most allocations that are planned, because each of at most eight plans takes quadratic time.
const maxPlanned = 4096

// plan lays out the workspace of a training step. Steps that reuse memory wait for each other even where no data flows between
// them. In a backward pass these are many: the gradients of weights wait for nothing but the gradients of rows, which do not
// wait for them. So memory is reused late, small extents the latest, as far as the peak grows by 4 % at most. The
// result is in the order of the allocations; nil: there are too many.
func (l *lifetimes) plan() (placed []extent, peak uint64) {
	if len(l.list) > maxPlanned {
		return nil, 0
	}
	placed, peak = l.place(0)
	limit := peak + peak/25
	for low, high := 0, 96; low < high; {
		step := (low + high + 1) / 2
		if p, bytes := l.place(uint64(2|step&1) << (step / 2)); bytes <= limit { // 2, 3, 4, 6, 8, 12, ..
			placed, peak, low = p, bytes, step
		} else {
			high = step - 1
		}
	}
	return placed, peak
}

// place places the largest allocations first, each at the lowest offset that is free in its lifetime, which is prolonged by
// delay / size. Blocks that a training step keeps from the forward to the backward pass fragment a workspace that is laid out in
// the order of the steps.
func (l *lifetimes) place(delay uint64) (placed []extent, peak uint64) {
	order, prolonged := make([]int, len(l.list)), slices.Clone(l.list)
	for i := range order {
		order[i] = i
		prolonged[i].released += int(min(delay/l.list[i].size, uint64(l.now), uint64(math.MaxInt-l.list[i].released)))
	}
	slices.SortStableFunc(order, func(i, j int) int { return cmp.Compare(l.list[j].size, l.list[i].size) })
	placed = make([]extent, len(l.list))
	var byOffset []int // of those that are placed
	for _, i := range order {
		a, at := prolonged[i], uint64(0)
		for _, j := range byOffset {
			b := prolonged[j]
			if a.born >= b.released || b.born >= a.released || placed[j].end() <= at {
				continue
			}
			if placed[j].offset >= at+a.size {
				break
			}
			at = placed[j].end()
		}
		placed[i] = extent{at, a.size}
		where, _ := slices.BinarySearchFunc(byOffset, at, func(j int, offset uint64) int { return cmp.Compare(placed[j].offset, offset) })
		byOffset = slices.Insert(byOffset, where, i)
		peak = max(peak, at+a.size)
	}
	return placed, peak
}
