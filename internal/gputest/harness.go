package gputest

import (
	"bytes"
	"testing"

	"github.com/colt5-vulkan/colt5/vk"
)

// Harness holds the buffers of one test and the results of its last run.
type Harness struct {
	Dev     *vk.Device
	t       testing.TB
	buffers []*guardedBuffer
	byName  map[string]*guardedBuffer
	kernels []string
}

// guardedBuffer is a buffer whose data lies between two blocks of guard bytes.
type guardedBuffer struct {
	name    string
	buffer  *vk.Buffer
	data    vk.Range // without the guard bytes
	initial []byte   // contents before each run, with the guard bytes
	result  []byte   // contents after the last run, with the guard bytes; nil before the first
	output  bool     // a run may change the data
}

// New returns a harness on the shared device. Its buffers are closed when the test ends.
func New(t testing.TB) *Harness {
	t.Helper()
	h := &Harness{Dev: Device(t), t: t, byName: map[string]*guardedBuffer{}}
	t.Cleanup(h.close)
	return h
}

// close runs in a Cleanup function, where the context of the test is already cancelled.
func (h *Harness) close() {
	for _, b := range h.buffers {
		if err := b.buffer.Close(); err != nil {
			h.t.Error(err)
		}
	}
	if n, text := h.Dev.DrainMessages(); n > 0 {
		h.t.Errorf("%d validation messages:\n%s", n, text)
	}
}

func (h *Harness) add(name string, data []byte, output bool) vk.Range {
	h.t.Helper()
	if h.byName[name] != nil {
		h.t.Fatalf("gputest: there already is a buffer %q", name)
	}
	size := (len(data) + 3) &^ 3
	buffer, err := h.Dev.NewBuffer(name, uint64(size+2*guardBytes))
	if err != nil {
		h.t.Fatal(err)
	}
	b := &guardedBuffer{name: name, buffer: buffer, output: output, initial: bytes.Repeat([]byte{guardByte}, size+2*guardBytes)}
	copy(b.initial[guardBytes:], data)
	b.data = buffer.Range().Slice(guardBytes, uint64(len(data)))
	h.buffers = append(h.buffers, b)
	h.byName[name] = b
	return b.data
}

// In allocates an input that holds data: a []float32, []int32, []uint32, []uint16 or []uint8. A run must not change it.
func (h *Harness) In(name string, data any) vk.Range {
	h.t.Helper()
	return h.add(name, h.bytes(data), false)
}

// InOut allocates a buffer that a run may change. It holds data at the start of every run.
func (h *Harness) InOut(name string, data any) vk.Range {
	h.t.Helper()
	return h.add(name, h.bytes(data), true)
}

// Out allocates an output of size bytes. It is filled with NaNs at the start of every run.
func (h *Harness) Out(name string, size int) vk.Range {
	h.t.Helper()
	return h.add(name, bytes.Repeat([]byte{nanByte}, size), true)
}

func (h *Harness) bytes(data any) []byte {
	h.t.Helper()
	switch d := data.(type) {
	case []float32:
		return vk.Bytes(d)
	case []int32:
		return vk.Bytes(d)
	case []uint32:
		return vk.Bytes(d)
	case []uint16:
		return vk.Bytes(d)
	case []uint8:
		return vk.Bytes(d)
	}
	h.t.Fatalf("gputest: data is %T, want []float32, []int32, []uint32, []uint16 or []uint8", data)
	return nil
}

// Run records a command list once and runs it three times. Then it records and runs a second list, with a barrier
// before every step. The test fails unless
//
//   - all runs leave the same bits in every buffer,
//   - inputs do not change,
//   - guard bytes do not change.
func (h *Harness) Run(record func(*vk.CommandList) error) {
	h.t.Helper()
	CountCase()
	for _, barriers := range []bool{false, true} {
		list, err := h.Dev.NewCommandList(vk.CommandListConfig{Name: h.t.Name(), BarrierEverywhere: barriers})
		if err != nil {
			h.t.Fatal(err)
		}
		if barriers {
			h.runList(list, record, 1, true)
		} else {
			h.runList(list, record, runs, false)
		}
		if err := list.Close(); err != nil {
			h.t.Fatal(err)
		}
	}
}

