package vk

// #include "native.h"
import "C"

// maxDispatchBytes is the most traffic of a dispatch, so that no dispatch takes seconds on a slow GPU, where systems would reset
// the device: 1.5 GB take 60 ms at 25 GB/s. A dispatch with more is recorded as several, each of a part of its workgroups.
const maxDispatchBytes = 1.5e9

// gridPart is a part of a grid of workgroups: those from base on.
type gridPart struct{ base, groups [3]uint32 }

func (p gridPart) count() uint64 {
	return uint64(p.groups[0]) * uint64(p.groups[1]) * uint64(p.groups[2])
}

// divide divides a grid into parts of at most a share of its workgroups: along its last dimension, and where that is not enough
// along the one before too. The first dimension stays whole if the second is not 1, because kernels compute y * (workgroups in
// x) + x; see Grid.
func divide(groups [3]uint32, share float64) []gridPart {
	list := []gridPart{{groups: groups}}
	for axis := 2; axis >= 0 && share < 1 && (axis > 0 || groups[1] == 1); axis-- {
		n := uint64(groups[axis])
		most := max(uint64(share*float64(n)), 1)
		count := (n + most - 1) / most
		share *= float64(n)
		var smaller []gridPart
		for _, p := range list {
			for i := range count {
				begin, end := i*n/count, (i+1)*n/count
				p.base[axis], p.groups[axis] = uint32(begin), uint32(end-begin)
				smaller = append(smaller, p)
			}
		}
		list = smaller
	}
	return list
}
