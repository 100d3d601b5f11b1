package vk_test

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/require"
)

func TestMain(m *testing.M) { gputest.Main(m) }

// spv returns the SPIR-V of testdata/name.comp. The files are made by the compiler of `make shaders`:
//
//	glslc --target-env=vulkan1.2 -O -o NAME.spv NAME.comp         (needs_wide: -DWIDE, of needs.comp)
func spv(t testing.TB, name string) []byte {
	t.Helper()
	code, err := os.ReadFile(filepath.Join("testdata", name+".spv"))
	require.NoError(t, err)
	return code
}

// openDevice opens a device for one test and closes it at the end. Objects left open and validation messages fail the
// test.
func openDevice(t testing.TB, o vk.Options) *vk.Device {
	t.Helper()
	gputest.Device(t) // skips without one
	gputest.CountCase()
	if o.CacheDir == "" {
		o.CacheDir = "-"
	}
	if o.Simulate == nil {
		limits, err := gputest.Limits()
		require.NoError(t, err)
		o.Simulate = limits
	}
	d, err := vk.Open(o)
	require.NoError(t, err)
	t.Cleanup(func() { closeAll(t, d) })
	return d
}

// closer is a buffer, kernel, command list or device.
type closer interface{ Close() error }

func closeAll(t testing.TB, list ...closer) {
	t.Helper()
	for _, c := range list {
		if err := c.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
}

// closeAtEnd closes objects at the end of the test, before the device, which was opened earlier.
func closeAtEnd(t testing.TB, list ...closer) {
	t.Cleanup(func() { closeAll(t, list...) })
}

func newKernel(t testing.TB, d *vk.Device, name string, spec map[uint32]uint32) *vk.Kernel {
	t.Helper()
	k, err := d.NewKernel(vk.KernelConfig{Name: name, Code: spv(t, name), Spec: spec})
	require.NoError(t, err)
	closeAtEnd(t, k)
	return k
}

func newBuffer(t testing.TB, d *vk.Device, name string, size uint64) *vk.Buffer {
	t.Helper()
	b, err := d.NewBuffer(name, size)
	require.NoError(t, err)
	closeAtEnd(t, b)
	return b
}

func newList(t testing.TB, d *vk.Device, c vk.CommandListConfig) *vk.CommandList {
	t.Helper()
	if c.Name == "" {
		c.Name = t.Name()
	}
	l, err := d.NewCommandList(c)
	require.NoError(t, err)
	closeAtEnd(t, l)
	return l
}

func uploadTo[T uint32 | uint8](t testing.TB, r vk.Range, data []T) {
	t.Helper()
	require.NoError(t, r.Device().Upload(t.Context(), vk.Transfer{Range: r, Data: vk.Bytes(data)}))
}

func download(t testing.TB, r vk.Range) []uint32 {
	t.Helper()
	data := make([]uint32, r.Size()/4)
	require.NoError(t, r.Device().Download(t.Context(), vk.Transfer{Range: r, Data: vk.Bytes(data)}))
	return data
}

// retryTimeouts calls f until it returns another error than ErrTimeout.
func retryTimeouts(t testing.TB, f func() error) {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; {
		err := f()
		if err == nil {
			return
		}
		if !errors.Is(err, vk.ErrTimeout) || time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

func randomWords(seed uint64, n int) []uint32 {
	r := rand.New(rand.NewPCG(seed, 2))
	list := make([]uint32, n)
	for i := range list {
		list[i] = r.Uint32()
	}
	return list
}

type mixPush struct{ n, mul uint32 }

const mixWidth = 64 // default workgroup size of mix.comp

// mixDispatch returns a dispatch of mix.comp.
func mixDispatch(k *vk.Kernel, a, b, y vk.Range, mul uint32) vk.Dispatch {
	n := uint32(y.Size() / 4)
	return vk.Dispatch{
		Kernel: k, Groups: [3]uint32{(n + mixWidth - 1) / mixWidth, 1, 1},
		Args: []vk.Access{vk.Read(a), vk.Read(b), vk.Write(y)}, Push: vk.Scalars(&mixPush{n, mul}),
	}
}

// mixReference computes mix.comp on the CPU; y may be a or b.
func mixReference(y, a, b []uint32, mul, add uint32) {
	for i := range y {
		v := b[i] + uint32(i) + add
		if a != nil {
			v += a[i] * mul
		}
		y[i] = v
	}
}

// busyDispatch returns a dispatch of busy.comp: 0.1 to 0.5 microseconds per round. Not all drivers execute more than
// 65,000 rounds.
func busyDispatch(k *vk.Kernel, y vk.Range, rounds uint32) vk.Dispatch {
	return vk.Dispatch{Kernel: k, Groups: [3]uint32{1, 1, 1}, Args: []vk.Access{vk.Write(y)}, Push: vk.Scalars(&rounds)}
}

func busyResult(rounds uint32) uint32 {
	s := uint32(1)
	for range 64 * rounds {
		s = s*1664525 + 1013904223 ^ s>>7
	}
	return s
}
