package vk

// #include "native.h"
import "C"

import (
	"fmt"
	"unsafe"

	vulkan "github.com/vulkan-go/vulkan"
)

// hostMemory is an allocation of host-visible memory, mapped, with a Vulkan buffer over all of it for transfers.
type hostMemory struct {
	buffer, memory uint64
	mapped         []byte // nil: not allocated
	real           []byte // the mapped memory where mapped is a simulation of non-coherent memory, else nil
	coherent       bool
}

// open allocates the memory. After an error close frees what was made.
func (h *hostMemory) open(d *Device, size uint64) error {
	var need, alignTo C.uint64_t
	var types C.uint32_t
	const usage = 3 // transfer source and destination
	if err := d.check("vkCreateBuffer", int32(C.c5_buffer_new(d.c, C.uint64_t(size), usage, (*C.uint64_t)(&h.buffer), &need, &alignTo, &types))); err != nil {
		return err
	}
	const visible, coherent, cached = vulkan.MemoryPropertyHostVisibleBit, vulkan.MemoryPropertyHostCoherentBit, vulkan.MemoryPropertyHostCachedBit
	kind, ok := d.memoryType(uint32(types), []vulkan.MemoryPropertyFlagBits{visible | coherent | cached, visible | cached, visible | coherent, visible})
	if !ok {
		return fmt.Errorf("%w: host-visible memory", ErrUnsupported)
	}
	h.coherent = vulkan.MemoryPropertyFlagBits(d.physical.memory.MemoryTypes[kind].PropertyFlags)&coherent != 0
	if err := d.allocate(kind, need, &h.memory); err != nil {
		return err
	}
	var call *C.char
	result := C.c5_bind(d.c, C.uint64_t(h.buffer), C.uint64_t(h.memory), nil, &call)
	if err := d.checkCall(call, int32(result)); err != nil {
		return err
	}
	var at unsafe.Pointer
	if err := d.check("vkMapMemory", int32(C.c5_map(d.c, C.uint64_t(h.memory), &at))); err != nil {
		return err
	}
	h.mapped = unsafe.Slice((*byte)(at), size)
	if d.nonCoherent {
		h.real, h.mapped = h.mapped, make([]byte, size)
	}
	return nil
}

// close frees everything, also after an open that failed midway.
func (h *hostMemory) close(d *Device) {
	d.destroyBuffer(h.buffer)
	d.freeMemory(h.memory)
	*h = hostMemory{}
}

// flush makes what the host wrote visible to what is submitted later.
func (h *hostMemory) flush(d *Device) error {
	if h.coherent {
		return nil
	}
	copy(h.real, h.mapped)
	return d.check("vkFlushMappedMemoryRanges", int32(C.c5_sync_mapped(d.c, C.uint64_t(h.memory), 1)))
}

// invalidate makes what the device wrote visible to the host.
func (h *hostMemory) invalidate(d *Device) error {
	if h.coherent {
		return nil
	}
	if err := d.check("vkInvalidateMappedMemoryRanges", int32(C.c5_sync_mapped(d.c, C.uint64_t(h.memory), 0))); err != nil {
		return err
	}
	copy(h.mapped, h.real)
	return nil
}
