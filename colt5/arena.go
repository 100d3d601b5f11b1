package colt5

import "slices"

// arena lays out the workspace of a plan. Extents are allocated and released in the order of the steps, so that extents
// that are not live at the same time share memory. It needs no device: the workspace of a call is a function of its
// shapes.
//
// Steps that reuse memory depend on each other even where no data flows between them. So up to limit the release of an
// extent is deferred: released extents are reused as late as possible, the longest deferred first. Of very many extents
// (calls that are split into thousands of steps) only the last maxDeferred are deferred. Without a limit none is, and
// the workspace is about as small as possible.
type arena struct {
	live     []extent // by offset, deferred ones included
	deferred []extent // in the order of their release
	limit    uint64
	peak     uint64

	lifetimes *lifetimes // receives the allocations; nil: not wanted
	planned   []extent   // what the next allocations are, from lifetimes; nil: they are placed in order
}

// extent is a part of a workspace.
type extent struct{ offset, size uint64 }

const (
	extentAlignment = 256
	maxDeferred     = 256 // more than ten times what a module has at the sizes of its tests and benchmarks
)

// end is where the next extent may start.
func (e extent) end() uint64 {
	return (e.offset + e.size + extentAlignment - 1) &^ (extentAlignment - 1)
}

// alloc returns memory for size bytes; 0 bytes are an absent extent.
func (a *arena) alloc(size uint64) extent {
	if size == 0 {
		return extent{}
	}
	if a.planned != nil {
		if len(a.planned) == 0 {
			return extent{} // an error of the caller: the recording differs from the planned one
		}
		e := a.planned[0]
		a.planned, a.peak = a.planned[1:], max(a.peak, e.offset+e.size)
		return e
	}
	at, i := a.firstFit(size)
	for len(a.deferred) > 0 && (at+size > a.limit || len(a.deferred) > maxDeferred) {
		a.free(a.deferred[0])
		a.deferred = a.deferred[1:]
		at, i = a.firstFit(size)
	}
	e := extent{at, size}
	a.live = slices.Insert(a.live, i, e)
	a.peak = max(a.peak, at+size)
	if a.lifetimes != nil {
		a.lifetimes.alloc(e)
	}
	return e
}

// firstFit is the lowest offset with size free bytes, and the number of live extents before it.
func (a *arena) firstFit(size uint64) (at uint64, i int) {
	for i < len(a.live) && a.live[i].offset-at < size {
		at = a.live[i].end()
		i++
	}
	return at, i
}

// free makes an extent available to the next alloc.
func (a *arena) free(e extent) {
	if i := slices.Index(a.live, e); i >= 0 {
		a.live = slices.Delete(a.live, i, i+1)
	}
}

// releaseLater marks extents as not needed by later steps. They are freed when alloc needs the memory.
func (a *arena) releaseLater(list ...extent) {
	for _, e := range list {
		if e.size > 0 && slices.Contains(a.live, e) && !slices.Contains(a.deferred, e) {
			a.deferred = append(a.deferred, e)
			if a.lifetimes != nil {
				a.lifetimes.release(e)
			}
		}
	}
}
