package soak

import (
	"errors"
	"fmt"
	"math"
	"runtime"
	"runtime/debug"

	"github.com/colt5-vulkan/colt5/internal/cli/table"
	"github.com/colt5-vulkan/colt5/vk"
)

// quantity is something that must not grow from cycle to cycle.
type quantity struct {
	key, title, name string
	tolerance        float64 // growth over all cycles after the warm-up that is no failure
	count            bool    // a number of things, not bytes
}

const mib = 1 << 20

// Indices of quantities.
const (
	processBytes = iota // when the device is closed
	heapBytes
	deviceBytes // before the device is closed
	budgetBytes // when the device has been opened
	threads     // these when the device is closed
	goroutines
	files
	quantityCount
)

var quantities = [quantityCount]quantity{
	{"process_bytes", "process", "the memory of the process", 8 * mib, false},
	{"c_heap_bytes", "C heap", "the C heap", mib, false},
	{"device_bytes", "device", "the device memory that the library allocated", 0, false},
	{"budget_used_bytes", "budget used", "what the driver says that the process uses", mib, false},
	{"threads", "threads", "the number of threads", 0, true},
	{"goroutines", "goroutines", "the number of goroutines", 0, true},
	{"open_files", "files", "the number of open files", 0, true},
}

// cell is a value in a row.
func (q quantity) cell(v float64) any {
	switch {
	case math.IsNaN(v):
		return table.Absent{}
	case q.count:
		return int(v)
	}
	return table.Size(v)
}

// format is a value in a sentence.
func (q quantity) format(v float64) string {
	if q.count {
		return fmt.Sprintf("%.3g", v)
	}
	sign := ""
	if v < 0 {
		sign, v = "-", -v
	}
	return sign + table.Size(math.Round(v)).String()
}

// reading is the quantities in a cycle; NaN: not known on this system.
type reading [quantityCount]float64

// opened reads what is known when the device has been opened.
func (r *reading) opened(dev *vk.Device) {
	r[budgetBytes] = math.NaN()
	if budget, used := dev.MemoryBudget(); budget > 0 {
		r[budgetBytes] = float64(used)
	}
}

// finished reads what is known before the device is closed.
func (r *reading) finished(dev *vk.Device) { r[deviceBytes] = float64(dev.Stats().DeviceBytes) }

// closed reads what is known when the device is closed.
func (r *reading) closed() {
	debug.FreeOSMemory() // after a garbage collection
	vk.TrimCHeap()
	r[goroutines] = float64(runtime.NumGoroutine())
	r[processBytes], r[threads], r[files] = readProcess()
	r[heapBytes] = math.NaN()
	if n := vk.CHeapBytes(); n > 0 {
		r[heapBytes] = float64(n)
	}
}

const leastCycles = 16 // of which growth is examined

// growth says how each quantity grows, and returns an error for those that do.
//
// Caches of the driver and of the C library fill for many cycles, which the first half of the cycles leaves out. A thread that
// the Go runtime starts adds megabytes at once, which moves the slope little.
func (s *soak) growth(remark func(format string, args ...any)) error {
	if len(s.readings) < leastCycles {
		remark("Growth was not examined: that takes %d cycles.", leastCycles)
		return nil
	}
	warm := len(s.readings) / 2
	var failed error
	for i, q := range quantities {
		var y []float64
		for _, r := range s.readings[warm:] {
			y = append(y, r[i])
		}
		if math.IsNaN(y[0]) {
			remark("Unknown here: %s.", q.name)
			continue
		}
		t := theilSen(y)
		text := fmt.Sprintf("%s grew by %s per cycle (%s to %s) in the %d cycles from %d on", q.name, q.format(t.slope), q.format(t.low), q.format(t.high),
			len(y), warm+1)
		if grown := t.low * float64(len(y)-1); grown > q.tolerance {
			failed = errors.Join(failed, fmt.Errorf("%s: by %s or more, want at most %s", text, q.format(grown), q.format(q.tolerance)))
		}
		remark("%s.", text)
	}
	return failed
}
