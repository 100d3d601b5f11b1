package vk

// #include "native.h"
import "C"

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"unsafe"

	vulkan "github.com/vulkan-go/vulkan"
)

const (
	halfBytes    = 8 << 20
	stagingBytes = 2 * halfBytes
)

// Transfer is a copy between host and device. Data is as long as Range.
type Transfer struct {
	Range Range
	Data  []byte
}

// staging carries data through two halves of host-visible memory: the device copies one while the host copies the other. It opens with
// the first transfer, for kernels also compile where no memory is.
type staging struct {
	mu             sync.Mutex
	dev            *Device
	buffer, memory uint64
	mapped         []byte // nil: not open
	coherent       bool
	halves         [2]*half
	taken          atomic.Uint64 // bytes of device memory
}

// half is half of the staging memory, and the command buffer that copies from or to it.
type half struct {
	commands
	memory []byte
	offset uint64
	used   uint64
	ops    []byte
	out    []Transfer // for downloads: where the bytes go, Range being in the staging memory's terms
	held   []*Buffer  // kept open until the device is done, which after a timeout is later than the call's return
	busy   bool
}

// open takes the memory, unless it is there. Where that fails nothing is left, and the next transfer tries again.
func (s *staging) open() error {
	if s.mapped != nil {
		return nil
	}
	if err := s.take(); err != nil {
		s.close()
		return fmt.Errorf("staging memory: %w", err)
	}
	s.taken.Store(stagingBytes)
	return nil
}

func (s *staging) take() error {
	d := s.dev
	var need, alignTo C.uint64_t
	var types C.uint32_t
	const usage = 3 // transfer both ways
	if err := d.check("vkCreateBuffer", int32(C.c5_buffer_new(d.c, stagingBytes, usage, (*C.uint64_t)(&s.buffer), &need, &alignTo, &types))); err != nil {
		return err
	}
	if err := s.bind(need, uint32(types)); err != nil {
		return err
	}
	for i := range s.halves {
		h := &half{memory: s.mapped[i*halfBytes : (i+1)*halfBytes], offset: uint64(i) * halfBytes}
		if err := h.open(d); err != nil {
			return err
		}
		s.halves[i] = h
	}
	return nil
}

func (s *staging) bind(need C.uint64_t, types uint32) error {
	d := s.dev
	const visible, coherent, cached = vulkan.MemoryPropertyHostVisibleBit, vulkan.MemoryPropertyHostCoherentBit, vulkan.MemoryPropertyHostCachedBit
	kind, ok := d.memoryType(types, []vulkan.MemoryPropertyFlagBits{visible | coherent | cached, visible | cached, visible | coherent, visible})
	if !ok {
		return fmt.Errorf("%w: no memory that the host can see", ErrUnsupported)
	}
	s.coherent = vulkan.MemoryPropertyFlagBits(d.phys.memory.MemoryTypes[kind].PropertyFlags)&coherent != 0
	if err := d.check("vkAllocateMemory", int32(C.c5_memory_new(d.c, need, C.uint32_t(kind), (*C.uint64_t)(&s.memory)))); err != nil {
		return err
	}
	if err := d.check("vkBindBufferMemory", int32(C.c5_bind(d.c, C.uint64_t(s.buffer), C.uint64_t(s.memory), nil))); err != nil {
		return err
	}
	var at unsafe.Pointer
	if err := d.check("vkMapMemory", int32(C.c5_map(d.c, C.uint64_t(s.memory), &at))); err != nil {
		return err
	}
	s.mapped = unsafe.Slice((*byte)(at), stagingBytes)
	return nil
}

// close gives everything back; it may be open, half open or not open.
func (s *staging) close() {
	for i, h := range s.halves {
		if h != nil {
			h.destroy(s.dev)
			s.halves[i] = nil
		}
	}
	s.dev.destroyBuffer(s.buffer)
	s.dev.freeMemory(s.memory)
	s.buffer, s.memory, s.mapped = 0, 0, nil
	s.taken.Store(0)
}

// Upload copies host data to the device, several pieces together, and returns when they are there. The pieces do not overlap.
func (d *Device) Upload(ctx context.Context, list ...Transfer) error {
	return d.transfer(ctx, "Upload", list, true)
}

// Download copies device memory to the host, several pieces together.
func (d *Device) Download(ctx context.Context, list ...Transfer) error {
	return d.transfer(ctx, "Download", list, false)
}

func (d *Device) transfer(ctx context.Context, op string, list []Transfer, up bool) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("vk: %s: %w", op, err)
	}
	if err := d.enter(op); err != nil {
		return err
	}
	defer d.leave()
	for i, t := range list {
		if err := t.Range.valid(d, nil); err != nil {
			return fmt.Errorf("vk: %s: transfer %d %w", op, i, err)
		}
		if uint64(len(t.Data)) != t.Range.size {
			return fmt.Errorf("vk: %s: transfer %d: %d bytes of data for %d bytes of %s", op, i, len(t.Data), t.Range.size, t.Range.name())
		}
	}
	if up {
		if err := disjoint(list); err != nil {
			return fmt.Errorf("vk: %s: %w", op, err)
		}
	}
	for i, t := range list {
		if !t.Range.buf.pin() {
			for _, u := range list[:i] {
				u.Range.buf.unpin()
			}
			return fmt.Errorf("vk: %s: transfer %d: %s is %w", op, i, t.Range.name(), ErrClosed)
		}
	}
	err := d.staging.move(list, up)
	for _, t := range list {
		t.Range.buf.unpin()
	}
	if err != nil {
		return fmt.Errorf("vk: %s: %w", op, err)
	}
	return nil
}

