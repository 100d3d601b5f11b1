package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/colt5-vulkan/colt5/internal/peak"
	"github.com/colt5-vulkan/colt5/internal/ref"
	"github.com/colt5-vulkan/colt5/pipelines"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/urfave/cli/v3"
)

const peakDescription = `The rows are those that bench calls roof: a large copy (GB/s count what is read and written), a large float32 matrix product by the kernel of the
modules, and, where the device has cooperative matrices, a row for each of their shapes and types: products of M x N x K that stay in
registers, in TFLOP/s (of whole numbers, TOP/s). The precision is that of the operands, the name says what sums are held in. The results
are compared with a computation on the processor first.`

// The roofs are cases too, which are not chosen but always run first.
const (
	copyRoof, matmulRoof = "roof copy", "roof matmul"
	matrixRoof           = "roof matrix to " // and the type of the sums
)

// peak measures roofs.
func (a *app) peak() *cli.Command {
	return &cli.Command{
		Name: "peak", Usage: "measure what the device can do at best: copies, float32 and cooperative matrix products", Description: peakDescription,
		Flags: []cli.Flag{deviceFlag(), outputFlag(), repsFlag(), warmupFlag()},
		Action: func(ctx context.Context, c *cli.Command) error {
			if err := errors.Join(noArgs(c), checkPace(c)); err != nil {
				return err
			}
			return a.withDevice(c, func(dev *vk.Device) error {
				b := newBenchmark(ctx, dev, newPace(dev.Caps().CPU, c.Int("reps"), c.Int("warmup")))
				todo, remarks := allRoofs(dev.Caps())
				return a.runBench(c, b, todo, remarks)
			})
		},
	}
}

// roofs are what this device can do at best, as far as cases in some precisions need it.
func roofs(caps vk.Caps, precisions []pipelines.DType) []sized {
	list, _ := allRoofs(caps)
	return slices.DeleteFunc(list, func(x sized) bool {
		return x.matrix.M > 0 && (x.name != matrixRoof+"f32" || !slices.Contains(precisions, x.precision))
	})
}

// allRoofs has a row for every cooperative matrix that package peak has a kernel for, and remarks on the others. A processor reaches its roof at
// small sizes too.
func allRoofs(caps vk.Caps) (list []sized, remarks []string) {
	bytes, side := 256<<20, 4096
	if caps.CPU {
		bytes, side = 64<<20, 512
	}
	list = []sized{
		{benchCase: benchCase{name: copyRoof, dims: []string{"bytes"}, setup: setupCopy}, size: []int{bytes}},
		{benchCase: benchCase{name: matmulRoof, dims: linearDims(), setup: setupLinear}, size: []int{side, side, side}},
	}
	var seen []vk.MatrixShape
	for _, m := range caps.MatrixShapes {
		if slices.Contains(seen, m) {
			continue
		}
		seen = append(seen, m)
		operand, sum, err := peak.Types(m)
		if err != nil {
			remarks = append(remarks, fmt.Sprintf("Left out: %s: %v.", shapeName(m), err))
			continue
		}
		x := sized{
			benchCase: benchCase{name: matrixRoof + sum, dims: []string{"M", "N", "K"}, setup: func(s *benchStage, _ []int) (*workload, error) { return setupPeak(s, m) }},
			size:      []int{int(m.M), int(m.N), int(m.K)}, matrix: m, operand: operand,
		}
		for _, p := range []pipelines.DType{pipelines.F16, pipelines.BF16} {
			if precisionName(p) == operand {
				x.precision = p
			}
		}
		list = append(list, x)
	}
	if len(list) == 2 {
		remarks = append(remarks, "There are no cooperative matrices to measure.")
	}
	return list, remarks
}

// setupPeak keeps a GPU busy for a millisecond or so, with many more workgroups than run at once.
func setupPeak(s *benchStage, m vk.MatrixShape) (*workload, error) {
	groups := 16384
	if s.dev.Caps().CPU {
		groups = 16
	}
	p, err := peak.New(s.dev, m)
	if p = keep(s.stage, p, err); p == nil {
		return nil, s.err
	}
	a, first, second := p.Operands()
	packed := p.Encode(a, first, second)
	x := s.upload(uint64(len(packed)), func() []byte { return packed })
	_, bytes := p.Sizes(groups)
	y := s.memory(bytes)
	want := ref.Peak(floats(a), floats(first), floats(second), int(m.M), int(m.N), int(m.K), p.Pairs(), peak.Chains)
	r := s.floatResult("y", y)
	r.flat = true
	r.read = func() ([]float32, []int32, error) {
		raw := make([]byte, y.Size())
		if err := s.dev.Download(context.TODO(), vk.Transfer{Range: y, Data: raw}); err != nil {
			return nil, nil, err
		}
		return nil, nil, exact(p.Decode(raw), want)
	}
	return s.room("peak", func(t *vk.CommandList) error { return p.Record(t, peak.Args{X: x, Y: y, Groups: groups}) }, r)
}

// exact wants a list to be a shorter one over and over.
func exact(got, want []float64) error {
	for i, x := range got {
		if w := want[i%len(want)]; x != w {
			return fmt.Errorf("element %d is %v, want %v", i, x, w)
		}
	}
	return nil
}
