package vk

// #include "native.h"
import "C"

import (
	"fmt"
	"sync/atomic"
)

// Buffer is a range of device memory.
type Buffer struct {
	dev    *Device
	name   string
	size   uint64
	block  *block
	offset uint64
	uses   atomic.Int64 // runs and transfers that use the memory; Close adds closedUse
}

const closedUse = -1 << 40

// Range is a range of bytes of a buffer or of a binding. The zero Range represents an absent argument.
type Range struct {
	buf          *Buffer
	binding      *Binding
	offset, size uint64
	invalid      bool // a slice that exceeds its range, or a slice of one
}

// Size returns the size in bytes.
func (r Range) Size() uint64 { return r.size }

// Offset returns the start of the range in its buffer or binding, in bytes. Buffers are aligned to 256 bytes. Memory
// bound to a binding must be aligned to 16.
func (r Range) Offset() uint64 { return r.offset }

// IsZero reports whether r is the zero Range.
func (r Range) IsZero() bool { return r.buf == nil && r.binding == nil }

// Device returns the device of the range, nil for the zero Range.
func (r Range) Device() *Device {
	switch {
	case r.buf != nil:
		return r.buf.dev
	case r.binding != nil:
		return r.binding.list.dev
	}
	return nil
}

// Slice returns the size bytes of r from offset on. A slice that exceeds r may be made, but using it is an error.
func (r Range) Slice(offset, size uint64) Range {
	exceeds := offset > r.size || size > r.size-offset
	return Range{buf: r.buf, binding: r.binding, offset: r.offset + offset, size: size, invalid: r.invalid || exceeds}
}

// name describes the buffer or binding, for error messages.
func (r Range) name() string {
	switch {
	case r.isHost():
		return fmt.Sprintf("host buffer %q", r.buf.name)
	case r.buf != nil:
		return fmt.Sprintf("buffer %q", r.buf.name)
	case r.binding != nil:
		return fmt.Sprintf("binding %q", r.binding.name)
	}
	return "the zero Range"
}

// valid checks that a range lies in an open buffer of the device, or in a binding of the list (nil: bindings are not
// allowed).
func (r Range) valid(d *Device, l *CommandList) error {
	switch {
	case r.IsZero():
		return fmt.Errorf("is the zero Range")
	case r.buf != nil && r.buf.dev != d:
		return fmt.Errorf("is of %s, which is on another device", r.name())
	case r.buf != nil && r.buf.uses.Load() < 0:
		return fmt.Errorf("is of %s, which is %w", r.name(), ErrClosed)
	case r.binding != nil && r.binding.list != l:
		return fmt.Errorf("is of %s, which belongs to another command list", r.name())
	}
	switch limit := r.limit(); {
	case r.size == 0:
		return fmt.Errorf("is 0 bytes at offset %d of %s, want at least 1", r.offset, r.name())
	case r.offset > limit || r.size > limit-r.offset:
		return fmt.Errorf("is %d bytes at offset %d of %s, which has %d bytes", r.size, r.offset, r.name(), limit)
	case r.invalid:
		return fmt.Errorf("is %d bytes at offset %d of %s, beyond the end of the range that it is a slice of", r.size, r.offset, r.name())
	}
	return nil
}

// onDevice checks that a valid range is not of a HostBuffer.
func (r Range) onDevice() error {
	if r.isHost() {
		return fmt.Errorf("is of %s, which only Copy takes", r.name())
	}
	return nil
}

func (r Range) isHost() bool { return r.buf != nil && r.buf.block.host != nil }

func (r Range) limit() uint64 {
	if r.buf != nil {
		return r.buf.size
	}
	return r.binding.size
}

// Address returns the device address, for a table in device memory that a kernel reads; its dispatch must have the range in
// Dispatch.Indirect. It is 0 for the zero Range, and in a binding. It stays the same until the buffer is closed.
func (r Range) Address() uint64 {
	if r.buf == nil {
		return 0
	}
	return r.address()
}

// address returns the device address. r must not be in a binding.
func (r Range) address() uint64 { return r.buf.block.address + r.buf.offset + r.offset }

// NewBuffer allocates size bytes of uninitialised device memory. The name is for error messages. The error is
// ErrOutOfMemory if there is not enough memory.
func (d *Device) NewBuffer(name string, size uint64) (*Buffer, error) {
	if err := d.beginCallOp("NewBuffer"); err != nil {
		return nil, err
	}
	defer d.endCall()
	if size == 0 {
		return nil, fmt.Errorf("vk: NewBuffer %q: size is 0, want at least 1", name)
	}
	b := &Buffer{dev: d, name: name, size: size}
	if err := d.pool.alloc(b); err != nil {
		return nil, fmt.Errorf("vk: NewBuffer %q of %d bytes: %w", name, size, err)
	}
	d.buffers.Add(1)
	return b, nil
}

// Range returns the whole buffer.
func (b *Buffer) Range() Range { return Range{buf: b, size: b.size} }

// Size returns the size in bytes.
func (b *Buffer) Size() uint64 { return b.size }

// Close frees the memory, at once or when the device has finished the submissions that use it. Closing a closed buffer
// does nothing.
func (b *Buffer) Close() error {
	if b == nil {
		return nil
	}
	if b.dev.closes.enter() {
		defer b.dev.closes.leave()
	}
	for {
		uses := b.uses.Load()
		if uses < 0 {
			return nil
		}
		if b.uses.CompareAndSwap(uses, uses+closedUse) {
			if uses == 0 {
				b.free()
			}
			return nil
		}
	}
}

func (b *Buffer) free() {
	b.dev.pool.release(b)
	b.dev.buffers.Add(-1)
}

// pin keeps the memory of a buffer until unpin. It returns false if the buffer is closed.
func (b *Buffer) pin() bool {
	for {
		uses := b.uses.Load()
		if uses < 0 {
			return false
		}
		if b.uses.CompareAndSwap(uses, uses+1) {
			return true
		}
	}
}

func (b *Buffer) unpin() {
	if b.uses.Add(-1) == closedUse {
		b.free()
	}
}
