package pipelines

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestMain(m *testing.M) { gputest.Main(m) }

// normal returns n values of a standard normal distribution, the same for the same seed.
func normal(seed uint64, n int) []float32 {
	r := rand.New(rand.NewPCG(seed, 1))
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(r.NormFloat64())
	}
	return x
}

// The functions below test ranges that start at an offset in a buffer, between margins of as many bytes.

const marginByte = 0x5a

// withMargins returns the bytes of a slice between margins. An int stands for as many float32 NaN.
func withMargins(data any, offset uint64) []byte {
	margin := bytes.Repeat([]byte{marginByte}, int(offset))
	return slices.Concat(margin, rawBytes(data), margin)
}

func rawBytes(data any) []byte {
	switch d := data.(type) {
	case []float32:
		return vk.Bytes(d)
	case []int32:
		return vk.Bytes(d)
	case []uint32:
		return vk.Bytes(d)
	case []uint16:
		return vk.Bytes(d)
	case []byte:
		return d
	case int:
		return bytes.Repeat([]byte{0xff}, 4*d)
	}
	panic(fmt.Sprintf("no bytes of %T", data))
}

// inputAt makes an input range at an offset of a buffer.
func inputAt(gpu *gputest.Harness, name string, data any, offset uint64) vk.Range {
	return gpu.In(name, withMargins(data, offset)).Slice(offset, uint64(len(rawBytes(data))))
}

// outputAt makes an output range of float32 elements at an offset of a buffer.
func outputAt(gpu *gputest.Harness, name string, elements int, offset uint64) vk.Range {
	return gpu.InOut(name, withMargins(elements, offset)).Slice(offset, 4*uint64(elements))
}

// outputFrom returns the contents of an outputAt range, and requires that the margins are unchanged.
func outputFrom(t *testing.T, gpu *gputest.Harness, name string, offset uint64) []float32 {
	t.Helper()
	return F32.outputFrom(t, gpu, name, offset)
}

// outputAt is outputAt for elements of the precision.
func (p DType) outputAt(gpu *gputest.Harness, name string, elements int, offset uint64) vk.Range {
	size := uint64(p.Size() * elements)
	return gpu.InOut(name, withMargins(bytes.Repeat([]byte{0xff}, int(size)), offset)).Slice(offset, size)
}

// outputFrom is outputFrom for elements of the precision.
func (p DType) outputFrom(t *testing.T, gpu *gputest.Harness, name string, offset uint64) []float32 {
	t.Helper()
	got, margin := gpu.Uint8(name), bytes.Repeat([]byte{marginByte}, int(offset))
	require.Equal(t, margin, got[:offset], "%s: before the range", name)
	require.Equal(t, margin, got[len(got)-int(offset):], "%s: after the range", name)
	all := decode(p, gpu, name)
	return all[int(offset)/p.Size() : len(all)-int(offset)/p.Size()]
}

// badArgs is one invalid change of valid arguments.
type badArgs[A any] struct {
	want   string // part of the error
	change func(*A)
}

// assertRejected applies each change to valid arguments, and asserts that recording fails and adds no dispatch.
func assertRejected[A any](t *testing.T, gpu *gputest.Harness, valid A, record func(*vk.CommandList, A) error, cases []badArgs[A]) {
	t.Helper()
	for _, c := range cases {
		a := valid
		c.change(&a)
		list, err := gpu.Dev.NewCommandList(vk.CommandListConfig{Name: "bad"})
		require.NoError(t, err)
		assert.ErrorContains(t, record(list, a), c.want)
		assert.Empty(t, list.StepNames(), c.want)
		require.NoError(t, list.Close())
	}
}

// assertRecordError records on a new command list, and asserts that the error contains a text.
func assertRecordError(t *testing.T, gpu *gputest.Harness, want string, record func(*vk.CommandList) error) {
	t.Helper()
	list, err := gpu.Dev.NewCommandList(vk.CommandListConfig{Name: "bad"})
	require.NoError(t, err)
	defer list.Close()
	assert.ErrorContains(t, record(list), want)
}

// Kernels load 16 bytes at a time where every row starts at a multiple of 16 bytes, else 4.
func TestRowAlign(t *testing.T) {
	for c, want := range map[int]uint64{1: 4, 2: 4, 3: 4, 4: 16, 6: 4, 8: 16, 9: 4, 512: 16} {
		assert.Equal(t, want, rowAlign(c), c)
	}
}