// disjoint checks that no byte of the device is written twice: which of the two would stay is chance.
func disjoint(list []Transfer) error {
	if len(list) < 2 {
		return nil
	}
	ranges := make([]Range, len(list))
	for i, t := range list {
		ranges[i] = t.Range
	}
	slices.SortFunc(ranges, func(a, b Range) int { return cmp.Compare(a.address(), b.address()) })
	for i, r := range ranges[1:] {
		if ranges[i].address()+ranges[i].size > r.address() {
			return fmt.Errorf("two transfers write bytes of %s from %d on", r.name(), r.offset)
		}
	}
	return nil
}

// move cuts the list into pieces that fill the halves in turn.
func (s *staging) move(list []Transfer, up bool) (err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(list) == 0 {
		return nil
	}
	if err := s.open(); err != nil {
		return err
	}
	defer func() {
		if err != nil { // the caller's memory is not ours once the call has returned
			s.halves[0].out, s.halves[1].out = nil, nil
		}
	}()
	turn := 0
	for _, t := range list {
		for done := uint64(0); done < t.Range.size; {
			h := s.halves[turn]
			if h.busy {
				if err := s.finish(h); err != nil {
					return err
				}
			}
			n := min(t.Range.size-done, halfBytes-h.used)
			h.add(s, t, done, n, up)
			done += n
			if h.used == halfBytes {
				if err := s.start(h, up); err != nil {
					return err
				}
				turn = 1 - turn
			}
		}
	}
	if err := s.start(s.halves[turn], up); err != nil {
		return err
	}
	for _, h := range []*half{s.halves[1-turn], s.halves[turn]} {
		if err := s.finish(h); err != nil {
			return err
		}
	}
	return nil
}

// add puts n bytes of t, from done on, into what the half copies next.
func (h *half) add(s *staging, t Transfer, done, n uint64, up bool) {
	data := t.Data[done : done+n]
	device, at := t.Range.buf.block.buffer, t.Range.buf.offset+t.Range.offset+done
	if h.used == 0 {
		h.ops = appendBarrier(h.ops, kindAny, kindTransfer)
	}
	if up {
		copy(h.memory[h.used:], data)
		h.ops = appendCopy(h.ops, s.buffer, h.offset+h.used, device, at, n)
	} else {
		h.out = append(h.out, Transfer{Range: Range{offset: h.used, size: n}, Data: data})
		h.ops = appendCopy(h.ops, device, at, s.buffer, h.offset+h.used, n)
	}
	t.Range.buf.uses.Add(1) // the call has it pinned already
	h.held = append(h.held, t.Range.buf)
	h.used += n
}

// start sends a half off, unless it is empty or under way already.
func (s *staging) start(h *half, up bool) error {
	if h.used == 0 || h.busy {
		return nil
	}
	var err error
	if up && !s.coherent {
		err = s.dev.check("vkFlushMappedMemoryRanges", int32(C.c5_sync_mapped(s.dev.c, C.uint64_t(s.memory), 1)))
	}
	if err == nil {
		h.ops = appendBarrier(h.ops, kindTransfer, kindHost)
		err = h.encode(s.dev, h.ops)
	}
	if err == nil {
		err = h.submit(s.dev)
	}
	if err != nil {
		h.reset()
		return err
	}
	h.busy = true
	return nil
}

func (h *half) reset() {
	for _, b := range h.held {
		b.unpin()
	}
	clear(h.out) // the caller's memory
	h.used, h.ops, h.out, h.held, h.busy = 0, h.ops[:0], h.out[:0], h.held[:0], false
}

// finish waits for a half, hands out what it downloaded, and empties it.
func (s *staging) finish(h *half) error {
	if !h.busy {
		return nil
	}
	if err := h.wait(s.dev); err != nil {
		if s.dev.lost.Load() {
			h.reset() // nothing runs on a lost device
		}
		return err
	}
	if len(h.out) > 0 && !s.coherent {
		if err := s.dev.check("vkInvalidateMappedMemoryRanges", int32(C.c5_sync_mapped(s.dev.c, C.uint64_t(s.memory), 0))); err != nil {
			h.reset()
			return err
		}
	}
	for _, t := range h.out {
		copy(t.Data, h.memory[t.Range.offset:][:t.Range.size])
	}
	h.reset()
	return nil
}

// drop forgets transfers that run into a lost device: nothing runs there any more.
func (s *staging) drop() {
	for _, h := range s.halves {
		if h != nil {
			h.reset()
		}
	}
}

// settle ends transfers that had run into a timeout; the device is idle.
func (s *staging) settle() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, h := range s.halves {
		if h == nil {
			continue // not open
		}
		if err := s.finish(h); err != nil {
			return err
		}
	}
	return nil
}

// Bytes is the memory of a slice of numbers, without a copy. Devices and this library are little-endian.
func Bytes[T ~float32 | ~int32 | ~uint32 | ~uint16 | ~uint8](s []T) []byte {
	if len(s) == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(unsafe.Pointer(&s[0])), len(s)*int(unsafe.Sizeof(s[0])))
}
