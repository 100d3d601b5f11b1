package pipelines

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/internal/ref"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Rows of x and of y may have offsets beyond 4 GiB.
func TestLinearOffsetsAbove4GiB(t *testing.T) {
	dev := gputest.Device(t)
	if dev.Caps().CPU {
		t.Skip("a CPU driver uses the host's memory, and the test takes 14 GB")
	}
	const in, out, rows, far = 512, 256, 3, 4300000 // 8.8 and 4.4 GB
	budget, used := dev.MemoryBudget()
	if need := uint64(far*(in+out)*4) + 1<<30; budget < used+need {
		t.Skipf("the device has %d of %d bytes left, the test takes %d", budget-used, budget, need)
	}
	gputest.CountCase()
	c := linearCase{LinearConfig: LinearConfig{In: in, Out: out, Gather: true, Scatter: true, Residual: true}, batch: 1}
	c.inRows, c.rows, c.outRows = rows, rows, rows
	data := c.data()
	want := ref.Linear(data)
	at := []int32{5, far / 2, far - 1} // rows of x and of y
	l, err := NewLinear(dev, c.LinearConfig)
	require.NoError(t, err)
	defer l.Close()
	buffer := func(name string, size uint64) vk.Range {
		b, err := dev.NewBuffer(name, size)
		if limit := dev.Caps().MaxAllocation; errors.Is(err, vk.ErrOutOfMemory) && size > limit {
			t.Skipf("the driver refuses a buffer of %d bytes, its limit is %d: %v", size, limit, err)
		}
		require.NoError(t, err)
		t.Cleanup(func() { assert.NoError(t, b.Close()) })
		return b.Range()
	}
	x, y, w, index := buffer("x", far*in*4), buffer("y", far*out*4), buffer("w", in*out*4), buffer("index", rows*4)
	indices := make([]int32, rows)
	transfers := []vk.Transfer{{Range: w, Data: vk.Bytes(data.W)}}
	for slot := range rows {
		indices[slot] = at[slot]
		from, to := int(data.Gather[slot]), int(data.Scatter[slot])
		transfers = append(transfers,
			vk.Transfer{Range: x.Slice(uint64(at[slot])*in*4, in*4), Data: vk.Bytes(data.X[from*in:][:in])},
			vk.Transfer{Range: y.Slice(uint64(at[slot])*out*4, out*4), Data: vk.Bytes(data.Residual[to*out:][:out])})
	}
	transfers = append(transfers, vk.Transfer{Range: index, Data: vk.Bytes(indices)})
	require.NoError(t, dev.Upload(t.Context(), transfers...))
	list, err := dev.NewCommandList(vk.CommandListConfig{Name: "far"})
	require.NoError(t, err)
	defer list.Close()
	args := LinearArgs{X: x, W: w, Gather: index, Scatter: index, Residual: y, Y: y, Batch: 1, InRows: far, Rows: rows, OutRows: far}
	require.NoError(t, l.Record(list, args))
	require.NoError(t, list.Run(t.Context()))
	for slot := range rows {
		got, to := make([]float32, out), int(data.Scatter[slot])
		require.NoError(t, dev.Download(t.Context(), vk.Transfer{Range: y.Slice(uint64(at[slot])*out*4, out*4), Data: vk.Bytes(got)}))
		assert.NoError(t, ref.MaxErr(got, want[to*out:][:out]).Within(1e-5))
	}
}

// BenchmarkLinear times the products of the models' layers, with every tile.
func BenchmarkLinear(b *testing.B) {
	dev := gputest.Device(b)
	for _, c := range []LinearConfig{
		{In: 512, Out: 256, Norm: true, Bias: true, GELU: true}, {In: 256, Out: 512}, {In: 256, Out: 512, Bias: true}, {In: 512, Out: 256},
		{In: 512, Out: 512}, {In: 512, Out: 2048}, {In: 2048, Out: 512}, {In: 4096, Out: 4096},
	} {
		for _, rows := range []int{1024, 2048, 4096, 65536} {
			flops := 2 * float64(rows) * float64(c.In) * float64(c.Out)
			if dev.Caps().CPU && flops > 5e9 || flops > 3e11 {
				continue
			}
			for _, tile := range linearTiles {
				b.Run(fmt.Sprintf("%dx%dx%d/%s", rows, c.Out, c.In, tile.kernel), func(b *testing.B) {
					gpu := gputest.New(b)
					l, args := newLinear(b, gpu, c, tile.name()), LinearArgs{Batch: 1, Rows: rows}
					args.X, args.W = gpu.In("x", normal(1, rows*c.In)), gpu.In("w", normal(2, c.In*c.Out))
					args.Y = gpu.Out("y", rows*c.Out*4)
					if c.Bias {
						args.Bias = gpu.In("bias", normal(3, c.Out))
					}
					if c.Norm {
						args.Gamma = gpu.In("gamma", normal(4, c.In))
					}
					benchmarkLinear(b, gpu, l, args, flops)
				})
			}
		}
	}
}

// benchmarkLinear runs many products in one command list, so that clocks rise and the cost of the submit is negligible.
func benchmarkLinear(b *testing.B, gpu *gputest.Harness, l *Linear, args LinearArgs, flops float64) {
	list, err := gpu.Dev.NewCommandList(vk.CommandListConfig{Name: b.Name()})
	require.NoError(b, err)
	defer list.Close()
	repeat := 1
	if !gpu.Dev.Caps().CPU {
		repeat = max(1, int(4e11/flops))
	}
	for range repeat {
		require.NoError(b, l.Record(list, args))
	}
	for start := time.Now(); time.Since(start) < 300*time.Millisecond; {
		require.NoError(b, list.Run(b.Context()))
	}
	for b.Loop() {
		require.NoError(b, list.Run(b.Context()))
	}
	b.ReportMetric(flops*float64(repeat)*float64(b.N)/b.Elapsed().Seconds()/1e12, "TFLOP/s")
	b.ReportMetric(0, "ns/op")
}
