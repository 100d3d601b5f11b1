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

// Tests of ranges that start in the middle of a buffer: shifted is data with so many bytes before and behind it; for data that
// is a number, so many floats, all NaN.

const shiftByte = 0x5a

func shifted(data any, start uint64) []byte {
	around := bytes.Repeat([]byte{shiftByte}, int(start))
	return slices.Concat(around, rawBytes(data), around)
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
	case int:
		return bytes.Repeat([]byte{0xff}, 4*d)
	}
	panic(fmt.Sprintf("no bytes of %T", data))
}

// inShifted and outShifted put a shifted input, or a result of so many floats, on a bench.
func inShifted(gpu *gputest.Harness, name string, data any, start uint64) vk.Range {
	return gpu.In(name, shifted(data, start)).Slice(start, uint64(len(rawBytes(data))))
}

func outShifted(gpu *gputest.Harness, name string, floats int, start uint64) vk.Range {
	return gpu.InOut(name, shifted(floats, start)).Slice(start, 4*uint64(floats))
}

// unshifted is what a run left in a shifted buffer, whose ends must be as they were.
func unshifted(t *testing.T, gpu *gputest.Harness, name string, start uint64) []float32 {
	t.Helper()
	got, ends := gpu.Uint8(name), bytes.Repeat([]byte{shiftByte}, int(start))
	require.Equal(t, ends, got[:start], "%s: before the range", name)
	require.Equal(t, ends, got[len(got)-int(start):], "%s: behind the range", name)
	all := gpu.Float32(name)
	return all[start/4 : len(all)-int(start/4)]
}

// normal returns n values of a standard normal distribution, the same for the same seed.
func normal(seed uint64, n int) []float32 {
	r := rand.New(rand.NewPCG(seed, 1))
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(r.NormFloat64())
	}
	return x
}

// assertRecordError records on a command list of its own, and asserts that the error contains a text.
func assertRecordError(t *testing.T, lab *gputest.Harness, want string, record func(*vk.CommandList) error) {
	t.Helper()
	list, err := lab.Dev.NewCommandList(vk.CommandListConfig{Name: "bad"})
	require.NoError(t, err)
	defer list.Close()
	assert.ErrorContains(t, record(list), want)
}

// Ranges start at multiples of 16 bytes where rows are read four floats at once, else at multiples of 4.
func TestRowsOf(t *testing.T) {
	for c, want := range map[int]uint64{1: 4, 2: 4, 3: 4, 4: 16, 6: 4, 8: 16, 9: 4, 512: 16} {
		assert.Equal(t, want, rowAlign(c), c)
	}
}
