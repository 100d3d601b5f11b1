package vk

import (
	"fmt"
	"slices"
)

// HostBuffer is memory that the host reads and writes directly. Command lists copy from and to it, and nobody waits for such a
// Copy, unlike for Upload and Download. Only Copy takes its ranges.
type HostBuffer struct{ buffer *Buffer }

// NewHostBuffer allocates size bytes of uninitialised host memory. The name is for error messages. The error is
// ErrOutOfMemory if there is not enough memory.
func (d *Device) NewHostBuffer(name string, size uint64) (*HostBuffer, error) {
	if err := d.beginCallOp("NewHostBuffer"); err != nil {
		return nil, err
	}
	defer d.endCall()
	if size == 0 {
		return nil, fmt.Errorf("vk: NewHostBuffer %q: size is 0, want at least 1", name)
	}
	b := &Buffer{dev: d, name: name, size: size}
	if err := d.pool.allocHost(b); err != nil {
		return nil, fmt.Errorf("vk: NewHostBuffer %q of %d bytes: %w", name, size, err)
	}
	d.buffers.Add(1)
	return &HostBuffer{b}, nil
}

// Range returns the whole buffer.
func (h *HostBuffer) Range() Range { return h.buffer.Range() }

// Close frees the memory, at once or when the device has finished the submissions that use it. Closing a closed buffer does
// nothing.
func (h *HostBuffer) Close() error {
	if h == nil {
		return nil
	}
	return h.buffer.Close()
}

// Write writes data from an offset on, for the lists that are submitted later. A run that uses the buffer must have been waited
// for.
func (h *HostBuffer) Write(offset uint64, data []byte) error {
	return h.access("Write", offset, len(data), func(m *hostMemory) error {
		copy(m.mapped[offset:], data)
		return m.flush(h.buffer.dev)
	})
}

// Read reads data from an offset on. A run that uses the buffer must have been waited for.
func (h *HostBuffer) Read(offset uint64, data []byte) error {
	return h.access("Read", offset, len(data), func(m *hostMemory) error {
		err := m.invalidate(h.buffer.dev)
		copy(data, m.mapped[offset:])
		return err
	})
}

// access calls f, unless the device uses the buffer or the bytes are not in it.
func (h *HostBuffer) access(op string, offset uint64, bytes int, f func(*hostMemory) error) error {
	b := h.buffer
	if err := b.dev.beginCallOp(op); err != nil {
		return err
	}
	defer b.dev.endCall()
	err := ErrClosed
	if b.pin() { // a Close meanwhile frees the memory after the access
		err = h.accessPinned(offset, bytes, f)
		b.unpin()
	}
	if err != nil {
		return fmt.Errorf("vk: %s of host buffer %q: %w", op, b.name, err)
	}
	return nil
}

func (h *HostBuffer) accessPinned(offset uint64, bytes int, f func(*hostMemory) error) error {
	b := h.buffer
	switch uses := b.uses.Load(); {
	case uses > 1:
		return fmt.Errorf("a run that uses it was not waited for")
	case offset > b.size || uint64(bytes) > b.size-offset:
		return fmt.Errorf("%d bytes from offset %d on, want offsets up to %d", bytes, offset, b.size)
	}
	return f(b.block.host)
}

// allocHost allocates host memory for b alone.
func (p *pool) allocHost(b *Buffer) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return ErrClosed
	}
	if limit := p.dev.info.Caps.MaxBufferBytes; limit > 0 && b.size > limit {
		return fmt.Errorf("%w: the device has no buffers of more than %d bytes (maxBufferSize)", ErrOutOfMemory, limit)
	}
	memory := &hostMemory{}
	if err := memory.open(p.dev, b.size); err != nil {
		memory.close(p.dev)
		return err
	}
	b.block = &block{buffer: memory.buffer, host: memory, size: b.size, buffers: []*Buffer{b}}
	p.hosts = append(p.hosts, b.block)
	p.hostBytes += b.size
	return nil
}

// freeHost frees the memory of a host buffer.
func (p *pool) freeHost(k *block) {
	k.host.close(p.dev)
	p.hosts = slices.DeleteFunc(p.hosts, func(o *block) bool { return o == k })
	p.hostBytes -= k.size
}
