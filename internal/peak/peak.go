// Package peak measures the arithmetic peak of a device: it multiplies cooperative matrices that stay in registers.
// Benchmarks compare other kernels with it; no layer uses it.
//
// Shader: shaders/src/peak.comp. CPU reference: internal/ref.Peak.
package peak

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"unsafe"

	"github.com/colt5-vulkan/colt5/internal/half"
	"github.com/colt5-vulkan/colt5/shaders"
	"github.com/colt5-vulkan/colt5/vk"
)

// Pipeline is the peak kernel of one cooperative matrix.
//
//	x in: a [M, K], first [K, N], second [K, N]    y [Groups * Subgroups, M, N] out, in the type of the sums
//	c_i = i + Pairs * (a first + a second), i = 0 .. Chains - 1    y = c_0 - c_1 + c_2 - ... + c_(Chains - 1)
//
// With the integers of Operands every sum is exact, in every type and order.
type Pipeline struct {
	dev      *vk.Device
	shape    vk.MatrixShape
	types    types
	variants []variant

	mu     sync.Mutex
	kernel *vk.Kernel
	closed bool
}

// Args is one dispatch.
type Args struct {
	X, Y   vk.Range
	Groups int // workgroups
}

const (
	Subgroups = 4    // subgroups of a workgroup
	Chains    = 7    // independent sums of a subgroup
	terms     = 1024 // upper bound of Pairs * K
)

// types is a supported combination of operand and sum types.
type types struct {
	operand, sum           string
	operandType, sumType   uint32 // VkComponentTypeKHR
	operandBytes, sumBytes int
	encode                 func(float32) uint16 // converts to an operand, in the low operandBytes bytes
	signed                 bool
}

// supported are the combinations that have a shader variant.
var supported = []types{
	{"f16", "f32", vk.ComponentF16, vk.ComponentF32, 2, 4, half.ToF16, true},
	{"f16", "f16", vk.ComponentF16, vk.ComponentF16, 2, 2, half.ToF16, true},
	{"bf16", "f32", vk.ComponentBF16, vk.ComponentF32, 2, 4, half.ToBF16, true},
	{"s8", "s32", vk.ComponentS8, vk.ComponentS32, 1, 4, toByte, true},
	{"u8", "u32", vk.ComponentU8, vk.ComponentU32, 1, 4, toByte, false},
}

func toByte(f float32) uint16 { return uint16(int16(f)) & 0xff }

type push struct{ groups uint32 }

var _ = [1]struct{}{}[unsafe.Sizeof(push{})-4] // as in the shader

// Types returns the names of the operand type and the sum type of a cooperative matrix: f16, bf16, s8 or u8, and f32,
// f16, s32 or u32. The error, a vk.ErrUnsupported, says why there is no kernel for the matrix.
func Types(s vk.MatrixShape) (operand, sum string, err error) {
	t, err := typesOf(s)
	return t.operand, t.sum, err
}

func typesOf(s vk.MatrixShape) (types, error) {
	for _, t := range supported {
		if s.A == t.operandType && s.B == t.operandType && s.C == t.sumType && s.Result == t.sumType {
			switch {
			case s.Scope != vk.ScopeSubgroup:
				return types{}, fmt.Errorf("peak: %w: the matrix has scope %d, want %d, a subgroup", vk.ErrUnsupported, s.Scope, vk.ScopeSubgroup)
			case s.Saturating != 0:
				return types{}, fmt.Errorf("peak: %w: the matrix has saturating sums", vk.ErrUnsupported)
			case s.M%8 != 0 || s.N%8 != 0 || s.K%8 != 0 || s.M*s.N*s.K == 0 || s.K > terms:
				return types{}, fmt.Errorf("peak: %w: M is %d, N %d and K %d, want multiples of 8", vk.ErrUnsupported, s.M, s.N, s.K)
			}
			return t, nil
		}
	}
	return types{}, fmt.Errorf("peak: %w: there is no kernel for operands of types %d and %d and sums of types %d and %d",
		vk.ErrUnsupported, s.A, s.B, s.C, s.Result)
}

