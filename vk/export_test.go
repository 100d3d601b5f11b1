package vk

import (
	"crypto/sha256"
	"path/filepath"
	"time"
	"unsafe"
)

// Internals for the tests of package vk_test.

const (
	Alignment      = alignment
	BlockBytes     = blockBytes
	MaxSharedBytes = maxSharedBytes
	ChunkBytes     = chunkBytes
	SegmentFlops   = segmentFlops
	IdlePipelines  = idlePipelines
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

// SetCaps changes the capabilities that a device reports.
func (d *Device) SetCaps(change func(*Caps)) { change(&d.info.Caps) }

// LimitMemoryTypes makes a device use only its first memory types, and returns the previous number.
func (d *Device) LimitMemoryTypes(types uint32) (before uint32) {
	before, d.physical.memory.MemoryTypeCount = d.physical.memory.MemoryTypeCount, types
	return before
}

// Fault makes f replace the results of Vulkan calls; nil restores them.
func (d *Device) Fault(f func(op string, result int32) int32) { d.fault = f }

// SimulateLoss makes a device behave as if it was lost.
func (d *Device) SimulateLoss() { d.lost.Store(true) }

// CacheFile returns the path of the pipeline cache.
func (d *Device) CacheFile() string { return filepath.Clean(d.cache.file) }

// Location returns a number for the block of a buffer, and the offset in the block.
func (b *Buffer) Location() (block uintptr, offset uint64) {
	return uintptr(unsafe.Pointer(b.block)), b.offset
}

// SkipBarrier leaves out the n-th barrier.
func (l *CommandList) SkipBarrier(n int) { l.skippedBarrier = n }

// Schedule schedules the steps anew. It returns the order in which they run, and for each position whether a barrier
// precedes it.
func (l *CommandList) Schedule() (order []int, barriers []bool) {
	l.scheduled = false
	l.schedule()
	return l.order, l.barriers
}

// Order returns the present order of the steps.
func (l *CommandList) Order() []int { return l.order }

// Reschedule replaces the schedule that CheckHazards checks.
func (l *CommandList) Reschedule(order []int, barriers []bool) { l.order, l.barriers = order, barriers }

// CheckHazards exports checkHazards.
func (l *CommandList) CheckHazards() error { return l.checkHazards() }

// BarrierKinds returns the kinds of work before and after every recorded barrier, including those at the ends: C
// compute, T transfer, H host.
func (l *CommandList) BarrierKinds() []string {
	names := []string{"", "C", "T", "CT", "H"}
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

// Submits returns the number of submissions of a run.
func (l *CommandList) Submits() int { return len(l.segments) }

// PollMargin is the minimum polling time before and after the expected end.
const PollMargin = pollMargin

// Polls returns the number of polling rounds of the last wait.
func (l *CommandList) Polls() int { return l.fence.polls }

// SetExpected sets the expected duration of a run.
func (l *CommandList) SetExpected(d time.Duration) { l.fence.expected = d }

// Expected returns the expected duration of a run.
func (l *CommandList) Expected() time.Duration { return l.fence.expected }

// SetTimeout changes Options.Timeout.
func (d *Device) SetTimeout(timeout time.Duration) { d.timeout = timeout }

// Encode records the command buffers of the last run again.
func (l *CommandList) Encode() error {
	l.set.written = false
	return l.writeCommands(l.set)
}

// Misuse records commands that the validation layer must report, and does not submit them: a fill beyond the end of a
// buffer, or two writes to the same bytes without a barrier.
func (d *Device) Misuse(hazard bool) error {
	if err := d.staging.open(); err != nil {
		return err
	}
	var c transferCommands
	if err := c.open(d); err != nil {
		return err
	}
	defer c.destroy(d)
	if hazard {
		ops := appendFill(nil, d.staging.buffer, 0, 64, 1)
		return c.write(d, appendFill(ops, d.staging.buffer, 0, 64, 2))
	}
	return c.write(d, appendFill(nil, d.staging.buffer, stagingBytes, 64, 1))
}

// StallDownload simulates a device that hangs in a download until release is called: the download counts as submitted,
// but is submitted by release.
func (d *Device) StallDownload(t Transfer) (release func() error, err error) {
	c := d.staging.chunks[0]
	c.add(&d.staging, t, 0, t.Range.size, false)
	if err := c.write(d, appendBarrier(c.ops, kindTransfer, kindHost)); err != nil {
		return nil, err
	}
	if err := c.fence.reset(d); err != nil {
		return nil, err
	}
	c.busy = true
	return c.fence.later(d, []unsafe.Pointer{c.buffer}, 0, 0), nil
}

// Stall simulates a device that hangs in a run until release is called: the run counts as submitted, but is submitted
// by release. The list must have run before.
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

// later returns a function that submits command buffers with the same fence. It does not access f, on which others may
// wait.
func (f *fence) later(d *Device, buffers []unsafe.Pointer, queries uint64, count int) func() error {
	f.begun = time.Now()
	same := fence{handle: f.handle}
	return func() error { return same.submit(d, buffers, queries, count) }
}

// SubmitFirst simulates a submit that failed after its first submission. The list must have run before.
func (l *CommandList) SubmitFirst() error {
	if err := l.pin(); err != nil {
		return err
	}
	var none fence
	if err := none.submit(l.dev, l.set.buffers[:1], l.queries, len(l.timestamps)); err != nil {
		return err
	}
	l.pending, l.fenceMissing, l.ran = true, true, false
	return nil
}

// BuffersAreHostVisible reports whether the memory type of buffers is host-visible.
func (d *Device) BuffersAreHostVisible() bool {
	return d.physical.memory.MemoryTypes[d.pool.memoryType].PropertyFlags&visible != 0
}

// SetCoherent makes transfers treat the staging buffer as coherent, or not. There must have been a transfer.
func (d *Device) SetCoherent(coherent bool) { d.staging.coherent = coherent }

// CountPipelines returns how many pipelines a device has, and how many of them no kernel uses.
func (d *Device) CountPipelines() (all, idle int) { return len(d.pipelines.all), len(d.pipelines.idle) }

// Divide exports divide: the first workgroup and the number of workgroups of each part.
func Divide(groups [3]uint32, share float64) (list [][2][3]uint32) {
	for _, p := range divide(groups, share) {
		list = append(list, [2][3]uint32{p.base, p.groups})
	}
	return list
}
