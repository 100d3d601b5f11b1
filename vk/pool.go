package vk

// #include "native.h"
import "C"

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"unsafe"

	vulkan "github.com/vulkan-go/vulkan"
)

const (
	alignment      = 256      // bytes, of every buffer
	blockBytes     = 16 << 20 // size of a shared block
	maxSharedBytes = 4 << 20  // larger buffers get a block of their own
)

// pool allocates device memory in blocks, which stay in the order of their creation. A buffer is placed in the first
// gap that is large enough, so the locations of buffers depend only on the order of calls.
type pool struct {
	mu                    sync.Mutex
	dev                   *Device
	memoryType            uint32
	heap                  uint32
	blocks                []*block
	closed                bool
	live, peak, allocated uint64 // bytes
	allocations           uint64
	hosts                 []*block // of host buffers, not in blocks
	hostBytes             uint64
}

// block is one allocation of device memory, with a buffer over all of it.
type block struct {
	buffer, memory, address uint64
	size                    uint64
	buffers                 []*Buffer   // sorted by offset
	host                    *hostMemory // of a HostBuffer, which has no address; else nil
}

func (p *pool) init(d *Device) {
	p.dev = d
	p.memoryType = unset
}

func align(n uint64) uint64 { return (n + alignment - 1) &^ (alignment - 1) }

func (p *pool) alloc(b *Buffer) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return ErrClosed
	}
	caps := &p.dev.info.Caps
	switch limit := caps.MaxBufferBytes; {
	case b.size > caps.MemoryBytes:
		return fmt.Errorf("%w: the device has %d bytes", ErrOutOfMemory, caps.MemoryBytes)
	case limit > 0 && b.size > limit:
		return fmt.Errorf("%w: the device has no buffers of more than %d bytes (maxBufferSize)", ErrOutOfMemory, limit)
	}
	size := align(b.size)
	if size <= maxSharedBytes {
		for _, k := range p.blocks {
			if k.alloc(b, size) {
				p.addLive(b.size)
				return nil
			}
		}
	}
	length := size
	if size <= maxSharedBytes && p.available() >= blockBytes {
		length = blockBytes
	}
	k, err := p.newBlock(length)
	if err != nil {
		return err
	}
	p.blocks = append(p.blocks, k)
	k.alloc(b, size)
	p.addLive(b.size)
	return nil
}

func (p *pool) addLive(size uint64) {
	p.live += size
	p.peak = max(p.peak, p.live)
}

// alloc places b in the first gap that is large enough.
func (k *block) alloc(b *Buffer, size uint64) bool {
	at := uint64(0)
	for i, o := range append(slices.Clip(k.buffers), nil) {
		end := k.size
		if o != nil {
			end = o.offset
		}
		if end-at >= size {
			b.block, b.offset = k, at
			k.buffers = slices.Insert(k.buffers, i, b)
			return true
		}
		if o != nil {
			at = o.offset + align(o.size)
		}
	}
	return false
}

func (p *pool) release(b *Buffer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	k := b.block
	if k.host != nil {
		if !p.closed {
			p.freeHost(k)
		}
		return
	}
	i, found := slices.BinarySearchFunc(k.buffers, b.offset, func(o *Buffer, at uint64) int { return cmp.Compare(o.offset, at) })
	if !found || p.closed {
		return
	}
	k.buffers = slices.Delete(k.buffers, i, i+1)
	p.live -= b.size
	// Empty blocks are freed, except for one that the next small buffer reuses.
	if len(k.buffers) == 0 && (k.size != blockBytes || p.hasOtherEmpty(k)) {
		p.blocks = slices.DeleteFunc(p.blocks, func(o *block) bool { return o == k })
		p.free(k)
	}
}

// hasOtherEmpty reports whether another shared block is empty too.
func (p *pool) hasOtherEmpty(k *block) bool {
	return slices.ContainsFunc(p.blocks, func(o *block) bool { return o != k && o.size == blockBytes && len(o.buffers) == 0 })
}

// bufferMemory is the memory for buffers: on the device, or else any.
var bufferMemory = []vulkan.MemoryPropertyFlagBits{vulkan.MemoryPropertyDeviceLocalBit, 0}

// available returns how many bytes may be allocated at present.
func (p *pool) available() uint64 {
	d := p.dev
	heap := p.heap
	if p.memoryType == unset { // nothing was allocated yet: which types buffers allow is not known
		if kind, ok := d.memoryType(^uint32(0), bufferMemory); ok {
			heap = d.physical.memory.MemoryTypes[kind].HeapIndex
		}
	}
	size := uint64(d.physical.memory.MemoryHeaps[heap].Size)
	if limit := d.physical.bufferBytes; limit > 0 {
		size = min(size, limit)
	}
	free := size - min(size, p.allocated)
	if budget, used := d.heapBudget(heap); budget > 0 {
		free = min(free, budget-min(budget, used))
	}
	return free
}

// largest returns the size of the largest buffer that can be made at present.
func (p *pool) largest() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	largest := p.available() &^ (alignment - 1)
	for _, k := range p.blocks {
		largest = max(largest, min(k.gap(), maxSharedBytes))
	}
	if limit := p.dev.info.Caps.MaxBufferBytes; limit > 0 {
		largest = min(largest, limit)
	}
	return largest
}

