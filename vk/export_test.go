package vk

import (
	"crypto/sha256"
	"path/filepath"
	"time"
	"unsafe"
)

// What the tests of package vk_test see of the inside.

const (
	Alignment      = alignment
	BlockBytes     = blockBytes
	MaxSharedBytes = maxSharedBytes
	ChunkBytes     = chunkBytes
	SegmentFlops   = segmentFlops
	CacheHead      = len(cacheMagic) + sha256.Size
)

var (
	SelectDevice = selectDevice
	ReadCache    = readCache
)

// Load is load without its result.
func Load(names []string) error {
	_, err := load(names)
	return err
}

// SetCaps changes what a device believes of itself.
func (d *Device) SetCaps(change func(*Caps)) { change(&d.info.Caps) }

// HideMemory makes a device believe that it has only some of its memory types, and returns how many it believed to have.
func (d *Device) LimitMemoryTypes(types uint32) (before uint32) {
	before, d.physical.memory.MemoryTypeCount = d.physical.memory.MemoryTypeCount, types
	return before
}

// Fault lets f replace the results of Vulkan calls; nil ends it.
func (d *Device) Fault(f func(op string, result int32) int32) { d.fault = f }

// Lose makes a device believe that it was lost.
func (d *Device) SimulateLoss() { d.lost.Store(true) }

// CacheFile is where the pipeline cache is kept.
func (d *Device) CacheFile() string { return filepath.Clean(d.cache.file) }

// Place says where a buffer lies: a number for its block, and the offset in it.
func (b *Buffer) Location() (block uintptr, offset uint64) {
	return uintptr(unsafe.Pointer(b.block)), b.offset
}

// Plant leaves out a barrier of the run: the n-th one.
func (l *CommandList) SkipBarrier(n int) { l.skippedBarrier = n }

// Schedule is the order in which the steps run, and which of them, in that order, have a barrier before them.
func (l *CommandList) Schedule() (order []int, barriers []bool) {
	l.schedule()
	return l.order, l.barriers
}

// Reschedule changes what the hazard checker sees.
func (l *CommandList) Reschedule(order []int, barriers []bool) { l.order, l.barriers = order, barriers }

// Check is the hazard checker.
func (l *CommandList) CheckHazards() error { return l.checkHazards() }

// Ordered says of every barrier that a run encodes, those at its ends too, what kinds of work stand before and behind: C compute, T transfers.
func (l *CommandList) BarrierKinds() []string {
	names := []string{"", "C", "T", "CT"}
	var list []string
	for _, ops := range l.segments {
		for len(ops) > 0 {
			if byteOrder.Uint32(ops) == opBarrier {
				list = append(list, names[byteOrder.Uint32(ops[8:])]+" "+names[byteOrder.Uint32(ops[12:])])
			}
			ops = ops[byteOrder.Uint32(ops[4:]):]
		}
	}
	return list
}

// Submits is the number of submissions that a run takes.
func (l *CommandList) Submits() int { return len(l.segments) }

// PollMargin is how long a wait polls at least before it sleeps.
const PollMargin = pollMargin

// Polls is how often the last wait of a tape asked.
func (l *CommandList) Polls() int { return l.fence.polls }

// Expect changes how long a tape's runs are believed to take.
func (l *CommandList) SetExpected(d time.Duration) { l.fence.expected = d }

// Expected is how long a tape's runs are believed to take.
func (l *CommandList) Expected() time.Duration { return l.fence.expected }

// SetTimeout changes how long waits last.
func (d *Device) SetTimeout(timeout time.Duration) { d.timeout = timeout }

// Encode writes the command buffers of the last run anew.
func (l *CommandList) Encode() error {
	l.set.written = false
	return l.encode(l.set)
}

// Misuse encodes commands that the validation layer must object to, and does not submit them: a fill beyond the end of a buffer, or two
// writes of one place without a barrier.
func (d *Device) Misuse(hazard bool) error {
	if err := d.staging.open(); err != nil {
		return err
	}
	var c commands
	if err := c.open(d); err != nil {
		return err
	}
	defer c.destroy(d)
	if hazard {
		ops := appendFill(nil, d.staging.buffer, 0, 64, 1)
		return c.encode(d, appendFill(ops, d.staging.buffer, 0, 64, 2))
	}
	return c.encode(d, appendFill(nil, d.staging.buffer, stagingBytes, 64, 1))
}

// StallDownload leaves a download in flight that is submitted only when release is called. To the device's user the device
// hangs until then.
func (d *Device) StallDownload(t Transfer) (release func() error, err error) {
	c := d.staging.chunks[0]
	c.add(&d.staging, t, 0, t.Range.size, false)
	if err := c.encode(d, appendBarrier(c.ops, kindTransfer, kindHost)); err != nil {
		return nil, err
	}
	if err := c.fence.reset(d); err != nil {
		return nil, err
	}
	c.busy = true
	return c.fence.later(d, []unsafe.Pointer{c.buffer}, 0, 0), nil
}

// Stall leaves a run of a list that has run in flight, which is submitted only when release is called. To the list's user the
// device hangs until then.
func (l *CommandList) Stall() (release func() error, err error) {
	if err := l.pin(); err != nil {
		return nil, err
	}
	if err := l.fence.reset(l.dev); err != nil {
		return nil, err
	}
	if l.stale {
		if err := l.selectCommands(); err != nil {
			return nil, err
		}
	}
	l.pending, l.ran = true, true
	return l.fence.later(l.dev, l.set.buffers, l.queries, len(l.timestamps)), nil
}

// later returns a function that submits command buffers with a fence, without touching the fence object that others wait on.
func (f *fence) later(d *Device, buffers []unsafe.Pointer, queries uint64, count int) func() error {
	f.begun = time.Now()
	same := fence{handle: f.handle}
	return func() error { return same.submit(d, buffers, queries, count) }
}

// SubmitFirst leaves a run of a list that has run in flight, of which the driver accepted only the first submission.
func (l *CommandList) SubmitFirst() error {
	if err := l.pin(); err != nil {
		return err
	}
	var none fence
	if err := none.submit(l.dev, l.set.buffers[:1], l.queries, len(l.timestamps)); err != nil {
		return err
	}
	l.pending, l.unfenced, l.ran = true, true, false
	return nil
}