// New makes a pipeline for a device and one of the matrices that it lists in Caps.MatrixShapes. The kernel is compiled
// on first use.
func New(dev *vk.Device, s vk.MatrixShape) (*Pipeline, error) {
	t, err := typesOf(s)
	if err == nil && !slices.Contains(dev.Caps().MatrixShapes, s) {
		err = fmt.Errorf("peak: %w: the device does not list the cooperative matrix %+v", vk.ErrUnsupported, s)
	}
	if err != nil {
		return nil, err
	}
	return &Pipeline{dev: dev, shape: s, types: t, variants: t.variants(dev.Caps())}, nil
}

// Pairs returns how many pairs of products each chain adds: Pairs * K is 1,024, or slightly less.
func (p *Pipeline) Pairs() int { return terms / int(p.shape.K) }

// Operands returns the three matrices of x, always with the same values: first and second nearly cancel, so that sums
// stay small.
func (p *Pipeline) Operands() (a, first, second []float32) {
	s, state := p.shape, uint32(1)
	random := func(n uint32) float32 { // an integer in [0, n)
		state = state*1664525 + 1013904223
		return float32((state >> 16) % n)
	}
	for range s.M * s.K {
		x := random(2)
		if p.types.signed {
			x = 2*x - 1
		}
		a = append(a, x)
	}
	for range s.K * s.N {
		x, y := random(16), random(2)
		if p.types.signed {
			y = 2*y - 1 - x
		}
		first, second = append(first, x), append(second, y)
	}
	return a, first, second
}

// Encode returns the bytes of x for the three matrices.
func (p *Pipeline) Encode(a, first, second []float32) []byte {
	var x []byte
	for _, f := range slices.Concat(a, first, second) {
		word := p.types.encode(f)
		x = append(x, byte(word), byte(word>>8))[:len(x)+p.types.operandBytes]
	}
	return x
}

// Decode returns the elements of y.
func (p *Pipeline) Decode(y []byte) []float64 {
	list := make([]float64, len(y)/p.types.sumBytes)
	for i := range list {
		raw := y[i*p.types.sumBytes:]
		switch p.types.sumType {
		case vk.ComponentF16:
			list[i] = float64(half.FromF16(binary.LittleEndian.Uint16(raw)))
		case vk.ComponentF32:
			list[i] = float64(math.Float32frombits(binary.LittleEndian.Uint32(raw)))
		case vk.ComponentS32:
			list[i] = float64(int32(binary.LittleEndian.Uint32(raw)))
		case vk.ComponentU32:
			list[i] = float64(binary.LittleEndian.Uint32(raw))
		}
	}
	return list
}

// Sizes returns the sizes of x and y in bytes.
func (p *Pipeline) Sizes(groups int) (x, y uint64) {
	m, n, k := uint64(p.shape.M), uint64(p.shape.N), uint64(p.shape.K)
	return (m*k + 2*k*n) * uint64(p.types.operandBytes), uint64(groups) * Subgroups * m * n * uint64(p.types.sumBytes)
}

// Record adds a dispatch to a command list. A workgroup computes about 30 MFLOP with matrices of 16 x 16 x 16.
func (p *Pipeline) Record(list *vk.CommandList, a Args) error {
	if a.Groups < 1 || a.Groups > math.MaxInt32 {
		return fmt.Errorf("peak: Groups is %d, want 1 to %d", a.Groups, math.MaxInt32)
	}
	s := p.shape
	x, y := p.Sizes(a.Groups)
	if err := errors.Join(
		check("x", a.X, x, fmt.Sprintf("[M*K + 2*K*N %d] %s", x/uint64(p.types.operandBytes), p.types.operand)),
		check("y", a.Y, y, fmt.Sprintf("[Groups*%d %d, M %d, N %d] %s", Subgroups, Subgroups*a.Groups, s.M, s.N, p.types.sum)),
	); err != nil {
		return err
	}
	groups, err := vk.Grid(p.dev.Caps(), uint64(a.Groups))
	if err != nil {
		return fmt.Errorf("peak: %w", err)
	}
	kernel, err := p.Kernel()
	if err != nil {
		return fmt.Errorf("peak: %w", err)
	}
	products := float64(a.Groups) * Subgroups * Chains * 2 * float64(p.Pairs())
	return list.Dispatch(vk.Dispatch{
		Kernel: kernel,
		Groups: groups,
		Args:   []vk.Access{vk.Read(a.X), vk.Write(a.Y)},
		Push:   vk.Scalars(&push{uint32(a.Groups)}),
		Flops:  products * 2 * float64(s.M) * float64(s.N) * float64(s.K),
		Bytes:  float64(a.X.Size() + a.Y.Size()),
	})
}

