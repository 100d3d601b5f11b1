// Package gputest is the bench on which the tests of kernels stand: a shared device, buffers between guard bands, and a runner that
// runs every recording several times and checks what a kernel must not do.
//
//	lab := gputest.Open(t)
//	x, y := lab.In("x", data), lab.Out("y", 4*n)
//	lab.Run(func(t *vk.Tape) error { return room.Record(t, pipelines.RoomArgs{X: x, Y: y}) })
//	got := lab.Float32("y")
package gputest

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/colt5-vulkan/colt5/vk"
)

const (
	guardBytes = 256
	guardByte  = 0xa5
	outByte    = 0xff // four of them are a NaN
	runs       = 3
)

var (
	mu     sync.Mutex
	device *vk.Device
	failed error
	cases  atomic.Int64
)

// Main runs the tests of a package; call it from TestMain. Afterwards it closes the shared device, and fails if something was left
// open or the validation layer had something to say.
func Main(m *testing.M) {
	code := m.Run()
	if device != nil {
		if n, text := device.DrainMessages(); n > 0 {
			fmt.Fprintf(os.Stderr, "FAIL: %d validation messages outside of tests:\n%s\n", n, text)
			code = 1
		}
		if err := device.Close(); err != nil {
			fmt.Fprintln(os.Stderr, "FAIL:", err)
			code = 1
		}
	}
	if err := report(); err != nil {
		fmt.Fprintln(os.Stderr, "FAIL:", err)
		code = 1
	}
	os.Exit(code)
}

