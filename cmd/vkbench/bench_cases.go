package main

import (
	"context"
	"errors"

	"github.com/colt5-vulkan/colt5/colt5"
	"github.com/colt5-vulkan/colt5/pipelines"
	"github.com/colt5-vulkan/colt5/vk"
)

// benchCases are all cases: those of rooms under the stem of the room, then modules, then those that show how time grows. The small
// sizes keep a whole run on two cores well below two minutes.
func benchCases() []benchCase {
	return append(append(roomCases(), moduleCases()...), lengthCases()...)
}

// halves names the cases that have 16-bit variants: their setups read benchStage.precision.
func halves() []string {
	rooms := []string{"linear", "window_attention", "patch_attention", "routed_attention", blockLength, denseAttention}
	return append(rooms, caseNames(routedCases())...)
}

// setupCopy copies with a kernel: the copy commands of some drivers reach a fraction of what memory can do.
func setupCopy(s *benchStage, size []int) (*workload, error) {
	const c = 1024
	rows := size[0] / (4 * c)
	g, err := pipelines.NewGather(s.dev, pipelines.GatherConfig{C: c})
	g = keep(s.stage, g, err)
	a := pipelines.GatherArgs{X: s.normals(rows * c), Indices: s.choice(1, rows, rows), Y: s.floats(rows * c), B: 1, N: rows, K: rows}
	return s.room("copy", func(t *vk.CommandList) error { return g.Record(t, a) }, s.floatResult("y", a.Y))
}

// benchStage is a stage with memory for rooms.
type benchStage struct {
	*stage
	profile   bool            // time every step
	precision pipelines.DType // of a case that halves names
	scratch   uint64
	seeds     uint64 // that were taken
}

// seed is another one at each call: what a case multiplies must not be alike.
func (s *benchStage) seed() uint64 {
	s.seeds++
	return s.seeds
}

// memory is a buffer of so many bytes.
func (s *benchStage) memory(bytes uint64) vk.Range {
	b, err := s.dev.NewBuffer("bench", bytes)
	if b = keep(s.stage, b, err); b == nil {
		return vk.Range{}
	}
	return b.Range()
}

// floats is memory for so many numbers of 4 bytes.
func (s *benchStage) floats(count int) vk.Range { return s.memory(4 * uint64(count)) }

// temporary is the scratch memory of a room; absent if it needs none.
func (s *benchStage) temporary(bytes uint64) vk.Range {
	s.scratch += bytes
	if bytes == 0 {
		return vk.Range{}
	}
	return s.memory(bytes)
}

// normals is memory with normal numbers in it.
func (s *benchStage) normals(count int) vk.Range {
	return s.upload(4*uint64(count), func() []byte { return vk.Bytes(normals(s.seed(), count)) })
}

// matrix is memory with rows of normal numbers in a precision of 16 bits, each followed by zeros up to wide numbers.
func (s *benchStage) matrix(rows, columns, wide int) vk.Range {
	return s.upload(2*uint64(rows)*uint64(wide), func() []byte {
		list, to := make([]uint16, rows*wide), s.halves().to
		for i, x := range normals(s.seed(), rows*columns) {
			list[i/columns*wide+i%columns] = to(x)
		}
		return vk.Bytes(list)
	})
}

// operand is memory with normal numbers in the precision.
func (s *benchStage) operand(count int) vk.Range {
	if s.precision == pipelines.F32 {
		return s.normals(count)
	}
	return s.matrix(1, count, count)
}

// output is memory for a result in the precision.
func (s *benchStage) output(count int) vk.Range {
	return s.memory(uint64(count) * uint64(s.precision.Size()))
}

// upload is memory with data, which is made once there is memory for it: a size that the device has no room for must not exhaust the host's.
func (s *benchStage) upload(bytes uint64, data func() []byte) vk.Range {
	r := s.memory(bytes)
	if s.err == nil {
		s.fail(s.dev.Upload(context.TODO(), vk.Transfer{Range: r, Data: data()}))
	}
	return r
}

// choice is memory with the indices of k rows of n, spread evenly, for each of b items.
func (s *benchStage) choice(b, n, k int) vk.Range {
	return s.upload(4*uint64(b)*uint64(k), func() []byte {
		list := make([]int32, b*k)
		for i := range list {
			list[i] = int32(i % k * n / k)
		}
		return vk.Bytes(list)
	})
}

// room is the workload of a tape.
func (s *benchStage) room(name string, record func(*vk.CommandList) error, results ...result) (*workload, error) {
	if s.err != nil {
		return nil, s.err
	}
	list, err := s.dev.NewCommandList(vk.CommandListConfig{Name: name, Profile: s.profile})
	if list = keep(s.stage, list, err); list == nil {
		return nil, s.err
	}
	if err := record(list); err != nil {
		return nil, err
	}
	return &workload{run: func() error { return list.Run(context.TODO()) }, results: results, last: func() (colt5.CallStats, error) {
		stats := colt5.CallStats{Workspace: s.scratch, Steps: list.Kernels()}
		stats.Flops, stats.Bytes = list.Work()
		var err, stepErr error
		stats.Time, err = list.Elapsed()
		if s.profile {
			stats.StepTimes, stepErr = list.Steps()
		}
		return stats, errors.Join(err, stepErr)
	}}, nil
}

// timed is a module that tells what its calls cost.
type timed interface {
	LastCall() (colt5.CallStats, error)
	Profile(on bool)
}

// module is the workload of a module's call.
func (s *benchStage) module(m timed, run func() error, results ...result) *workload {
	m.Profile(s.profile)
	return &workload{run: run, last: m.LastCall, results: results}
}
