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

func TestCopyRows(t *testing.T) {
	for _, size := range []struct{ rows, width, xPitch, yPitch int }{
		{1, 1, 1, 1}, {1, 257, 257, 300}, {5, 3, 3, 7}, {5, 3, 7, 3}, {255, 1, 2, 3}, {256, 1, 1, 1}, {257, 33, 40, 33}, {7, 1000, 1001, 1003},
	} {
		t.Run(fmt.Sprintf("%+v", size), func(t *testing.T) {
			gpu := gputest.New(t)
			m, err := NewCopyRows(gpu.Dev, CopyRowsConfig{})
			require.NoError(t, err)
			defer m.Close()
			x := normal(1, int(CopyRowsBytes(size.rows, size.width, size.xPitch))/4)
			y := normal(2, int(CopyRowsBytes(size.rows, size.width, size.yPitch))/4)
			a := CopyRowsArgs{X: gpu.In("x", x), Y: gpu.InOut("y", y), Rows: size.rows, Width: size.width, XPitch: size.xPitch, YPitch: size.yPitch}
			gpu.Run(func(list *vk.CommandList) error { return m.Record(list, a) })
			ref.CopyRows(y, x, size.rows, size.width, size.xPitch, size.yPitch)
			assert.Equal(t, y, gpu.Float32("y"), "the words between the rows keep their values")
		})
	}
}

func TestCopyRowsBadInput(t *testing.T) {
	gpu := gputest.New(t)
	m, err := NewCopyRows(gpu.Dev, CopyRowsConfig{})
	require.NoError(t, err)
	defer m.Close()
	x, y := gpu.In("x", normal(1, 8)), gpu.Out("y", 24)
	good := CopyRowsArgs{X: x, Y: y, Rows: 2, Width: 3, XPitch: 5, YPitch: 3}
	assertRejected(t, gpu, good, m.Record, []badArgs[CopyRowsArgs]{
		{"Rows is 0, want 1", func(a *CopyRowsArgs) { a.Rows = 0 }},
		{"Width is -1, want 1", func(a *CopyRowsArgs) { a.Width = -1 }},
		{"Rows * Width is 4294967296, want at most 2147483647", func(a *CopyRowsArgs) { a.Rows, a.Width = 1<<16, 1<<16 }},
		{"XPitch is 2, want Width, 3, to 1073741823", func(a *CopyRowsArgs) { a.XPitch = 2 }},
		{"YPitch is 1073741824, want Width, 3, to 1073741823", func(a *CopyRowsArgs) { a.YPitch = 1 << 30 }},
		{"x is missing, want [Rows 2, Width 3] with a pitch of 5 words, 32 bytes", func(a *CopyRowsArgs) { a.X = vk.Range{} }},
		{"y has 20 bytes, want [Rows 2, Width 3] with a pitch of 3 words, 24 bytes", func(a *CopyRowsArgs) { a.Y = y.Slice(0, 20) }},
	})
}
