package vk_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func randomBytes(seed uint64, n int) []byte { return vk.Bytes(randomWords(seed, n/4+1))[:n] }

// TestTransferSizes uploads and downloads sizes around multiples of the staging chunk.
func TestTransferSizes(t *testing.T) {
	d := openDevice(t, vk.Options{})
	const chunk, most = vk.ChunkBytes, 40_000_003
	b := newBuffer(t, d, "b", most+2)
	guard := []byte{0xa5}
	for _, size := range []int{1, 2, 3, 4, 5, 255, 4097, chunk - 1, chunk, chunk + 1, 2*chunk - 1, 2 * chunk, 2*chunk + 1, 3 * chunk, 4 * chunk, most} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			whole := b.Range().Slice(0, uint64(size)+2)
			data, got := randomBytes(uint64(size), size), make([]byte, size)
			require.NoError(t, d.Upload(t.Context(),
				vk.Transfer{Range: whole.Slice(0, 1), Data: guard},
				vk.Transfer{Range: whole.Slice(1, uint64(size)), Data: data},
				vk.Transfer{Range: whole.Slice(uint64(size)+1, 1), Data: guard},
			))
			require.NoError(t, d.Download(t.Context(), vk.Transfer{Range: whole.Slice(1, uint64(size)), Data: got}))
			require.True(t, bytes.Equal(data, got))
			ends := [2][1]byte{}
			require.NoError(t, d.Download(t.Context(),
				vk.Transfer{Range: whole.Slice(0, 1), Data: ends[0][:]},
				vk.Transfer{Range: whole.Slice(uint64(size)+1, 1), Data: ends[1][:]},
			))
			assert.Equal(t, [2][1]byte{{0xa5}, {0xa5}}, ends)
			// Without the guard bytes, so that the chunks are filled exactly.
			before := d.Stats().Submits
			require.NoError(t, d.Upload(t.Context(), vk.Transfer{Range: whole.Slice(0, uint64(size)), Data: data}))
			assert.Equal(t, before+uint64(size+chunk-1)/chunk, d.Stats().Submits, "each chunk is submitted once")
			clear(got)
			require.NoError(t, d.Download(t.Context(), vk.Transfer{Range: whole.Slice(0, uint64(size)), Data: got}))
			require.True(t, bytes.Equal(data, got))
		})
	}
}

// TestTransferBatch moves many ranges in one call, in random order.
func TestTransferBatch(t *testing.T) {
	d := openDevice(t, vk.Options{})
	r := rand.New(rand.NewPCG(5, 6))
	var bounds []uint64
	total := uint64(0)
	for range 1500 {
		bounds = append(bounds, total)
		total += 1 + r.Uint64N(1<<r.IntN(16))
	}
	bounds = append(bounds, total)
	b := newBuffer(t, d, "b", total)
	data, got := randomBytes(7, int(total)), make([]byte, total)
	up, down := make([]vk.Transfer, 1500), make([]vk.Transfer, 1500)
	for i, j := range r.Perm(1500) {
		part := b.Range().Slice(bounds[j], bounds[j+1]-bounds[j])
		up[i] = vk.Transfer{Range: part, Data: data[bounds[j]:bounds[j+1]]}
		down[1499-i] = vk.Transfer{Range: part, Data: got[bounds[j]:bounds[j+1]]}
	}
	before := d.Stats()
	require.NoError(t, d.Upload(t.Context(), up...))
	require.NoError(t, d.Download(t.Context(), down...))
	assert.True(t, bytes.Equal(data, got))
	s := d.Stats()
	batches := (total + vk.ChunkBytes - 1) / vk.ChunkBytes
	assert.Equal(t, before.Submits+2*batches, s.Submits, "one submit per full chunk")
	assert.NoError(t, d.Upload(t.Context()))
	assert.NoError(t, d.Download(t.Context()))
	assert.Equal(t, s, d.Stats())
}

func TestTransferRefused(t *testing.T) {
	d := openDevice(t, vk.Options{})
	a, b := newBuffer(t, d, "a", 8), newBuffer(t, d, "b", 8)
	closeAll(t, b)
	l := newList(t, d, vk.CommandListConfig{})
	uploadTo(t, a.Range(), []uint32{1, 2})
	data := make([]byte, 8)
	good := vk.Transfer{Range: a.Range(), Data: data}
	assert.ErrorIs(t, d.Upload(t.Context(), good, vk.Transfer{Range: b.Range(), Data: data}), vk.ErrClosed)
	assert.ErrorContains(t, d.Upload(t.Context(), good, vk.Transfer{Range: b.Range(), Data: data}), `transfer 1 is of buffer "b", which is closed`)
	assert.ErrorContains(t, d.Upload(t.Context(), good, vk.Transfer{Range: a.Range(), Data: data[:7]}), `transfer 1: 7 bytes of data for 8 bytes of buffer "a"`)
	assert.ErrorContains(t, d.Upload(t.Context(), good, vk.Transfer{Range: l.NewBinding("s", 8).Range(), Data: data}), `binding "s", which belongs to another command list`)
	assert.Equal(t, []uint32{1, 2}, download(t, a.Range()), "a rejected batch copies nothing")
	closeAll(t, a) // nothing uses it
}

