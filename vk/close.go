package vk

// #include "native.h"
import "C"

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// lists holds the open command lists of a device.
type lists struct {
	mu   sync.Mutex
	open map[*CommandList]struct{}
}

func (l *lists) add(c *CommandList) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open == nil {
		l.open = map[*CommandList]struct{}{}
	}
	l.open[c] = struct{}{}
}

func (l *lists) remove(c *CommandList) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.open, c)
}

func (l *lists) all() []*CommandList {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := make([]*CommandList, 0, len(l.open))
	for c := range l.open {
		all = append(all, c)
	}
	return all
}

func (l *lists) count() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return int64(len(l.open))
}

// gate counts calls in progress until it is closed.
type gate struct {
	users atomic.Int64 // closedUse is added by close
	empty chan struct{}
}

func (g *gate) init() { g.empty = make(chan struct{}, 1) }

// enter starts a call. It returns false if the gate is closed.
func (g *gate) enter() bool {
	if g.users.Add(1) > 0 {
		return true
	}
	g.leave()
	return false
}

func (g *gate) leave() {
	if g.users.Add(-1) == closedUse {
		select {
		case g.empty <- struct{}{}:
		default:
		}
	}
}

// close closes the gate, and waits for the calls in progress.
func (g *gate) close() {
	g.users.Add(closedUse)
	for g.users.Load() != closedUse {
		<-g.empty
	}
}

// Wait waits for everything that was submitted before the call, at most for Options.Timeout; then the error is
// ErrTimeout, and Wait may be called again. If ctx is done, Wait returns within some tens of milliseconds with an error
// that wraps ctx.Err().
func (d *Device) Wait(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("vk: Wait: %w", err)
	}
	if err := d.beginCallOp("Wait"); err != nil {
		return err
	}
	defer d.endCall()
	end := time.Now().Add(d.timeout)
	for _, l := range d.lists.all() {
		if err := d.waitFor(ctx, l, end); err != nil {
			return fmt.Errorf("vk: Wait: command list %q: %w", l.config.Name, err)
		}
	}
	if err := d.staging.wait(ctx, end); err != nil {
		return fmt.Errorf("vk: Wait: %w", err)
	}
	return nil
}

func (d *Device) waitFor(ctx context.Context, l *CommandList, end time.Time) error {
	if err := l.mu.lockContext(ctx); err != nil {
		return fmt.Errorf("%w while another call uses the list", err)
	}
	defer l.mu.unlock()
	return l.wait(ctx, time.Until(end))
}

// Close closes the device. It waits for calls in progress and then, at most until Options.Timeout after its start, for
// everything that was submitted.
//
// Buffers, kernels and command lists that are still open are reported as an error and must not be used any more. If the
// device does not finish in time, the error is ErrTimeout. In both cases the Vulkan device is not destroyed, because
// destroying it while it is in use is undefined; the operating system frees it when the process ends. Closing a closed
// device does nothing.
func (d *Device) Close() error {
	if d == nil {
		return nil
	}
	end := time.Now().Add(d.timeout)
	d.closing.Lock()
	defer d.closing.Unlock()
	if d.closed {
		return nil
	}
	d.closed = true
	d.calls.close()
	busy := d.drain(end)
	d.closes.close()
	left := d.leftOpen(busy != nil)
	destroy := busy == nil && left == nil
	if destroy {
		d.pipelines.close(d)
		d.staging.close()
	}
	d.pool.close()
	save := d.cache.close()
	var unread error
	if destroy {
		C.c5_device_free(d.c)
		unread = d.instance.undrained()
		d.instance.close()
	}
	return errors.Join(busy, left, save, unread)
}

// drain waits until end for everything that was submitted, and closes the command lists whose Close could not wait so
// long. On a lost device nothing runs any more.
func (d *Device) drain(end time.Time) error {
	var first error
	for _, l := range d.lists.all() {
		l.mu.lock()
		err := l.drain(time.Until(end))
		if err == nil && l.abandoned {
			l.release(true)
		}
		l.mu.unlock()
		if first == nil {
			first = err
		}
	}
	if err := d.staging.drain(end); first == nil {
		first = err
	}
	switch {
	case errors.Is(first, ErrTimeout):
		return fmt.Errorf("vk: Device.Close: %w: it is still working after %v; its Vulkan objects are freed when the process ends", ErrTimeout, d.timeout)
	case first != nil:
		return fmt.Errorf("vk: Device.Close: the device may still be working; its Vulkan objects are freed when the process ends: %w", first)
	}
	return nil
}

// leftOpen returns an error if the caller left objects open. On a busy device objects whose Close could not finish do not
// count.
func (d *Device) leftOpen(busy bool) error {
	var left []string
	add := func(n int64, kind, names string) {
		if n > 1 {
			kind += "s"
		}
		if n > 0 {
			left = append(left, fmt.Sprintf("%d %s%s", n, kind, names))
		}
	}
	buffers, names := d.pool.openBuffers()
	add(int64(buffers), "buffer", " ("+names+")")
	kernels := d.kernels.Load()
	if busy {
		kernels -= d.refused.Load()
	}
	add(kernels, "kernel", "")
	lists := int64(0)
	for _, l := range d.lists.all() {
		if !l.abandoned {
			lists++
		}
	}
	add(lists, "command list", "")
	if left == nil {
		return nil
	}
	return fmt.Errorf("vk: Device.Close: left open: %s", strings.Join(left, ", "))
}
