package vk_test

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/simulate"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestBufferSizes(t *testing.T) {
	d := openDevice(t, vk.Options{})
	assert.Zero(t, d.Stats().DeviceBytes, "no transfer yet")
	staged := newBuffer(t, d, "staged", vk.MaxSharedBytes+1)
	uploadTo(t, staged.Range().Slice(0, 4), []uint32{1})
	closeAll(t, staged)
	d.ResetPeak()
	start := d.Stats()
	assert.Equal(t, uint64(2*vk.ChunkBytes), start.DeviceBytes, "the staging buffer")
	_, err := d.NewBuffer("empty", 0)
	assert.ErrorContains(t, err, `NewBuffer "empty": size is 0, want at least 1`)
	for _, size := range []uint64{d.Caps().MemoryBytes + 1, 1 << 60, ^uint64(0), ^uint64(0) - 200} {
		_, err := d.NewBuffer("huge", size)
		require.ErrorIs(t, err, vk.ErrOutOfMemory, "%d", size)
		assert.ErrorContains(t, err, fmt.Sprintf(`"huge" of %d bytes`, size))
	}
	assert.Equal(t, start, d.Stats(), "nothing was allocated")

	largestShared := newBuffer(t, d, "4 MiB", vk.MaxSharedBytes)
	s := d.Stats()
	assert.Equal(t, start.DeviceBytes+vk.BlockBytes, s.DeviceBytes)
	own := newBuffer(t, d, "4 MiB + 1", vk.MaxSharedBytes+1)
	s = d.Stats()
	assert.Equal(t, start.DeviceBytes+vk.BlockBytes+vk.MaxSharedBytes+vk.Alignment, s.DeviceBytes)
	assert.Equal(t, start.Allocations+2, s.Allocations)
	assert.Equal(t, uint64(2*vk.MaxSharedBytes+1), s.BufferBytes)
	for _, b := range []*vk.Buffer{largestShared, own} {
		data := make([]uint8, b.Size())
		for i := range data {
			data[i] = uint8(i * 7 >> 3)
		}
		uploadTo(t, b.Range(), data)
		got := make([]uint8, b.Size())
		require.NoError(t, d.Download(t.Context(), vk.Transfer{Range: b.Range(), Data: got}))
		assert.True(t, slices.Equal(data, got))
	}
	closeAll(t, own)
	assert.Equal(t, start.DeviceBytes+vk.BlockBytes, d.Stats().DeviceBytes, "a block for one buffer is freed at once")
	closeAll(t, largestShared)
	s = d.Stats()
	assert.Equal(t, start.DeviceBytes+vk.BlockBytes, s.DeviceBytes, "one empty shared block is kept")
	assert.Zero(t, s.BufferBytes)
	assert.Equal(t, uint64(2*vk.MaxSharedBytes+1), s.PeakBytes)
	d.ResetPeak()
	assert.Zero(t, d.Stats().PeakBytes)
	_ = newBuffer(t, d, "again", 1)
	assert.Equal(t, s.Allocations, d.Stats().Allocations, "and reused")
}

// TestDriverOutOfMemory: the driver refuses an allocation that should fit.
func TestDriverOutOfMemory(t *testing.T) {
	skipUnderValidation(t) // the driver did allocate the memory, and a failed call's handle is not used, so it stays
	d := openDevice(t, vk.Options{})
	d.SetCaps(func(c *vk.Caps) { c.MaxAllocation = 5000 })
	d.Fault(func(op string, result int32) int32 {
		if op == "vkAllocateMemory" {
			return -2
		}
		return result
	})
	start := d.Stats()
	_, err := d.NewBuffer("large", 5<<20)
	require.ErrorIs(t, err, vk.ErrOutOfMemory)
	assert.ErrorContains(t, err, `"large" of 5242880 bytes: vkAllocateMemory: `)
	assert.ErrorContains(t, err, "; the device guarantees allocations of up to 5000 bytes (maxMemoryAllocationSize)")
	d.Fault(nil)
	assert.Equal(t, start, d.Stats())
	uploadTo(t, newBuffer(t, d, "small", 4).Range(), []uint32{1})
}

