package vk

import (
	"crypto/sha256"
	"path/filepath"
	"time"
	"unsafe"
)

// What the tests of package vk_test see of the inside.

const (
	Alignment    = alignment
	BlockBytes   = blockBytes
	ShareBytes   = shareBytes
	HalfBytes    = halfBytes
	SegmentFlops = segmentFlops
	CacheHead    = len(cacheMagic) + sha256.Size
)

var (
	Choose    = choose
	ReadCache = readCache
)

// Load is load without its result.
func Load(names []string) error {
	_, err := load(names)
	return err
}

// SetCaps changes what a device believes of itself.
func (d *Device) SetCaps(change func(*Caps)) { change(&d.info.Caps) }

// HideMemory makes a device believe that it has only some of its memory types, and returns how many it believed to have.
func (d *Device) HideMemory(types uint32) (before uint32) {
	before, d.phys.memory.MemoryTypeCount = d.phys.memory.MemoryTypeCount, types
	return before
}

// Lose makes a device believe that it was lost.
func (d *Device) Lose() { d.lost.Store(true) }

// CacheFile is where the pipeline cache is kept.
func (d *Device) CacheFile() string { return filepath.Clean(d.cache.file) }

// Place says where a buffer lies: a number for its block, and the offset in it.
func (b *Buffer) Place() (block uintptr, offset uint64) {
	return uintptr(unsafe.Pointer(b.block)), b.offset
}

// Plant leaves out a barrier of the run: the n-th one.
func (t *CommandList) Plant(n int) { t.planted = n }

// Schedule is the order in which the steps run, and which of them, in that order, have a barrier before them.
func (t *CommandList) Schedule() (order []int, barriers []bool) {
	t.schedule()
	return t.order, t.barriers
}

// Reschedule changes what the hazard checker sees.
func (t *CommandList) Reschedule(order []int, barriers []bool) { t.order, t.barriers = order, barriers }

// Check is the hazard checker.
func (t *CommandList) Check() error { return t.check() }

// Ordered says of every barrier that a run encodes, those at its ends too, what kinds of work stand before and behind: C compute, T transfers.
func (t *CommandList) Ordered() []string {
	names := []string{"", "C", "T", "CT"}
	var list []string
	for _, ops := range t.segments {
		for len(ops) > 0 {
			if order.Uint32(ops) == opBarrier {
				list = append(list, names[order.Uint32(ops[8:])]+" "+names[order.Uint32(ops[12:])])
			}
			ops = ops[order.Uint32(ops[4:]):]
		}
	}
	return list
}

// Submits is the number of submissions that a run takes.
func (t *CommandList) Submits() int { return len(t.segments) }

// WaitAhead is how long a wait asks at least before it sleeps.
const WaitAhead = waitAhead

// Polls is how often the last wait of a tape asked.
func (t *CommandList) Polls() int { return t.fence.polls }

// Expect changes how long a tape's runs are believed to take.
func (t *CommandList) Expect(d time.Duration) { t.fence.expected = d }

// Expected is how long a tape's runs are believed to take.
func (t *CommandList) Expected() time.Duration { return t.fence.expected }

// SetTimeout changes how long waits last.
func (d *Device) SetTimeout(timeout time.Duration) { d.timeout = timeout }

// Encode writes the command buffers of the last run anew.
func (t *CommandList) Encode() error {
	t.set.written = false
	return t.write(t.set)
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

// StallDownload is what is left of a download whose submission the device does not see before release is called.
func (d *Device) StallDownload(t Transfer) (release func() error, err error) {
	h := d.staging.halves[0]
	h.add(&d.staging, t, 0, t.Range.size, false)
	if err := h.encode(d, appendBarrier(h.ops, kindTransfer, kindHost)); err != nil {
		return nil, err
	}
	h.busy = true
	return func() error { return h.submit(d) }, nil
}

// Stall makes the next run of a tape that has run one that the device does not see before release is called.
func (t *CommandList) Stall() (release func() error, err error) {
	if err := t.pin(); err != nil {
		return nil, err
	}
	t.pending = true
	return t.start, nil
}