// runList records a list and runs it count times. Each run is compared with the one before; the first one only with
// sameAsBefore.
func (h *Harness) runList(list *vk.CommandList, record func(*vk.CommandList) error, count int, sameAsBefore bool) {
	h.t.Helper()
	if err := record(list); err != nil {
		list.Close()
		h.t.Fatal(err)
	}
	h.kernels = list.StepNames()
	for run := range count {
		h.reset()
		if err := list.Run(h.t.Context()); err != nil {
			list.Close()
			h.t.Fatal(err)
		}
		h.checkRun(run > 0 || sameAsBefore)
	}
}

// reset uploads the initial contents of every buffer.
func (h *Harness) reset() {
	h.t.Helper()
	var transfers []vk.Transfer
	for _, b := range h.buffers {
		transfers = append(transfers, vk.Transfer{Range: b.buffer.Range(), Data: b.initial})
	}
	if err := h.Dev.Upload(h.t.Context(), transfers...); err != nil {
		h.t.Fatal(err)
	}
}

// checkRun downloads and checks every buffer. With sameAsBefore the contents must equal those after the run before.
func (h *Harness) checkRun(sameAsBefore bool) {
	h.t.Helper()
	var transfers []vk.Transfer
	results := make([][]byte, len(h.buffers))
	for i, b := range h.buffers {
		results[i] = make([]byte, len(b.initial))
		transfers = append(transfers, vk.Transfer{Range: b.buffer.Range(), Data: results[i]})
	}
	if err := h.Dev.Download(h.t.Context(), transfers...); err != nil {
		h.t.Fatal(err)
	}
	for i, b := range h.buffers {
		result, end := results[i], guardBytes+int(b.data.Size())
		if !bytes.Equal(result[:guardBytes], b.initial[:guardBytes]) || !bytes.Equal(result[end:], b.initial[end:]) {
			h.t.Fatalf("%s: the kernel wrote out of bounds", b.name)
		}
		if !b.output && !bytes.Equal(result, b.initial) {
			h.t.Fatalf("%s: the kernel changed an input", b.name)
		}
		if sameAsBefore && !bytes.Equal(result, b.result) {
			h.t.Fatalf("%s: two runs gave different bits", b.name)
		}
		b.result = result
	}
}

// StepNames returns the names of the steps that the last Run recorded, in order.
func (h *Harness) StepNames() []string { return h.kernels }

func (h *Harness) result(name string) []byte {
	h.t.Helper()
	b := h.byName[name]
	if b == nil || b.result == nil {
		h.t.Fatalf("gputest: buffer %q does not exist or has no result: Run was not called", name)
	}
	return b.result[guardBytes : guardBytes+int(b.data.Size())]
}

// Float32 returns the contents of a buffer after the last run.
func (h *Harness) Float32(name string) []float32 {
	h.t.Helper()
	return elements[float32](h.result(name))
}

// Int32 returns the contents of a buffer after the last run.
func (h *Harness) Int32(name string) []int32 { h.t.Helper(); return elements[int32](h.result(name)) }

// Uint32 returns the contents of a buffer after the last run.
func (h *Harness) Uint32(name string) []uint32 { h.t.Helper(); return elements[uint32](h.result(name)) }

// Uint16 returns the contents of a buffer after the last run.
func (h *Harness) Uint16(name string) []uint16 { h.t.Helper(); return elements[uint16](h.result(name)) }

// Uint8 returns the contents of a buffer after the last run.
func (h *Harness) Uint8(name string) []uint8 { h.t.Helper(); return elements[uint8](h.result(name)) }

// elements copies bytes to a slice of another type, which aligns them.
func elements[T float32 | int32 | uint32 | uint16 | uint8](data []byte) []T {
	out := make([]T, len(data)/len(vk.Bytes(make([]T, 1))))
	copy(vk.Bytes(out), data)
	return out
}
