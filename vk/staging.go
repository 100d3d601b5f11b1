package vk

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"
)

const (
	chunkBytes   = 8 << 20
	stagingBytes = 2 * chunkBytes
)

// staging carries data through a host-visible buffer of two chunks: the device copies one while the host copies the
// other. It is allocated by the first transfer, because kernels are also compiled where no memory can be allocated.
type staging struct {
	hostMemory
	mu        mutex
	dev       *Device
	chunks    [2]*chunk
	allocated atomic.Uint64 // bytes of device memory
}

// chunk is one half of the staging buffer, with the command buffer that copies from or to it.
type chunk struct {
	transferCommands
	memory []byte
	offset uint64
	used   uint64
	ops    []byte
	out    []Transfer // destinations of a download; the ranges are relative to memory
	pinned []*Buffer  // until the device is done, which may be after the call returned
	busy   bool       // submitted and not waited for
}

func (s *staging) init(d *Device) { s.dev, s.mu = d, newMutex() }

// open allocates the staging buffer, unless it is allocated. After an error nothing is left, and the next transfer
// tries again.
func (s *staging) open() error {
	if s.mapped != nil {
		return nil
	}
	if err := s.alloc(); err != nil {
		s.close()
		return fmt.Errorf("staging memory: %w", err)
	}
	s.allocated.Store(stagingBytes)
	return nil
}

func (s *staging) alloc() error {
	if err := s.hostMemory.open(s.dev, stagingBytes); err != nil {
		return err
	}
	for i := range s.chunks {
		c := &chunk{memory: s.mapped[i*chunkBytes : (i+1)*chunkBytes], offset: uint64(i) * chunkBytes}
		if err := c.open(s.dev); err != nil {
			return err
		}
		s.chunks[i] = c
	}
	return nil
}

// close frees everything, also after an open that failed midway.
func (s *staging) close() {
	for i, c := range s.chunks {
		if c != nil {
			c.destroy(s.dev)
			s.chunks[i] = nil
		}
	}
	s.hostMemory.close(s.dev)
	s.allocated.Store(0)
}

// move splits the transfers into pieces that fill the two chunks alternately.
func (s *staging) move(ctx context.Context, list []Transfer, up bool) (err error) {
	if err := s.mu.lockContext(ctx); err != nil {
		return fmt.Errorf("%w while another transfer runs", err)
	}
	defer s.mu.unlock()
	if len(list) == 0 {
		return nil
	}
	if err := s.open(); err != nil {
		return err
	}
	defer func() {
		if err != nil { // the caller's memory must not be written after the return
			s.chunks[0].out, s.chunks[1].out = nil, nil
		}
	}()
	timeout, next := s.dev.timeout, 0
	for _, t := range list {
		for done := uint64(0); done < t.Range.size; {
			c := s.chunks[next]
			if c.busy {
				if err := s.finish(ctx, c, timeout); err != nil {
					return err
				}
			}
			if c.used == 0 {
				if err := ctx.Err(); err != nil {
					return fmt.Errorf("%w before everything was submitted", err)
				}
			}
			n := min(t.Range.size-done, chunkBytes-c.used)
			c.add(s, t, done, n, up)
			done += n
			if c.used == chunkBytes {
				if err := s.start(c, up); err != nil {
					return err
				}
				next = 1 - next
			}
		}
	}
	if err := s.start(s.chunks[next], up); err != nil {
		return err
	}
	for _, c := range []*chunk{s.chunks[1-next], s.chunks[next]} {
		if err := s.finish(ctx, c, timeout); err != nil {
			return err
		}
	}
	return nil
}

// add appends n bytes of t, from byte done on, to what the chunk copies next.
func (c *chunk) add(s *staging, t Transfer, done, n uint64, up bool) {
	data := t.Data[done : done+n]
	device, at := t.Range.buf.block.buffer, t.Range.buf.offset+t.Range.offset+done
	if c.used == 0 {
		c.ops = appendBarrier(c.ops, kindAny, kindTransfer)
	}
	if up {
		copy(c.memory[c.used:], data)
		c.ops = appendCopy(c.ops, s.buffer, c.offset+c.used, device, at, n)
	} else {
		c.out = append(c.out, Transfer{Range: Range{offset: c.used, size: n}, Data: data})
		c.ops = appendCopy(c.ops, device, at, s.buffer, c.offset+c.used, n)
	}
	t.Range.buf.uses.Add(1) // the call itself has pinned the buffer, so it is open
	c.pinned = append(c.pinned, t.Range.buf)
	c.used += n
}

// start submits a chunk, unless it is empty or in flight.
func (s *staging) start(c *chunk, up bool) error {
	if c.used == 0 || c.busy {
		return nil
	}
	var err error
	if up {
		err = s.flush(s.dev)
	}
	if err == nil {
		c.ops = appendBarrier(c.ops, kindTransfer, kindHost)
		err = c.write(s.dev, c.ops)
	}
	if err == nil {
		err = c.submit(s.dev)
	}
	if err != nil {
		c.reset()
		return err
	}
	c.busy = true
	return nil
}

// reset empties a chunk that is not in flight.
func (c *chunk) reset() {
	for _, b := range c.pinned {
		b.unpin()
	}
	clear(c.out) // drop the references to the caller's memory
	c.used, c.ops, c.out, c.pinned, c.busy = 0, c.ops[:0], c.out[:0], c.pinned[:0], false
}

// finish waits for a chunk, copies what it downloaded to the caller's memory, and empties it.
func (s *staging) finish(ctx context.Context, c *chunk, limit time.Duration) error {
	if !c.busy {
		return nil
	}
	if err := c.wait(ctx, s.dev, limit); err != nil {
		if s.dev.lost.Load() {
			c.reset() // nothing runs on a lost device
		}
		return err
	}
	if len(c.out) > 0 {
		if err := s.invalidate(s.dev); err != nil {
			c.reset()
			return err
		}
	}
	for _, t := range c.out {
		copy(t.Data, c.memory[t.Range.offset:][:t.Range.size])
	}
	c.reset()
	return nil
}

// wait waits until end for transfers whose calls returned early.
func (s *staging) wait(ctx context.Context, end time.Time) error {
	if err := s.mu.lockContext(ctx); err != nil {
		return fmt.Errorf("%w while a transfer runs", err)
	}
	defer s.mu.unlock()
	for _, c := range s.chunks {
		if c == nil {
			continue // not allocated
		}
		if err := s.finish(ctx, c, time.Until(end)); err != nil {
			return err
		}
	}
	return nil
}

// drain waits as wait does, for Device.Close. On a lost device no work is left.
func (s *staging) drain(end time.Time) error {
	for _, c := range s.chunks {
		if c == nil || !c.busy {
			continue
		}
		if err := c.drain(s.dev, time.Until(end)); err != nil && !s.dev.lost.Load() {
			return err
		}
		c.reset()
	}
	return nil
}