// assertTimeout checks the error of a wait that is longer than the timeout. Some CPU drivers do the work during the
// submission.
func assertTimeout(t *testing.T, d *vk.Device, err error) {
	t.Helper()
	if err != nil || !d.Caps().CPU {
		require.ErrorIs(t, err, vk.ErrTimeout)
	}
}

// TestTransferTimeout runs transfers after a kernel that keeps the device busy.
func TestTransferTimeout(t *testing.T) {
	d := openDevice(t, vk.Options{Timeout: time.Millisecond})
	const rounds, size = 65_000, 3*vk.ChunkBytes + 5
	y, b := newBuffer(t, d, "y", 4), newBuffer(t, d, "b", size)
	k, l := newKernel(t, d, "busy", nil), newList(t, d, vk.CommandListConfig{})
	require.NoError(t, l.Dispatch(busyDispatch(k, y.Range(), rounds)))
	data, got, other := randomBytes(8, size), make([]byte, size), randomBytes(9, size)
	retryTimeouts(t, func() error { return d.Upload(t.Context(), vk.Transfer{Range: b.Range(), Data: data}) })

	require.NoError(t, l.Submit(t.Context()))
	assertTimeout(t, d, d.Download(t.Context(), vk.Transfer{Range: b.Range(), Data: got}))
	got = make([]byte, size)
	retryTimeouts(t, func() error { return d.Download(t.Context(), vk.Transfer{Range: b.Range(), Data: got}) })
	assert.True(t, bytes.Equal(data, got))

	retryTimeouts(t, func() error { return l.Submit(t.Context()) })
	assertTimeout(t, d, d.Upload(t.Context(), vk.Transfer{Range: b.Range(), Data: data}))
	retryTimeouts(t, func() error { return d.Upload(t.Context(), vk.Transfer{Range: b.Range(), Data: other}) })
	retryTimeouts(t, func() error { return d.Download(t.Context(), vk.Transfer{Range: b.Range(), Data: got}) })
	assert.True(t, bytes.Equal(other, got))
	retryTimeouts(t, func() error { return l.Wait(t.Context()) })
	require.NoError(t, d.Wait(t.Context()))
	closeAll(t, b)
}

// TestTransferStall: a download does not finish within the timeout.
func TestTransferStall(t *testing.T) {
	d := openDevice(t, vk.Options{Timeout: 50 * time.Millisecond})
	a, b := newBuffer(t, d, "a", 64), newBuffer(t, d, "b", 64)
	data, first := randomBytes(1, 64), make([]byte, 64)
	retryTimeouts(t, func() error { return d.Upload(t.Context(), vk.Transfer{Range: a.Range(), Data: data}) })
	release, err := d.StallDownload(vk.Transfer{Range: a.Range(), Data: first})
	require.NoError(t, err)
	require.ErrorIs(t, d.Upload(t.Context(), vk.Transfer{Range: b.Range(), Data: data}), vk.ErrTimeout)
	closeAll(t, b) // its transfer was not started
	require.NoError(t, release())
	got := make([]byte, 64)
	retryTimeouts(t, func() error { return d.Download(t.Context(), vk.Transfer{Range: a.Range(), Data: got}) })
	assert.Equal(t, data, got)
	assert.Equal(t, make([]byte, 64), first, "the memory of a call that has returned does not change")
	closeAll(t, a)

	c := newBuffer(t, d, "c", 64)
	release, err = d.StallDownload(vk.Transfer{Range: c.Range(), Data: first})
	require.NoError(t, err)
	require.ErrorIs(t, d.Download(t.Context(), vk.Transfer{Range: c.Range(), Data: got}), vk.ErrTimeout)
	closeAll(t, c)
	assert.NotZero(t, d.Stats().Buffers, "the device uses it")
	require.NoError(t, release())
	require.NoError(t, d.Wait(t.Context()))
	assert.Zero(t, d.Stats().Buffers)
}

// TestNoHostVisibleMemory: without host-visible memory kernels compile, and transfers fail until there is such memory.
func TestNoHostVisibleMemory(t *testing.T) {
	d := openDevice(t, vk.Options{})
	b := newBuffer(t, d, "b", 4)
	types := d.LimitMemoryTypes(0)
	newKernel(t, d, "mix", nil)
	start := d.Stats()
	for range 2 {
		data := vk.Transfer{Range: b.Range(), Data: make([]byte, 4)}
		for op, err := range map[string]error{"Upload": d.Upload(t.Context(), data), "Download": d.Download(t.Context(), data)} {
			assert.ErrorIs(t, err, vk.ErrUnsupported)
			assert.ErrorContains(t, err, "vk: "+op+": staging memory: ")
			assert.ErrorContains(t, err, "not supported by this device: host-visible memory")
		}
	}
	assert.NoError(t, d.Upload(t.Context()), "no transfers")
	assert.NoError(t, d.Wait(t.Context()))
	assert.Equal(t, start, d.Stats(), "nothing stays allocated")
	d.LimitMemoryTypes(types)
	uploadTo(t, b.Range(), []uint32{7})
	assert.Equal(t, []uint32{7}, download(t, b.Range()))
}
