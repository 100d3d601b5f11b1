package pipelines

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"unsafe"

	"github.com/colt5-vulkan/colt5/internal/half"
	"github.com/colt5-vulkan/colt5/vk"
)

// Peak multiplies cooperative matrices that stay in registers: the arithmetic that a device reaches at best. It is what results of
// other kernels are compared with, and no part of a module.
//
//	x in: a [M, K], first [K, N], second [K, N]    y [Groups * PeakSubgroups, M, N] out, in the type of the sums
//	c_i = i + Pairs * (a first + a second), i = 0 .. PeakChains - 1    y = c_0 - c_1 + c_2 - ... + c_(PeakChains - 1)
//
// With the whole numbers of Numbers every sum is exact, in every type and order. Pairs is such that its product with K is 1,024, or little
// less.
//
// Shader: shaders/peak.comp. Reference: internal/ref.Peak.
type Peak struct {
	config  PeakConfig
	kind    peakKind
	kernels kernelCache
}

// PeakConfig is baked into the kernel.
type PeakConfig struct {
	Shape vk.MatrixShape // one that the device lists and PeakTypes knows
}

// PeakArgs is one dispatch.
type PeakArgs struct {
	X, Y   vk.Range
	Groups int // workgroups
}

// PeakSubgroups is how many subgroups a workgroup has, PeakChains how many sums a subgroup.
const (
	PeakSubgroups = 4
	PeakChains    = 7
	peakTerms     = 1024 // of a chain: pairs times K
)

// peakKind is a combination of types.
type peakKind struct {
	operand, sum    string
	a, result       uint32 // VkComponentTypeKHR
	bytes, sumBytes int
	convert         func(float32) uint16 // to an operand, of which bytes count
	negative        bool
}

// peakKinds are those that there are kernels for.
var peakKinds = []peakKind{
	{"f16", "f32", componentF16, componentF32, 2, 4, half.ToF16, true},
	{"f16", "f16", componentF16, componentF16, 2, 2, half.ToF16, true},
	{"bf16", "f32", componentBF16, componentF32, 2, 4, half.ToBF16, true},
	{"s8", "s32", componentS8, componentS32, 1, 4, wholeByte, true},
	{"u8", "u32", componentU8, componentU32, 1, 4, wholeByte, false},
}

func wholeByte(f float32) uint16 { return uint16(int16(f)) & 0xff }

type peakPush struct{ groups uint32 }

const (
	_ = uint(4 - unsafe.Sizeof(peakPush{}))
	_ = uint(unsafe.Sizeof(peakPush{}) - 4)
)

// PeakTypes names the types of the operands and of the sums of a cooperative matrix product: f16, bf16, s8 or u8, and f32, f16, s32 or u32.
// An error, an ErrUnsupported, says why there is no kernel for it.
func PeakTypes(s vk.MatrixShape) (operand, sum string, err error) {
	k, err := peakKindOf(s)
	return k.operand, k.sum, err
}

func peakKindOf(s vk.MatrixShape) (peakKind, error) {
	for _, k := range peakKinds {
		if s.A == k.a && s.B == k.a && s.C == k.result && s.Result == k.result {
			switch {
			case s.Scope != scopeSubgroup:
				return peakKind{}, fmt.Errorf("pipelines: Peak: %w: its scope is %d, want %d, a subgroup", vk.ErrUnsupported, s.Scope, scopeSubgroup)
			case s.Saturating != 0:
				return peakKind{}, fmt.Errorf("pipelines: Peak: %w: its sums saturate", vk.ErrUnsupported)
			case s.M%8 != 0 || s.N%8 != 0 || s.K%8 != 0 || s.M*s.N*s.K == 0 || s.K > peakTerms:
				return peakKind{}, fmt.Errorf("pipelines: Peak: %w: M is %d, N %d and K %d, want multiples of 8", vk.ErrUnsupported, s.M, s.N, s.K)
			}
			return k, nil
		}
	}
	return peakKind{}, fmt.Errorf("pipelines: Peak: %w: there is no kernel for operands of types %d and %d and sums of types %d and %d",
		vk.ErrUnsupported, s.A, s.B, s.C, s.Result)
}

// NewPeak makes a kernel for a device. It is compiled when it is first recorded.
func NewPeak(dev *vk.Device, c PeakConfig) (*Peak, error) {
	k, err := peakKindOf(c.Shape)
	if err == nil && !slices.Contains(dev.Caps().MatrixShapes, c.Shape) {
		err = fmt.Errorf("pipelines: Peak: %w: the device does not list the cooperative matrix %+v", vk.ErrUnsupported, c.Shape)
	}
	if err != nil {
		return nil, err
	}
	return &Peak{config: c, kind: k, kernels: kernelCache{dev: dev}}, nil
}

