package cases

import (
	"context"
	"fmt"
	"slices"

	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/results"
	"github.com/colt5-vulkan/colt5/internal/cli/scope"
	"github.com/colt5-vulkan/colt5/internal/peak"
	"github.com/colt5-vulkan/colt5/internal/ref"
	"github.com/colt5-vulkan/colt5/pipelines"
	"github.com/colt5-vulkan/colt5/vk"
)

// Peaks returns the peaks that rows in the given precisions are compared with.
func Peaks(caps vk.Caps, precisions []pipelines.DType) []SizedCase {
	list, _ := AllPeaks(caps)
	return slices.DeleteFunc(list, func(x SizedCase) bool {
		return x.Matrix.M > 0 && (x.Name != results.MatrixPeak+"f32" || !slices.Contains(precisions, x.Precision))
	})
}

// AllPeaks returns a copy, a matrix product, and every cooperative matrix that package peak has a kernel for. The
// remarks name the others. On a CPU driver the sizes are smaller, which suffice there.
func AllPeaks(caps vk.Caps) (list []SizedCase, remarks []string) {
	bytes, side := 256<<20, 4096
	if caps.CPU {
		bytes, side = 64<<20, 512
	}
	list = []SizedCase{
		{Case: Case{Name: results.CopyPeak, Dims: []string{"bytes"}, Setup: setupCopy}, Size: []int{bytes}},
		{Case: Case{Name: results.MatmulPeak, Dims: linearDims(), Setup: setupLinear}, Size: []int{side, side, side}},
	}
	var seen []vk.MatrixShape
	for _, m := range caps.MatrixShapes {
		if slices.Contains(seen, m) {
			continue
		}
		seen = append(seen, m)
		operand, sum, err := peak.Types(m)
		if err != nil {
			remarks = append(remarks, fmt.Sprintf("Left out: %v: %v.", m, err))
			continue
		}
		x := SizedCase{
			Case: Case{Name: results.MatrixPeak + sum, Dims: []string{"M", "N", "K"}, Setup: func(b *Builder, _ []int) (*Workload, error) { return setupPeak(b, m) }},
			Size: []int{int(m.M), int(m.N), int(m.K)}, Matrix: m, operand: operand,
		}
		for _, p := range []pipelines.DType{pipelines.F16, pipelines.BF16} {
			if p.String() == operand {
				x.Precision = p
			}
		}
		list = append(list, x)
	}
	if len(list) == 2 {
		remarks = append(remarks, "There are no cooperative matrices to measure.")
	}
	return list, remarks
}

// setupPeak keeps a GPU busy for about a millisecond, with many more workgroups than run at once.
func setupPeak(b *Builder, m vk.MatrixShape) (*Workload, error) {
	groups := 16384
	if b.Dev.Caps().CPU {
		groups = 16
	}
	p, err := peak.New(b.Dev, m)
	if p = scope.Keep(b.Scope, p, err); p == nil {
		return nil, b.Err()
	}
	a, first, second := p.Operands()
	packed := p.Encode(a, first, second)
	x := b.upload(uint64(len(packed)), func() []byte { return packed })
	_, bytes := p.Sizes(groups)
	y := b.alloc(bytes)
	want := ref.Peak(float64s(a), float64s(first), float64s(second), int(m.M), int(m.N), int(m.K), p.Pairs(), peak.Chains)
	o := b.floatOutput("y", y)
	o.constant = true
	o.read = func(ctx context.Context) ([]float32, []int32, error) {
		raw := make([]byte, y.Size())
		if err := b.Dev.Download(ctx, vk.Transfer{Range: y, Data: raw}); err != nil {
			return nil, nil, err
		}
		return nil, nil, repeats(p.Decode(raw), want)
	}
	return b.kernel("peak", func(list *vk.CommandList) error {
		return p.Record(list, peak.Args{X: x, Y: y, Groups: groups})
	}, o)
}

// repeats requires got to be the list want, repeated.
func repeats(got, want []float64) error {
	for i, x := range got {
		if w := want[i%len(want)]; x != w {
			return fmt.Errorf("element %d is %v, want %v", i, x, w)
		}
	}
	return nil
}

func float64s(list []float32) []float64 {
	wide := make([]float64, len(list))
	for i, x := range list {
		wide[i] = float64(x)
	}
	return wide
}
