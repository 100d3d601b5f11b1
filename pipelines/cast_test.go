package pipelines

import (
	"fmt"
	"math"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/internal/ref"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestCast(t *testing.T) {
	for _, p := range []DType{F16, BF16} {
		for _, s := range []struct{ rows, c int }{{1, 1}, {3, 7}, {5, 8}, {2, 9}, {3, 2047}, {2, 2048}, {1, 4105}, {70000, 2}} {
			if testing.Short() && s.rows == 70000 {
				continue // takes 2 s
			}
			t.Run(fmt.Sprintf("%v %+v", p, s), func(t *testing.T) {
				gpu := gputest.New(t)
				x := normal(3, s.rows*s.c)
				for i, v := range []float32{65504, 65519, 65520, -1e30, 0x1p-24, 0x1p-14, 1 + 0x1p-11, 1 + 0x3p-8} {
					if i < len(x) {
						x[i] = v
					}
				}
				c, err := NewCast(gpu.Dev, CastConfig{C: s.c, Precision: p})
				require.NoError(t, err)
				defer c.Close()
				a := CastArgs{X: gpu.In("x", x), Y: gpu.Out("y", 2*s.rows*p.Columns(s.c)), Rows: s.rows}
				gpu.Run(func(t *vk.CommandList) error { return c.Record(t, a) })
				want, got := ref.Cast(x, s.c, p.Columns(s.c), p == BF16), gpu.Uint16("y")
				if p == F16 { // devices may flush subnormal numbers to zero
					for i := range want {
						if want[i]&0x7c00 == 0 && got[i]&0x7fff == 0 {
							got[i] = want[i]
						}
					}
				}
				assert.Equal(t, want, got)
			})
		}
	}
}

func TestCastKeepsNaN(t *testing.T) {
	for _, p := range []DType{F16, BF16} {
		gpu := gputest.New(t)
		c, err := NewCast(gpu.Dev, CastConfig{C: 1, Precision: p})
		require.NoError(t, err)
		defer c.Close()
		a := CastArgs{X: gpu.In("x", []float32{math.Float32frombits(0x7fffffff)}), Y: gpu.Out("y", 16), Rows: 1}
		gpu.Run(func(t *vk.CommandList) error { return c.Record(t, a) })
		assert.True(t, math.IsNaN(float64(decode(p, gpu, "y")[0])))
	}
}

func TestCastBadInput(t *testing.T) {
	gpu := gputest.New(t)
	for _, bad := range []struct {
		c    CastConfig
		want string
	}{{CastConfig{C: 0, Precision: F16}, "C is 0"}, {CastConfig{C: 3}, "Precision is f32, want f16 or bf16"}, {CastConfig{C: 3, Precision: 9}, "want f32, f16 or bf16"}} {
		_, err := NewCast(gpu.Dev, bad.c)
		assert.ErrorContains(t, err, bad.want)
	}
	c, err := NewCast(gpu.Dev, CastConfig{C: 3, Precision: F16})
	require.NoError(t, err)
	defer c.Close()
	good := CastArgs{X: gpu.In("x", make([]float32, 6)), Y: gpu.Out("y", 32), Rows: 2}
	for _, test := range []struct {
		want   string
		change func(*CastArgs)
	}{
		{"Rows is 0, want 1", func(a *CastArgs) { a.Rows = 0 }},
		{"x has 32 bytes, want [Rows 2, C 3] f32, 24 bytes", func(a *CastArgs) { a.X = a.Y }},
		{"y is missing, want [Rows 2, Columns(C) 8] f16, 32 bytes", func(a *CastArgs) { a.Y = vk.Range{} }},
	} {
		a := good
		test.change(&a)
		assertRecordError(t, gpu, test.want, func(t *vk.CommandList) error { return c.Record(t, a) })
	}
}
