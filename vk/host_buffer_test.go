package vk_test

import (
	"testing"

	"github.com/colt5-vulkan/colt5/internal/simulate"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestHostBuffer moves data through a kernel that a list runs between two copies, on memory that is coherent and not.
func TestHostBuffer(t *testing.T) {
	for name, limits := range map[string]*simulate.Limits{"coherent": nil, "not coherent": {NonCoherent: true}} {
		t.Run(name, func(t *testing.T) {
			d := openDevice(t, vk.Options{Simulate: limits})
			k := newKernel(t, d, "mix", nil)
			before := d.Stats()
			host, err := d.NewHostBuffer("host", 40)
			require.NoError(t, err)
			assert.Equal(t, before.DeviceBytes+40, d.Stats().DeviceBytes)
			assert.Equal(t, before.Buffers+1, d.Stats().Buffers)
			y := newBuffer(t, d, "y", 16)
			l := newList(t, d, vk.CommandListConfig{Name: "round"})
			require.NoError(t, l.Copy(y.Range(), host.Range().Slice(4, 16)))
			require.NoError(t, l.Dispatch(mixDispatch(k, vk.Range{}, y.Range(), y.Range(), 7)))
			require.NoError(t, l.Copy(host.Range().Slice(20, 16), y.Range()))
			want := newBuffer(t, d, "want", 16)
			for round := range uint64(3) {
				words := randomWords(round, 4)
				require.NoError(t, host.Write(4, vk.Bytes(words)))
				require.NoError(t, l.Submit(t.Context()))
				assert.EqualError(t, host.Write(0, []byte{1}), `vk: Write of host buffer "host": a run that uses it was not waited for`)
				assert.EqualError(t, host.Read(0, []byte{1}), `vk: Read of host buffer "host": a run that uses it was not waited for`)
				require.NoError(t, l.Wait(t.Context()))
				got := make([]uint32, 4)
				require.NoError(t, host.Read(20, vk.Bytes(got)))

				uploadTo(t, want.Range(), words)
				same := newList(t, d, vk.CommandListConfig{})
				require.NoError(t, same.Dispatch(mixDispatch(k, vk.Range{}, want.Range(), want.Range(), 7)))
				require.NoError(t, same.Run(t.Context()))
				assert.Equal(t, download(t, want.Range()), got)
				closeAll(t, same)
			}
			if limits == nil {
				assert.Equal(t, "T H", l.BarrierKinds()[len(l.BarrierKinds())-1])
			}
			held := d.Stats()
			closeAll(t, host, host)
			assert.Equal(t, held.DeviceBytes-40, d.Stats().DeviceBytes)
			assert.Equal(t, held.Buffers-1, d.Stats().Buffers)
			closeAll(t, l, y, want)
		})
	}
}

// TestHostBufferRefused: nothing but Copy takes host memory, and no access leaves it.
func TestHostBufferRefused(t *testing.T) {
	d := openDevice(t, vk.Options{})
	k := newKernel(t, d, "mix", nil)
	_, err := d.NewHostBuffer("h", 0)
	assert.EqualError(t, err, `vk: NewHostBuffer "h": size is 0, want at least 1`)
	_, err = d.NewHostBuffer("h", 1<<60)
	assert.ErrorIs(t, err, vk.ErrOutOfMemory)
	host, err := d.NewHostBuffer("h", 16)
	require.NoError(t, err)
	l := newList(t, d, vk.CommandListConfig{})
	const only = `is of host buffer "h", which only Copy takes`
	assert.ErrorContains(t, l.Dispatch(mixDispatch(k, vk.Range{}, host.Range(), host.Range(), 1)), only)
	assert.ErrorContains(t, l.Fill(host.Range(), 0), only)
	assert.ErrorContains(t, l.Bind(l.NewBinding("b", 16), host.Range()), only)
	assert.ErrorContains(t, d.Upload(t.Context(), vk.Transfer{Range: host.Range(), Data: make([]byte, 16)}), only)
	assert.ErrorContains(t, d.Download(t.Context(), vk.Transfer{Range: host.Range(), Data: make([]byte, 16)}), only)
	for _, offset := range []uint64{9, 17, 1<<64 - 4} {
		assert.ErrorContains(t, host.Write(offset, make([]byte, 8)), "want offsets up to 16")
		assert.ErrorContains(t, host.Read(offset, make([]byte, 8)), "want offsets up to 16")
	}
	closeAll(t, host, (*vk.HostBuffer)(nil))
	assert.ErrorIs(t, host.Write(0, nil), vk.ErrClosed)
	assert.ErrorIs(t, host.Read(0, nil), vk.ErrClosed)
	b := newBuffer(t, d, "b", 16)
	assert.ErrorContains(t, l.Copy(b.Range(), host.Range()), `host buffer "h", which is closed`)
}

// TestHostBufferLeft: Device.Close names a host buffer that was left open.
func TestHostBufferLeft(t *testing.T) {
	openDevice(t, vk.Options{}) // skips without a device
	d, err := vk.Open(vk.Options{CacheDir: "-"})
	require.NoError(t, err)
	host, err := d.NewHostBuffer("forgotten", 16)
	require.NoError(t, err)
	assert.ErrorContains(t, d.Close(), "left open: 1 buffer (forgotten)")
	closeAll(t, host)
}