// gap returns the size of the largest gap between the buffers of a block.
func (k *block) gap() (largest uint64) {
	at := uint64(0)
	for _, b := range k.buffers {
		largest = max(largest, b.offset-at)
		at = b.offset + align(b.size)
	}
	return max(largest, k.size-at)
}

const deviceUsage = 0x20023 // device address, storage, transfer source and destination

func (p *pool) newBlock(size uint64) (*block, error) {
	d := p.dev
	if free := p.available(); size > free {
		return nil, fmt.Errorf("%w: %d bytes are needed, and %d are free", ErrOutOfMemory, size, free)
	}
	k := &block{size: size}
	var need, alignTo C.uint64_t
	var types C.uint32_t
	if err := d.check("vkCreateBuffer", int32(C.c5_buffer_new(d.c, C.uint64_t(size), deviceUsage, (*C.uint64_t)(&k.buffer), &need, &alignTo, &types))); err != nil {
		return nil, err
	}
	if p.memoryType == unset {
		kind, ok := d.memoryType(uint32(types), bufferMemory)
		if !ok {
			d.destroyBuffer(k.buffer)
			return nil, fmt.Errorf("%w: a memory type for storage buffers", ErrUnsupported)
		}
		p.memoryType, p.heap = kind, d.physical.memory.MemoryTypes[kind].HeapIndex
	}
	if err := d.allocate(p.memoryType, need, &k.memory); err != nil {
		d.destroyBuffer(k.buffer)
		if most := d.info.Caps.MaxAllocation; errors.Is(err, ErrOutOfMemory) && size > most {
			err = fmt.Errorf("%w; the device guarantees allocations of up to %d bytes (maxMemoryAllocationSize)", err, most)
		}
		return nil, err
	}
	var call *C.char
	result := C.c5_bind(d.c, C.uint64_t(k.buffer), C.uint64_t(k.memory), (*C.uint64_t)(&k.address), &call)
	if err := d.checkCall(call, int32(result)); err != nil {
		d.destroyBuffer(k.buffer)
		d.freeMemory(k.memory)
		return nil, err
	}
	p.allocated += size
	p.allocations++
	return k, nil
}

func (p *pool) free(k *block) {
	p.dev.destroyBuffer(k.buffer)
	p.dev.freeMemory(k.memory)
	p.allocated -= k.size
}

// close frees the blocks without buffers.
func (p *pool) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, k := range p.blocks {
		if len(k.buffers) == 0 {
			p.free(k)
		}
	}
}

func (p *pool) stats() DeviceStats {
	p.mu.Lock()
	defer p.mu.Unlock()
	return DeviceStats{BufferBytes: p.live, PeakBytes: p.peak, DeviceBytes: p.allocated + p.hostBytes, Allocations: p.allocations}
}

// ResetPeak sets DeviceStats.PeakBytes to the present DeviceStats.BufferBytes.
func (d *Device) ResetPeak() {
	d.pool.mu.Lock()
	defer d.pool.mu.Unlock()
	d.pool.peak = d.pool.live
}

// openBuffers counts the buffers that the caller has not closed, and names some of them.
func (p *pool) openBuffers() (count int, names string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	const most, length = 4, 40
	var list []string
	for _, k := range slices.Concat(p.blocks, p.hosts) {
		for _, b := range k.buffers {
			if b.uses.Load() < 0 {
				continue // closed, but the device still uses it
			}
			switch count++; {
			case count > most:
			case len(b.name) > length:
				list = append(list, strings.ToValidUTF8(b.name[:length], "")+"...")
			default:
				list = append(list, b.name)
			}
		}
	}
	if count > most {
		list = append(list, "...")
	}
	return count, strings.Join(list, ", ")
}

// memoryType returns the first allowed memory type that has all flags of the first possible set in wanted. Of several
// it returns the one with the largest heap, because host-visible device memory may be a small window.
func (d *Device) memoryType(allowed uint32, wanted []vulkan.MemoryPropertyFlagBits) (uint32, bool) {
	m := &d.physical.memory
	for _, want := range wanted {
		found, ok := uint32(0), false
		var size vulkan.DeviceSize
		for i := range m.MemoryTypeCount {
			flags := vulkan.MemoryPropertyFlagBits(m.MemoryTypes[i].PropertyFlags)
			heap := m.MemoryHeaps[m.MemoryTypes[i].HeapIndex].Size
			if allowed>>d.physical.realType(i)&1 == 1 && flags&want == want && flags&vulkan.MemoryPropertyProtectedBit == 0 && (!ok || heap > size) {
				found, size, ok = i, heap, true
			}
		}
		if ok {
			return found, true
		}
	}
	return 0, false
}

func (d *Device) destroyBuffer(b uint64) {
	vulkan.DestroyBuffer(d.handle, *(*vulkan.Buffer)(unsafe.Pointer(&b)), nil)
}

func (d *Device) freeMemory(m uint64) {
	vulkan.FreeMemory(d.handle, *(*vulkan.DeviceMemory)(unsafe.Pointer(&m)), nil)
}