// Pairs is how many pairs of products a chain adds.
func (p *Peak) Pairs() int { return peakTerms / int(p.config.Shape.K) }

// Numbers are numbers for x, always the same: first and second nearly cancel.
func (p *Peak) Numbers() (a, first, second []float32) {
	s, state := p.config.Shape, uint32(1)
	below := func(n uint32) float32 {
		state = state*1664525 + 1013904223
		return float32((state >> 16) % n)
	}
	for range s.M * s.K {
		x := below(2)
		if p.kind.negative {
			x = 2*x - 1
		}
		a = append(a, x)
	}
	for range s.K * s.N {
		x, y := below(16), below(2)
		if p.kind.negative {
			y = 2*y - 1 - x
		}
		first, second = append(first, x), append(second, y)
	}
	return a, first, second
}

// Pack makes x of numbers.
func (p *Peak) Pack(a, first, second []float32) []byte {
	var x []byte
	for _, f := range slices.Concat(a, first, second) {
		w := p.kind.convert(f)
		x = append(x, byte(w), byte(w>>8))[:len(x)+p.kind.bytes]
	}
	return x
}

// Floats reads what y holds.
func (p *Peak) Floats(y []byte) []float64 {
	list := make([]float64, len(y)/p.kind.sumBytes)
	for i := range list {
		at := y[i*p.kind.sumBytes:]
		switch p.kind.result {
		case componentF16:
			list[i] = float64(half.FromF16(binary.LittleEndian.Uint16(at)))
		case componentF32:
			list[i] = float64(math.Float32frombits(binary.LittleEndian.Uint32(at)))
		case componentS32:
			list[i] = float64(int32(binary.LittleEndian.Uint32(at)))
		case componentU32:
			list[i] = float64(binary.LittleEndian.Uint32(at))
		}
	}
	return list
}

// Sizes are the bytes of x and of y.
func (p *Peak) Sizes(groups int) (x, y uint64) {
	m, n, k := uint64(p.config.Shape.M), uint64(p.config.Shape.N), uint64(p.config.Shape.K)
	return (m*k + 2*k*n) * uint64(p.kind.bytes), uint64(groups) * PeakSubgroups * m * n * uint64(p.kind.sumBytes)
}

// Record adds a dispatch to a tape. A workgroup computes some 30 MFLOP with matrices of 16 x 16 x 16.
func (p *Peak) Record(t *vk.CommandList, a PeakArgs) error {
	const op = "Peak"
	if err := checkPositive(op, dim{"Groups", a.Groups}); err != nil {
		return err
	}
	s := p.config.Shape
	m, n := dim{"M", int(s.M)}, dim{"N", int(s.N)}
	x, y := p.Sizes(a.Groups)
	for _, err := range []error{
		checkRange(op, "x", a.X, vec4Align, x, shape(dim{"M*K + 2*K*N", int(x) / p.kind.bytes})+" "+p.kind.operand),
		checkRange(op, "y", a.Y, vec4Align, y, shape(dim{"Groups*4", PeakSubgroups * a.Groups}, m, n)+" "+p.kind.sum),
	} {
		if err != nil {
			return err
		}
	}
	groups, err := vk.Grid(t.Device().Caps(), uint64(a.Groups))
	if err != nil {
		return fmt.Errorf("pipelines: Peak: %w", err)
	}
	kernel, err := p.kernel()
	if err != nil {
		return fmt.Errorf("pipelines: Peak: %w", err)
	}
	products := float64(a.Groups) * PeakSubgroups * PeakChains * 2 * float64(p.Pairs())
	return t.Dispatch(vk.Dispatch{
		Kernel: kernel,
		Groups: groups,
		Args:   []vk.Access{vk.Read(a.X), vk.Write(a.Y)},
		Push:   vk.Scalars(&peakPush{uint32(a.Groups)}),
		Flops:  products * 2 * float64(s.M) * float64(s.N) * float64(s.K),
		Bytes:  float64(a.X.Size() + a.Y.Size()),
	})
}

func (p *Peak) kernel() (*vk.Kernel, error) {
	s, lanes, variant := p.config.Shape, p.kernels.dev.Caps().SubgroupSize, "peak_"+p.kind.operand+"_"+p.kind.sum
	name := fmt.Sprintf("%s %dx%dx%d", variant, s.M, s.N, s.K)
	return p.kernels.with(name, variant, map[uint32]uint32{0: s.M, 1: s.N, 2: s.K, 3: lanes, 4: PeakSubgroups * lanes},
		vk.KernelConfig{SubgroupSize: lanes, FullSubgroups: true})
}

// Close frees the kernel.
func (p *Peak) Close() error {
	if p == nil {
		return nil
	}
	return p.kernels.close()
}
