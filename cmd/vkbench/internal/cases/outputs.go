package cases

import (
	"context"

	"github.com/colt5-vulkan/colt5/internal/half"
	"github.com/colt5-vulkan/colt5/internal/ref"
	"github.com/colt5-vulkan/colt5/pipelines"
	"github.com/colt5-vulkan/colt5/vk"
)

// floatOutput is a float32 output of a kernel.
func (b *Builder) floatOutput(name string, r vk.Range) Output {
	count := int(r.Size() / 4)
	return Output{
		name: name,
		poison: func(ctx context.Context) error {
			return b.Dev.Upload(ctx, vk.Transfer{Range: r, Data: vk.Bytes(nanFill[float32](count))})
		},
		read: func(ctx context.Context) ([]float32, []int32, error) {
			data := make([]float32, count)
			return data, nil, b.Dev.Download(ctx, vk.Transfer{Range: r, Data: vk.Bytes(data)})
		},
	}
}

// precisionOutput is an output of a kernel in the precision.
func (b *Builder) precisionOutput(name string, r vk.Range) Output {
	o := b.floatOutput(name, r)
	o.read = func(ctx context.Context) ([]float32, []int32, error) {
		data, err := b.readFloats(ctx, r)
		return data, nil, err
	}
	return o
}

// indexOutput is an output of a kernel with indices below limit, unique in each row of rowLength.
func (b *Builder) indexOutput(name string, r vk.Range, rowLength, limit int) Output {
	o := b.floatOutput(name, r)
	o.rowLength, o.limit = rowLength, limit
	o.read = func(ctx context.Context) ([]float32, []int32, error) {
		data := make([]int32, r.Size()/4)
		return nil, data, b.Dev.Download(ctx, vk.Transfer{Range: r, Data: vk.Bytes(data)})
	}
	return o
}

// productOutput is the output of a matrix product. 8 rows, evenly spaced from the first to the last, are compared with
// the CPU reference: the fast tiles are used at sizes that are too slow for a test of all rows.
func (b *Builder) productOutput(a pipelines.LinearArgs, in, out int) Output {
	const count = 8
	y := b.precisionOutput("y", a.Y)
	y.check = func(ctx context.Context, all []float32) error {
		padded, err := b.readFloats(ctx, a.W)
		if err != nil {
			return err
		}
		w, stride := make([]float32, 0, in*out), len(padded)/out // 16-bit rows may end with zeros
		for row := range out {
			w = append(w, padded[row*stride:][:in]...)
		}
		var x, got []float32
		bytes := uint64(in * b.Precision.Size())
		for n := range count {
			row := n * (a.Rows - 1) / (count - 1)
			one, err := b.readFloats(ctx, a.X.Slice(uint64(row)*bytes, bytes))
			if err != nil {
				return err
			}
			x, got = append(x, one...), append(got, all[row*out:][:out]...)
		}
		args := ref.LinearArgs{X: x, W: w, Rows: count, In: in, Out: out}
		want, naive := ref.Linear(args), ref.Linear32(args)
		for i, v := range naive {
			naive[i] = round(b.Precision, v)
		}
		return ref.MaxErr(got, want).Within(ref.Bound(naive, want, 1e-6))
	}
	return y
}

// readFloats reads values in the precision.
func (b *Builder) readFloats(ctx context.Context, r vk.Range) ([]float32, error) {
	if b.Precision == pipelines.F32 {
		data := make([]float32, r.Size()/4)
		return data, b.Dev.Download(ctx, vk.Transfer{Range: r, Data: vk.Bytes(data)})
	}
	raw := make([]uint16, r.Size()/2)
	err := b.Dev.Download(ctx, vk.Transfer{Range: r, Data: vk.Bytes(raw)})
	data := make([]float32, len(raw))
	for i, bits := range raw {
		data[i] = from16(b.Precision, bits)
	}
	return data, err
}

// to16 rounds to F16 or BF16.
func to16(p pipelines.DType, v float32) uint16 {
	if p == pipelines.F16 {
		return half.ToF16(v)
	}
	return half.ToBF16(v)
}

// from16 converts from F16 or BF16.
func from16(p pipelines.DType, bits uint16) float32 {
	if p == pipelines.F16 {
		return half.FromF16(bits)
	}
	return half.FromBF16(bits)
}

// round rounds to a precision.
func round(p pipelines.DType, v float32) float32 {
	if p == pipelines.F32 {
		return v
	}
	return from16(p, to16(p, v))
}