// TestFreeMemory: what is free falls by what is allocated, a buffer that exceeds it is refused, and one that fits is not.
func TestFreeMemory(t *testing.T) {
	const mib = 1 << 20
	d := openDevice(t, vk.Options{Simulate: &simulate.Limits{BufferBytes: 64 * mib}})
	require.Equal(t, uint64(64*mib), d.FreeMemory())
	a := newBuffer(t, d, "a", 30*mib)
	require.Equal(t, uint64(34*mib), d.FreeMemory())
	_, err := d.NewBuffer("b", 34*mib+1)
	require.ErrorIs(t, err, vk.ErrOutOfMemory)
	assert.ErrorContains(t, err, `vk: NewBuffer "b" of 35651585 bytes: out of memory: 35651840 bytes are needed, and 35651584 are free`)
	b := newBuffer(t, d, "b", 30*mib)
	require.Equal(t, uint64(4*mib), d.FreeMemory())
	small := newBuffer(t, d, "small", mib) // where no block of the usual size fits
	require.Equal(t, uint64(3*mib), d.FreeMemory())
	closeAll(t, small, a, b)
	require.Equal(t, uint64(64*mib), d.FreeMemory())

	newBuffer(t, d, "in a block", mib)
	newBuffer(t, d, "all", 48*mib)
	require.Equal(t, uint64(4*mib), d.FreeMemory(), "in the block")
	d.SetCaps(func(c *vk.Caps) { c.MaxBufferBytes = 1000 })
	require.Equal(t, uint64(1000), d.FreeMemory())
	_, err = d.NewBuffer("c", 1001)
	assert.ErrorContains(t, err, "out of memory: the device has no buffers of more than 1000 bytes (maxBufferSize)")
}

func TestBlocksShared(t *testing.T) {
	d := openDevice(t, vk.Options{})
	const mib = 1 << 20
	var list []*vk.Buffer
	for i := range 16 {
		list = append(list, newBuffer(t, d, fmt.Sprint(i), mib))
	}
	require.Equal(t, uint64(1), d.Stats().Allocations, "16 buffers of 1 MiB fill one block")
	block, at := list[5].Location()
	assert.Equal(t, uint64(5*mib), at)
	closeAll(t, list[5], list[6])
	same := func(b *vk.Buffer, want uint64) {
		t.Helper()
		k, offset := b.Location()
		assert.Equal(t, block, k)
		assert.Equal(t, want, offset)
	}
	same(newBuffer(t, d, "half", mib/2), 5*mib)
	same(newBuffer(t, d, "odd", mib/2+1), 5*mib+mib/2)
	same(newBuffer(t, d, "rest", mib-vk.Alignment), 6*mib+vk.Alignment)
	require.Equal(t, uint64(1), d.Stats().Allocations, "all are in the gap")
	_ = newBuffer(t, d, "too much", 1)
	require.Equal(t, uint64(2), d.Stats().Allocations)
}

// model is the expected state of the pool: the open buffers, each filled with its own byte.
type model struct {
	t    *testing.T
	d    *vk.Device
	open []*vk.Buffer
	fill map[*vk.Buffer]uint8
	peak uint64
}

func rounded(n uint64) uint64 { return (n + vk.Alignment - 1) / vk.Alignment * vk.Alignment }

// gap reports whether a shared block with buffers has a gap of size bytes.
func (m *model) gap(size uint64) bool {
	byBlock := map[uintptr][]*vk.Buffer{}
	for _, b := range m.open {
		if b.Size() <= vk.MaxSharedBytes {
			k, _ := b.Location()
			byBlock[k] = append(byBlock[k], b)
		}
	}
	for _, list := range byBlock {
		slices.SortFunc(list, func(a, b *vk.Buffer) int { return cmp.Compare(offsetOf(a.Location()), offsetOf(b.Location())) })
		at := uint64(0)
		for _, b := range list {
			if offsetOf(b.Location())-at >= size {
				return true
			}
			at = offsetOf(b.Location()) + rounded(b.Size())
		}
		if vk.BlockBytes-at >= size {
			return true
		}
	}
	return false
}

func offsetOf(_ uintptr, offset uint64) uint64 { return offset }

func (m *model) alloc(size uint64, fill uint8) {
	before, fits := m.d.Stats(), size <= vk.MaxSharedBytes && m.gap(rounded(size))
	b, err := m.d.NewBuffer(fmt.Sprint("model ", fill), size)
	require.NoError(m.t, err)
	if fits {
		require.Equal(m.t, before.Allocations, m.d.Stats().Allocations, "there was a gap for %d bytes", size)
	}
	k, at := b.Location()
	require.Zero(m.t, at%vk.Alignment)
	for _, o := range m.open {
		ko, ao := o.Location()
		require.False(m.t, k == ko && at < ao+o.Size() && ao < at+size, "buffers overlap")
	}
	data := make([]uint8, size)
	for i := range data {
		data[i] = fill
	}
	uploadTo(m.t, b.Range(), data)
	m.open, m.fill[b] = append(m.open, b), fill
}

