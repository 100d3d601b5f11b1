// Package cases defines everything that vkbench can time: each kernel, each module, sequences of growing length, and
// the device's peaks. A case sets up inputs and outputs on a device and returns a Workload, whose results are validated
// before it is timed.
package cases

import (
	"fmt"
	"slices"

	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/dims"
	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/results"
	"github.com/colt5-vulkan/colt5/pipelines"
	"github.com/colt5-vulkan/colt5/vk"
)

// Case is something to time: a kernel, under the kernel's name, or a module.
type Case struct {
	Name       string
	Dims       []string // names of the numbers of a size; see Meaning
	Sizes      [][]int  // default sizes on a GPU
	SmallSizes [][]int  // default sizes on a CPU driver
	Setup      func(b *Builder, size []int) (*Workload, error)
}

// SizedCase is a case at one size in one precision.
type SizedCase struct {
	Case
	Size      []int
	Precision pipelines.DType

	Matrix  vk.MatrixShape // of a peak of cooperative matrices
	operand string         // and its operand type
}

// PrecisionName is the precision column of the row: the type of the operands.
func (s SizedCase) PrecisionName() string {
	if s.operand != "" {
		return s.operand
	}
	return s.Precision.String()
}

// Title is name, shape and precision, separated by spaces. It is the results.Row.Key of the row.
func (s SizedCase) Title() string { return s.Name + " " + s.Shape() + " " + s.PrecisionName() }

// Shape formats the size.
func (s SizedCase) Shape() string { return dims.Format(s.Size) }

// All returns all cases: kernels, then backward kernels and losses, modules, sequences of growing length, and the backward
// passes of modules and a training step. The small
// sizes keep a complete run on two CPU cores well below two minutes.
func All() []Case {
	return slices.Concat(kernelCases(), backwardCases(), lossCases(), optimizerCases(), Modules(), Lengths(), ModulesBackward())
}

// Names returns the names of cases.
func Names(list []Case) []string {
	var names []string
	for _, c := range list {
		names = append(names, c.Name)
	}
	return names
}

// with16Bit returns the names of the cases that have 16-bit variants: their setups use Builder.Precision.
func with16Bit() []string {
	kernels := []string{"linear", "linear_backward", "window_attention", "patch_attention", "routed_attention",
		"window_attention_backward", "patch_attention_backward", "routed_attention_backward", results.BlockLength, results.DenseAttention,
		"local_mha", "plain_feedforward", "local_mha" + BackwardSuffix, "plain_feedforward" + BackwardSuffix}
	for _, c := range Routed() {
		kernels = append(kernels, c.Name, c.Name+BackwardSuffix)
	}
	return append(kernels, trainStep)
}

// Has16Bit reports whether the case has 16-bit variants.
func (c Case) Has16Bit() bool { return slices.Contains(with16Bit(), c.Name) }

// Changes reports whether each run changes what the next one reads, as a training step does.
func (c Case) Changes() bool { return c.Name == trainStep }

// checkSize rejects a dimension of 0 where it has no meaning, a k larger than the number of entries, and sizes whose
// elements cannot be counted in 64 bits.
func (c Case) checkSize(size []int) error {
	entries, product := -1, 1.0
	for i, d := range c.Dims {
		if !numbers[d].zero { // a number that may be 0 is no dimension of a tensor
			product *= float64(max(size[i], 1))
		}
		switch {
		case size[i] == 0 && !numbers[d].zero:
			return fmt.Errorf("%s is 0, want at least 1", d)
		case d == "entries", d == "tokens":
			entries = i
		case d == "k" && entries >= 0 && size[i] > size[entries]:
			return fmt.Errorf("k is %d of %d %s, want no more than these", size[i], size[entries], c.Dims[entries])
		}
	}
	if product > 1<<58 {
		return fmt.Errorf("the sizes multiply to more than 2^58")
	}
	return nil
}

// expand returns the case at its default sizes in each of the precisions.
func (c Case) expand(small bool, precisions []pipelines.DType) []SizedCase {
	sizes := c.Sizes
	if small {
		sizes = c.SmallSizes
	}
	var list []SizedCase
	for _, s := range sizes {
		for _, p := range precisions {
			list = append(list, SizedCase{Case: c, Size: s, Precision: p})
		}
	}
	return list
}