// report appends the number of cases that reached the device to the file that make test reads.
func report() error {
	file := os.Getenv("COLT5_GPU_CASES_FILE")
	if file == "" {
		return nil
	}
	f, err := os.OpenFile(file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	wd, err := os.Getwd()
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(f, "%s %d\n", wd, cases.Load()); err != nil {
		return err
	}
	return f.Close()
}

// Device is the device that the package's tests share. Without one the test is skipped, or fails if COLT5_REQUIRE_GPU is 1.
func Device(t testing.TB) *vk.Device {
	t.Helper()
	mu.Lock()
	defer mu.Unlock()
	if device == nil && failed == nil {
		device, failed = vk.Open(vk.Options{})
	}
	if failed != nil {
		if os.Getenv("COLT5_REQUIRE_GPU") == "1" {
			t.Fatalf("COLT5_REQUIRE_GPU is 1: %v", failed)
		}
		t.Skip(failed)
	}
	return device
}

// Count notes a case that ran on the device.
func CountCase() { cases.Add(1) }

// Lab is the bench of one test.
type Harness struct {
	Dev     *vk.Device
	t       testing.TB
	pieces  []*piece
	byName  map[string]*piece
	kernels []string
}

// piece is a buffer: guard, data, guard.
type piece struct {
	name     string
	buffer   *vk.Buffer
	initial  []byte // with the guards
	output   bool
	now      []byte
	contents vk.Range
}

// Open makes a bench; everything on it is closed when the test ends.
func New(t testing.TB) *Harness {
	t.Helper()
	l := &Harness{Dev: Device(t), t: t, byName: map[string]*piece{}}
	t.Cleanup(l.close)
	return l
}

func (l *Harness) close() {
	for _, p := range l.pieces {
		if err := p.buffer.Close(); err != nil {
			l.t.Error(err)
		}
	}
	if n, text := l.Dev.DrainMessages(); n > 0 {
		l.t.Errorf("%d validation messages:\n%s", n, text)
	}
}

func (l *Harness) add(name string, data []byte, output bool) vk.Range {
	l.t.Helper()
	if l.byName[name] != nil {
		l.t.Fatalf("gputest: two buffers are named %q", name)
	}
	size := (len(data) + 3) &^ 3
	b, err := l.Dev.NewBuffer(name, uint64(size+2*guardBytes))
	if err != nil {
		l.t.Fatal(err)
	}
	p := &piece{name: name, buffer: b, output: output, initial: bytes.Repeat([]byte{guardByte}, size+2*guardBytes)}
	copy(p.initial[guardBytes:], data)
	p.contents = b.Range().Slice(guardBytes, uint64(len(data)))
	l.pieces = append(l.pieces, p)
	l.byName[name] = p
	return p.contents
}

// In is an input: a slice of float32, int32, uint32 or uint8. It must not change.
func (l *Harness) In(name string, data any) vk.Range {
	l.t.Helper()
	return l.add(name, l.bytes(data), false)
}

// InOut is a buffer that the kernel changes; every run starts with data.
func (l *Harness) InOut(name string, data any) vk.Range {
	l.t.Helper()
	return l.add(name, l.bytes(data), true)
}

// Out is an output of size bytes; every run starts with NaNs.
func (l *Harness) Out(name string, size int) vk.Range {
	l.t.Helper()
	return l.add(name, bytes.Repeat([]byte{outByte}, size), true)
}

func (l *Harness) bytes(data any) []byte {
	l.t.Helper()
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
	l.t.Fatalf("gputest: no buffers of %T", data)
	return nil
}

// Run records once and runs three times. Outputs must come out bit for bit the same, inputs and everything around the buffers must
// stay as they were. A recording with a barrier before every step must give the same bits too.
func (l *Harness) Run(record func(*vk.CommandList) error) {
	l.t.Helper()
	CountCase()
	for _, everywhere := range []bool{false, true} {
		list, err := l.Dev.NewCommandList(vk.CommandListConfig{Name: l.t.Name(), BarrierEverywhere: everywhere})
		if err != nil {
			l.t.Fatal(err)
		}
		l.record(list, record, everywhere)
		if err := list.Close(); err != nil {
			l.t.Fatal(err)
		}
	}
}

func (l *Harness) record(list *vk.CommandList, record func(*vk.CommandList) error, again bool) {
	l.t.Helper()
	if err := record(list); err != nil {
		list.Close()
		l.t.Fatal(err)
	}
	l.kernels = list.Kernels()
	count := runs
	if again {
		count = 1
	}
	for run := range count {
		l.reset()
		if err := list.Run(context.TODO()); err != nil {
			list.Close()
			l.t.Fatal(err)
		}
		l.compare(run > 0 || again)
	}
}

// reset gives every buffer its initial contents.
func (l *Harness) reset() {
	l.t.Helper()
	var list []vk.Transfer
	for _, p := range l.pieces {
		list = append(list, vk.Transfer{Range: p.buffer.Range(), Data: p.initial})
	}
	if err := l.Dev.Upload(context.TODO(), list...); err != nil {
		l.t.Fatal(err)
	}
}

// compare downloads every buffer and checks it; with again, against the run before.
func (l *Harness) compare(again bool) {
	l.t.Helper()
	var list []vk.Transfer
	fresh := make([][]byte, len(l.pieces))
	for i, p := range l.pieces {
		fresh[i] = make([]byte, len(p.initial))
		list = append(list, vk.Transfer{Range: p.buffer.Range(), Data: fresh[i]})
	}
	if err := l.Dev.Download(context.TODO(), list...); err != nil {
		l.t.Fatal(err)
	}
	for i, p := range l.pieces {
		got, end := fresh[i], guardBytes+int(p.contents.Size())
		if !bytes.Equal(got[:guardBytes], p.initial[:guardBytes]) || !bytes.Equal(got[end:], p.initial[end:]) {
			l.t.Fatalf("%s: the kernel wrote outside of the buffer", p.name)
		}
		if !p.output && !bytes.Equal(got, p.initial) {
			l.t.Fatalf("%s: the kernel changed an input", p.name)
		}
		if again && !bytes.Equal(got, p.now) {
			l.t.Fatalf("%s: another run gave other bits", p.name)
		}
		p.now = got
	}
}

// Dispatches names the kernels that the last Run recorded.
func (l *Harness) Kernels() []string { return l.kernels }

func (l *Harness) contents(name string) []byte {
	l.t.Helper()
	p := l.byName[name]
	if p == nil || p.now == nil {
		l.t.Fatalf("gputest: there is no buffer %q, or nothing ran", name)
	}
	return p.now[guardBytes : guardBytes+int(p.contents.Size())]
}

// Float32 is what the last Run left in a buffer.
func (l *Harness) Float32(name string) []float32 {
	l.t.Helper()
	return numbers[float32](l.contents(name))
}

// Int32 is what the last Run left in a buffer.
func (l *Harness) Int32(name string) []int32 { l.t.Helper(); return numbers[int32](l.contents(name)) }

// Uint32 is what the last Run left in a buffer.
func (l *Harness) Uint32(name string) []uint32 {
	l.t.Helper()
	return numbers[uint32](l.contents(name))
}

// Uint16 is what the last Run left in a buffer.
func (l *Harness) Uint16(name string) []uint16 {
	l.t.Helper()
	return numbers[uint16](l.contents(name))
}

// Uint8 is what the last Run left in a buffer.
func (l *Harness) Uint8(name string) []uint8 { l.t.Helper(); return numbers[uint8](l.contents(name)) }

func numbers[T float32 | int32 | uint32 | uint16 | uint8](data []byte) []T {
	out := make([]T, len(data)/len(vk.Bytes(make([]T, 1))))
	copy(vk.Bytes(out), data)
	return out
}