// check wants a range of so many bytes at a multiple of 16.
func check(arg string, r vk.Range, bytes uint64, shape string) error {
	switch {
	case r.IsZero():
		return fmt.Errorf("peak: %s is missing, want %s, %d bytes", arg, shape, bytes)
	case r.Size() != bytes:
		return fmt.Errorf("peak: %s has %d bytes, want %s, %d bytes", arg, r.Size(), shape, bytes)
	case r.Offset()%16 != 0:
		return fmt.Errorf("peak: %s starts at byte %d of its buffer, want a multiple of 16", arg, r.Offset())
	}
	return nil
}

// Kernel returns the compiled kernel.
func (p *Pipeline) Kernel() (*vk.Kernel, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, vk.ErrClosed
	}
	if p.kernel != nil {
		return p.kernel, nil
	}
	for i, v := range p.variants {
		kernel, err := p.compile(v, len(p.variants) > 1)
		if err != nil {
			return nil, err
		}
		if i == len(p.variants)-1 || !spills(kernel) {
			p.kernel = kernel
			break
		}
		if err := kernel.Close(); err != nil {
			return nil, err
		}
	}
	return p.kernel, nil
}

// variant is a way to compile the kernel.
type variant struct {
	name     string // of the SPIR-V
	subgroup uint32
}

// variants are the ways to compile the kernel, in order of preference. The first one that does not spill registers is
// used: the sums must stay in registers. Where a subgroup has as many registers in each size, as on Intel, a smaller
// size takes fewer of them for addresses.
func (t types) variants(caps vk.Caps) []variant {
	name := "peak_" + t.operand + "_" + t.sum
	list := []variant{{name, caps.SubgroupSize}}
	if caps.SubgroupSizeControl && caps.SubgroupMin < caps.SubgroupSize {
		list = append(list, variant{name, caps.SubgroupMin})
		if t.sumType == vk.ComponentF32 {
			list = append(list, variant{"peak_lowreg_" + t.operand + "_" + t.sum, caps.SubgroupMin})
		}
	}
	return list
}

// compile compiles a variant.
func (p *Pipeline) compile(v variant, statistics bool) (*vk.Kernel, error) {
	code, err := shaders.SPV(v.name)
	if err != nil {
		return nil, err
	}
	s := p.shape
	return p.dev.NewKernel(vk.KernelConfig{
		Name: fmt.Sprintf("%s %dx%dx%d", v.name, s.M, s.N, s.K), Code: code,
		Spec: map[uint32]uint32{
			shaders.PeakMatrixM: s.M, shaders.PeakMatrixN: s.N, shaders.PeakMatrixK: s.K,
			shaders.PeakSubgroupSize: v.subgroup, shaders.PeakThreads: Subgroups * v.subgroup,
		},
		SubgroupSize: v.subgroup, FullSubgroups: true, Statistics: statistics,
	})
}

// spills reports whether the driver's compiler reports that a kernel spills registers.
func spills(k *vk.Kernel) bool {
	stats, err := k.CompilerStats()
	return err == nil && slices.ContainsFunc(stats, func(s vk.CompilerStat) bool {
		return s.Value > 0 && strings.Contains(strings.ToLower(s.Name), "spill")
	})
}

// Close frees the kernel. It fails while an open command list uses it, and may be called again then.
func (p *Pipeline) Close() error {
	if p == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	if p.kernel == nil {
		return nil
	}
	if err := p.kernel.Close(); err != nil {
		return err
	}
	p.kernel = nil
	return nil
}
