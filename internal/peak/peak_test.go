package peak

import (
	"fmt"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/internal/half"
	"github.com/colt5-vulkan/colt5/internal/pretend"
	"github.com/colt5-vulkan/colt5/internal/ref"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestMain(m *testing.M) { gputest.Main(m) }

// TestPeak runs every cooperative matrix of the device. The sums are integers, and exact.
func TestPeak(t *testing.T) {
	dev := gputest.Device(t)
	if len(dev.Caps().MatrixShapes) == 0 {
		t.Skip("the device has no cooperative matrices")
	}
	ran := 0
	for _, s := range dev.Caps().MatrixShapes {
		operand, sum, err := Types(s)
		if err != nil {
			t.Log(err)
			continue
		}
		ran++
		for i, groups := range []int{1, 3, 2} {
			t.Run(fmt.Sprintf("%s %s %dx%dx%d %d", operand, sum, s.M, s.N, s.K, groups), func(t *testing.T) {
				gpu := gputest.New(t)
				p, err := New(gpu.Dev, s)
				require.NoError(t, err)
				defer p.Close()
				name := fmt.Sprintf("peak_%s_%s", operand, sum)
				if i == 2 {
					if sum != "f32" {
						return
					}
					name = fmt.Sprintf("peak_lowreg_%s_%s", operand, sum)
					p.variants = []variant{{name, dev.Caps().SubgroupMin}}
				}
				f, first, second := p.Operands()
				_, size := p.Sizes(groups)
				a := Args{X: gpu.In("x", p.Encode(f, first, second)), Y: gpu.Out("y", int(size)), Groups: groups}
				gpu.Run(func(t *vk.CommandList) error { return p.Record(t, a) })
				got := p.Decode(gpu.Uint8("y"))
				want := ref.Peak(toFloat64(f), toFloat64(first), toFloat64(second), int(s.M), int(s.N), int(s.K), p.Pairs(), Chains)
				require.Len(t, got, groups*Subgroups*len(want))
				for i := 0; i < len(got); i += len(want) {
					require.Equal(t, want, got[i:i+len(want)], i)
				}
				assert.Equal(t, []string{fmt.Sprintf("%s %dx%dx%d", name, s.M, s.N, s.K)}, gpu.StepNames())
			})
		}
	}
	assert.Positive(t, ran)
}

// A smaller subgroup, and the kernel that needs fewer registers, are tried only where a device has several sizes. A
// device with one size compiles one kernel.
func TestVariants(t *testing.T) {
	f32, u32 := supported[0], supported[4]
	chips := pretend.Chips()
	assert.Equal(t, []variant{{"peak_f16_f32", 32}}, f32.variants(chips["h200"].Caps))
	assert.Equal(t, []variant{{"peak_f16_f32", 32}, {"peak_f16_f32", 8}, {"peak_lowreg_f16_f32", 8}}, f32.variants(chips["dg2"].Caps))
	assert.Equal(t, []variant{{"peak_u8_u32", 32}, {"peak_u8_u32", 16}}, u32.variants(chips["bmg"].Caps))
	assert.Equal(t, []variant{{"peak_f16_f32", 64}, {"peak_f16_f32", 32}, {"peak_lowreg_f16_f32", 32}}, f32.variants(chips["navi31"].Caps))
}

func toFloat64(x []float32) []float64 {
	y := make([]float64, len(x))
	for i, f := range x {
		y[i] = float64(f)
	}
	return y
}

// Operands are exact in their type, and sums are small enough to be exact in float16, also for matrices that the device
// lacks.
func TestOperands(t *testing.T) {
	for _, types := range supported {
		for _, k := range []int{8, 16, 32} {
			p := &Pipeline{shape: vk.MatrixShape{M: 16, N: 8, K: uint32(k)}, types: types}
			a, first, second := p.Operands()
			raw := p.Encode(a, first, second)
			x, y := p.Sizes(3)
			assert.EqualValues(t, len(raw), x)
			assert.EqualValues(t, 3*4*16*8*types.sumBytes, y)
			for i, f := range append(append(a, first...), second...) {
				back := float32(int8(raw[i*types.operandBytes]))
				if word := uint16(raw[i*types.operandBytes]); types.operandBytes == 2 {
					word |= uint16(raw[2*i+1]) << 8
					if back = half.FromF16(word); types.operand == "bf16" {
						back = half.FromBF16(word)
					}
				}
				require.Equal(t, f, back)
			}
			var worst float64 // of any partial sum, without its sign
			for i := range 16 * 8 {
				one, two := 0.0, 0.0
				for j := range k {
					one += float64(abs32(a[i/8*k+j] * first[j*8+i%8]))
					two += float64(a[i/8*k+j] * (first[j*8+i%8] + second[j*8+i%8]))
				}
				worst = max(worst, 2*one+float64(p.Pairs())*max(two, -two)+float64(k)+6)
			}
			if types.sum == "f16" {
				assert.Less(t, worst, 2048.0)
			} else {
				assert.Less(t, worst, float64(1<<24))
			}
			narrow := ref.Peak(a, first, second, 16, 8, k, p.Pairs(), Chains)
			assert.Equal(t, ref.Peak(toFloat64(a), toFloat64(first), toFloat64(second), 16, 8, k, p.Pairs(), Chains), toFloat64(narrow))
			differ := false
			for _, x := range narrow {
				differ = differ || x != narrow[0]
			}
			assert.True(t, differ)
		}
	}
	words := []uint16{half.ToF16(1.5), half.ToF16(-2)}
	assert.Equal(t, []float64{1.5, -2}, (&Pipeline{types: supported[1]}).Decode(vk.Bytes(words)))
	assert.Equal(t, []float64{1.5}, (&Pipeline{types: supported[0]}).Decode(vk.Bytes([]float32{1.5})))
	assert.Equal(t, []float64{-7}, (&Pipeline{types: supported[3]}).Decode(vk.Bytes([]int32{-7})))
	assert.Equal(t, []float64{1 << 31}, (&Pipeline{types: supported[4]}).Decode(vk.Bytes([]uint32{1 << 31})))
}

func abs32(x float32) float32 { return max(x, -x) }

func TestBadInput(t *testing.T) {
	good := vk.MatrixShape{M: 16, N: 16, K: 16, A: vk.ComponentF16, B: vk.ComponentF16, C: vk.ComponentF32, Result: vk.ComponentF32, Scope: vk.ScopeSubgroup}
	for _, test := range []struct {
		want   string
		change func(*vk.MatrixShape)
	}{
		{"scope 2, want 3", func(s *vk.MatrixShape) { s.Scope = 2 }},
		{"saturating sums", func(s *vk.MatrixShape) { s.Saturating = 1 }},
		{"no kernel for operands of types 0 and 3", func(s *vk.MatrixShape) { s.B = 3 }},
		{"sums of types 1 and 0", func(s *vk.MatrixShape) { s.Result = 0 }},
		{"no kernel for operands of types 2 and 2", func(s *vk.MatrixShape) { s.A, s.B = 2, 2 }},
		{"K 2000", func(s *vk.MatrixShape) { s.K = 2000 }},
		{"M is 12", func(s *vk.MatrixShape) { s.M = 12 }},
		{"N 0", func(s *vk.MatrixShape) { s.N = 0 }},
	} {
		s := good
		test.change(&s)
		_, _, err := Types(s)
		assert.ErrorContains(t, err, test.want)
		assert.ErrorIs(t, err, vk.ErrUnsupported)
		_, err = New(gputest.Device(t), s)
		assert.ErrorContains(t, err, test.want)
	}
	gpu := gputest.New(t)
	strange := good
	strange.M = 1024
	_, err := New(gpu.Dev, strange)
	assert.ErrorContains(t, err, "the device does not list the cooperative matrix")
	assert.ErrorIs(t, err, vk.ErrUnsupported)

	p := &Pipeline{dev: gpu.Dev, shape: good, types: supported[0]}
	fine := Args{X: gpu.In("x", make([]uint16, 768)), Y: gpu.Out("y", 4096), Groups: 1}
	for _, test := range []struct {
		want   string
		change func(*Args)
	}{
		{"Groups is 0, want 1", func(a *Args) { a.Groups = 0 }},
		{"x is missing, want [M*K + 2*K*N 768] f16, 1536 bytes", func(a *Args) { a.X = vk.Range{} }},
		{"y is missing, want [Groups*4 4, M 16, N 16] f32, 4096 bytes", func(a *Args) { a.Y = vk.Range{} }},
		{"y has 4096 bytes, want [Groups*4 8, M 16, N 16] f32, 8192 bytes", func(a *Args) { a.Groups = 2 }},
	} {
		a := fine
		test.change(&a)
		list, err := gpu.Dev.NewCommandList(vk.CommandListConfig{Name: "bad"})
		require.NoError(t, err)
		assert.ErrorContains(t, p.Record(list, a), "peak: "+test.want)
		require.NoError(t, list.Close())
	}
	require.NoError(t, p.Close())
	require.NoError(t, (*Pipeline)(nil).Close())
}
