package vk_test

import (
	"sync"
	"testing"

	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestCloseDuringCalls closes a device while other goroutines use it. Every call succeeds or returns ErrClosed.
func TestCloseDuringCalls(t *testing.T) {
	times := 5
	if testing.Short() {
		times = 1
	}
	for range times {
		d, err := vk.Open(vk.Options{CacheDir: "-"})
		require.NoError(t, err)
		b, err := d.NewBuffer("b", 20<<20)
		require.NoError(t, err)
		data := make([]byte, 20<<20)
		var started, done sync.WaitGroup
		for _, call := range []func() error{
			func() error { return d.Upload(t.Context(), vk.Transfer{Range: b.Range(), Data: data}) },
			func() error {
				c, err := d.NewBuffer("c", 4096)
				if err != nil {
					return err
				}
				return c.Close()
			},
			func() error {
				l, err := d.NewCommandList(vk.CommandListConfig{})
				if err != nil {
					return err
				}
				return l.Close()
			},
			func() error { d.DrainMessages(); return d.Wait(t.Context()) },
		} {
			started.Add(1)
			done.Add(1)
			go func() {
				defer done.Done()
				err := call()
				for started.Done(); err == nil; {
					err = call()
				}
				assert.ErrorIs(t, err, vk.ErrClosed)
			}()
		}
		started.Wait()
		_ = d.Close() // the objects open at this moment are random, and so is the error
		done.Wait()
		require.NoError(t, b.Close())
	}
}

// TestOverlappingUpload: two transfers of an upload write the same byte.
func TestOverlappingUpload(t *testing.T) {
	d := openDevice(t, vk.Options{})
	b := newBuffer(t, d, "b", 64)
	err := d.Upload(t.Context(),
		vk.Transfer{Range: b.Range().Slice(32, 32), Data: make([]byte, 32)},
		vk.Transfer{Range: b.Range().Slice(0, 33), Data: make([]byte, 33)},
	)
	assert.ErrorContains(t, err, `two transfers write bytes of buffer "b" from offset 32 on`)
	require.NoError(t, d.Upload(t.Context(),
		vk.Transfer{Range: b.Range().Slice(32, 32), Data: make([]byte, 32)},
		vk.Transfer{Range: b.Range().Slice(0, 32), Data: make([]byte, 32)},
	))
}
