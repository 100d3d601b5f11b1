package pipelines

import (
	"fmt"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/internal/ref"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestAdd(t *testing.T) {
	for _, n := range []int{1, 2, 3, 4, 5, 1023, 1024, 1025, 4099, 70001} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			gpu := gputest.New(t)
			m, err := NewAdd(gpu.Dev, AddConfig{})
			require.NoError(t, err)
			defer m.Close()
			x, y := normal(1, n), normal(2, n)
			a := AddArgs{A: gpu.In("a", x), B: gpu.In("b", y), Y: gpu.Out("y", 4*n), N: n}
			gpu.Run(func(list *vk.CommandList) error { return m.Record(list, a) })
			assert.Equal(t, ref.Add32(x, y), gpu.Float32("y"), "one rounded sum has one right value")
			assert.NoError(t, ref.MaxErr(gpu.Float32("y"), ref.Add(x, y)).Within(1e-6))
		})
	}
}

// TestAddInPlace adds to the first and to the second operand.
func TestAddInPlace(t *testing.T) {
	for _, name := range []string{"a", "b"} {
		gpu := gputest.New(t)
		m, err := NewAdd(gpu.Dev, AddConfig{})
		require.NoError(t, err)
		defer m.Close()
		x, y := normal(1, 1027), normal(2, 1027)
		var a AddArgs
		if name == "a" {
			a.A, a.B = gpu.InOut("a", x), gpu.In("b", y)
			a.Y = a.A
		} else {
			a.A, a.B = gpu.In("a", x), gpu.InOut("b", y)
			a.Y = a.B
		}
		a.N = len(x)
		gpu.Run(func(list *vk.CommandList) error { return m.Record(list, a) })
		assert.Equal(t, ref.Add32(x, y), gpu.Float32(name))
	}
}

func TestAddBadInput(t *testing.T) {
	gpu := gputest.New(t)
	m, err := NewAdd(gpu.Dev, AddConfig{})
	require.NoError(t, err)
	defer m.Close()
	x, y := gpu.In("x", normal(1, 6)), gpu.Out("y", 24)
	good := AddArgs{A: x, B: x, Y: y, N: 6}
	assertRejected(t, gpu, good, m.Record, []badArgs[AddArgs]{
		{"N is 0, want 1 to 17179869184", func(a *AddArgs) { a.N = 0 }},
		{"N is 17179869185, want 1 to 17179869184", func(a *AddArgs) { a.N = 1<<34 + 1 }},
		{"a is missing, want [N 6] f32, 24 bytes", func(a *AddArgs) { a.A = vk.Range{} }},
		{"b has 20 bytes, want [N 6] f32, 24 bytes", func(a *AddArgs) { a.B = x.Slice(0, 20) }},
		{"y has 20 bytes, want [N 6] f32, 24 bytes", func(a *AddArgs) { a.Y = y.Slice(0, 20) }},
	})
}
