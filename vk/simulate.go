package vk

// #include "native.h"
import "C"

import (
	"github.com/colt5-vulkan/colt5/internal/simulate"
	vulkan "github.com/vulkan-go/vulkan"
)

// simulate lowers the limits of a device before it is opened.
func (p *physical) simulate(l *simulate.Limits) {
	lower := func(v *uint32, limit uint32) {
		if limit > 0 {
			*v = min(*v, limit)
		}
	}
	caps, probe := &p.info.Caps, &p.probe
	lower(&caps.MaxSharedBytes, l.MaxSharedBytes)
	lower(&caps.MaxPushBytes, l.MaxPushBytes)
	lower(&caps.MaxWorkgroupInvocations, l.MaxInvocations)
	for i := range caps.MaxWorkgroupSize {
		lower(&caps.MaxWorkgroupSize[i], l.MaxInvocations)
	}
	if l.NoFloat16 {
		caps.Float16, probe.shader_float16 = false, 0
	}
	if l.NoStorage16 {
		caps.Storage16, probe.storage16 = false, 0
	}
	if l.NoSubgroupSizeControl {
		caps.SubgroupSizeControl, caps.FullSubgroups, probe.size_control, probe.full_subgroups = false, false, 0, 0
		caps.SubgroupMin, caps.SubgroupMax, caps.MaxWorkgroupSubgroups = caps.SubgroupSize, caps.SubgroupSize, 0
	}
	if l.NoTimestamps {
		caps.TimestampNanoseconds, caps.timestampBits = 0, 0
	}
	p.simulateMemory(l)
}

const (
	hostFlags = vulkan.MemoryPropertyFlags(vulkan.MemoryPropertyHostVisibleBit | vulkan.MemoryPropertyHostCoherentBit | vulkan.MemoryPropertyHostCachedBit)
	visible   = vulkan.MemoryPropertyFlags(vulkan.MemoryPropertyHostVisibleBit)
	coherent  = vulkan.MemoryPropertyFlags(vulkan.MemoryPropertyHostCoherentBit)
)

// simulateMemory replaces the memory types of the device.
func (p *physical) simulateMemory(l *simulate.Limits) {
	m := &p.memory
	p.bufferBytes = l.BufferBytes
	if l.HostVisibleBytes > 0 {
		heap := m.MemoryHeapCount
		m.MemoryHeaps[heap].Size, m.MemoryHeaps[heap].Flags = vulkan.DeviceSize(l.HostVisibleBytes), 0
		m.MemoryHeapCount++
		for i := range m.MemoryTypeCount {
			p.realTypes = append(p.realTypes, i)
		}
		for i := range p.realTypes {
			t := &m.MemoryTypes[i]
			if t.PropertyFlags&visible != 0 {
				m.MemoryTypes[m.MemoryTypeCount].PropertyFlags, m.MemoryTypes[m.MemoryTypeCount].HeapIndex = t.PropertyFlags, heap
				m.MemoryTypeCount++
				p.realTypes = append(p.realTypes, uint32(i))
			}
			t.PropertyFlags &^= hostFlags
		}
	}
	if l.NonCoherent {
		for i := range m.MemoryTypeCount {
			m.MemoryTypes[i].PropertyFlags &^= coherent
		}
	}
}

// realType returns the driver's number of a memory type.
func (p *physical) realType(kind uint32) uint32 {
	if p.realTypes == nil {
		return kind
	}
	return p.realTypes[kind]
}

// allocate allocates memory of a type.
func (d *Device) allocate(kind uint32, size C.uint64_t, memory *uint64) error {
	m, result := &d.physical.memory, int32(vulkan.ErrorOutOfDeviceMemory)
	if d.physical.realTypes == nil || vulkan.DeviceSize(size) <= m.MemoryHeaps[m.MemoryTypes[kind].HeapIndex].Size {
		result = int32(C.c5_memory_new(d.c, size, C.uint32_t(d.physical.realType(kind)), (*C.uint64_t)(memory)))
	}
	return d.check("vkAllocateMemory", result)
}