func (m *model) release(i int) {
	b := m.open[i]
	data := make([]uint8, b.Size())
	require.NoError(m.t, m.d.Download(context.TODO(), vk.Transfer{Range: b.Range(), Data: data}))
	for j, v := range data {
		if v != m.fill[b] {
			m.t.Fatalf("byte %d of %d is %d, want %d: another buffer overlaps", j, len(data), v, m.fill[b])
		}
	}
	closeAll(m.t, b)
	m.open = slices.Delete(m.open, i, i+1)
}

func (m *model) check() {
	var live, taken uint64
	blocks := map[uintptr]bool{}
	for _, b := range m.open {
		live += b.Size()
		k, _ := b.Location()
		if b.Size() > vk.MaxSharedBytes {
			taken += rounded(b.Size())
		} else if !blocks[k] {
			taken += vk.BlockBytes
		}
		blocks[k] = true
	}
	m.peak = max(m.peak, live)
	s := m.d.Stats()
	require.Equal(m.t, int64(len(m.open)), s.Buffers)
	require.Equal(m.t, live, s.BufferBytes)
	require.Equal(m.t, m.peak, s.PeakBytes)
	if m.peak > 0 { // the staging buffer is allocated
		taken += 2 * vk.ChunkBytes
	}
	require.Contains(m.t, []uint64{0, vk.BlockBytes}, s.DeviceBytes-taken, "at most one empty block is kept")
}

func TestPoolModel(t *testing.T) {
	m := &model{t: t, d: openDevice(t, vk.Options{}), fill: map[*vk.Buffer]uint8{}}
	r := rand.New(rand.NewPCG(3, 4))
	edges := []uint64{1, 3, 255, 256, 257, 65536, vk.MaxSharedBytes - 1, vk.MaxSharedBytes, vk.MaxSharedBytes + 1}
	for step := range 600 {
		// The fraction of closes alternates, so that the pool fills and empties several times.
		if len(m.open) > 0 && (r.IntN(10) < []int{3, 7}[step/100%2] || len(m.open) > 60) {
			m.release(r.IntN(len(m.open)))
		} else if r.IntN(5) == 0 {
			m.alloc(edges[r.IntN(len(edges))], uint8(step))
		} else {
			m.alloc(1+r.Uint64N(1<<(4+r.IntN(17))), uint8(step))
		}
		m.check()
	}
	for len(m.open) > 0 {
		m.release(len(m.open) - 1)
	}
	m.check()
}

func TestSlice(t *testing.T) {
	d := openDevice(t, vk.Options{})
	r := newBuffer(t, d, "b", 100).Range()
	s := r.Slice(40, 20)
	assert.Equal(t, uint64(40), s.Offset())
	assert.Equal(t, uint64(20), s.Size())
	assert.Equal(t, uint64(45), s.Slice(5, 15).Offset())
	assert.Equal(t, d, s.Device())
	assert.True(t, vk.Range{}.IsZero())
	assert.Nil(t, vk.Range{}.Device())
	download := func(r vk.Range, size int) error {
		return d.Download(t.Context(), vk.Transfer{Range: r, Data: make([]byte, size)})
	}
	require.NoError(t, download(s, 20))
	for name, bad := range map[string]vk.Range{
		"beyond the end":            r.Slice(90, 11),
		"after the end":             r.Slice(101, 1),
		"beyond the slice":          s.Slice(10, 11),
		"slice of an invalid slice": s.Slice(10, 11).Slice(0, 4),
		"of an overflow":            r.Slice(^uint64(0), 2),
		"a size that overflows":     r.Slice(10, ^uint64(0)-5),
		"of a slice after an end":   r.Slice(200, 4).Slice(^uint64(0)-150, 4),
		"nothing":                   r.Slice(10, 0),
		"zero":                      {},
	} {
		assert.Error(t, download(bad, 4), name)
		assert.Error(t, d.Upload(t.Context(), vk.Transfer{Range: bad, Data: make([]byte, 4)}), name)
	}
	assert.ErrorContains(t, download(r.Slice(90, 11), 11), `transfer 0 is 11 bytes at offset 90 of buffer "b", which has 100 bytes`)
	assert.ErrorContains(t, download(s.Slice(10, 11), 11), `of buffer "b", beyond the end of the range that it is a slice of`)
	assert.ErrorContains(t, download(r.Slice(10, 0), 0), `transfer 0 is 0 bytes at offset 10 of buffer "b", want at least 1`)
	assert.ErrorContains(t, download(r.Slice(90, 10), 11), `11 bytes of data for 10 bytes of buffer "b"`)
	assert.ErrorContains(t, download(vk.Range{}, 4), "transfer 0 is the zero Range")
}
