// Package pretend lets tests run the kernels that another chip would get. Kernel variants are selected by what a
// device can hold; a CPU driver can run the variants of most GPUs.
package pretend

import (
	"sync/atomic"

	"github.com/colt5-vulkan/colt5/vk"
)

var current atomic.Pointer[vk.Info]

// Chip makes package pipelines choose kernels by the registers of a chip instead of those of the device, and treat
// a CPU driver as a GPU, until restore is called. It concerns all devices of the process.
func Chip(i vk.Info) (restore func()) {
	before := current.Swap(&i)
	return func() { current.Store(before) }
}

// Nothing makes package pipelines choose by the device itself until restore is called, for tests of the choice.
func Nothing() (restore func()) {
	before := current.Swap(nil)
	return func() { current.Store(before) }
}

// Current returns the chip of the last call of Chip, nil if there is none.
func Current() *vk.Info { return current.Load() }
