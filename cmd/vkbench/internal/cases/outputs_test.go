package cases

import (
	"testing"

	"github.com/colt5-vulkan/colt5/internal/cli/scope"
	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/internal/ref"
	"github.com/colt5-vulkan/colt5/pipelines"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestMain(m *testing.M) { gputest.Main(m) }

// TestProductOutput requires the check of a product to detect one wrong element in each row that it compares, none in
// other rows, and products of too few inputs.
func TestProductOutput(t *testing.T) {
	dev, ctx := gputest.Device(t), t.Context()
	gputest.CountCase()
	const rows, in, out = 36, 2048, 12
	for _, p := range []pipelines.DType{pipelines.F32, pipelines.F16, pipelines.BF16} {
		if p.Supported(dev.Caps()) != nil {
			continue
		}
		require.NoError(t, scope.Run(ctx, dev, func(s *scope.Scope) error {
			b := &Builder{Scope: s, Precision: p}
			w, err := setupLinear(b, []int{rows, in, out})
			require.NoError(t, err)
			require.NoError(t, w.Validate(ctx))
			y, _, err := w.Outputs[0].read(ctx)
			require.NoError(t, err)
			for row := range rows {
				y[row*out+row%out] += 8
				err := w.Outputs[0].check(ctx, y)
				y[row*out+row%out] -= 8
				if row%5 == 0 { // the compared rows are 0, 5 .. 35
					assert.ErrorContains(t, err, "bound", "%v, row %d", p, row)
				} else {
					assert.NoError(t, err, "%v, row %d", p, row)
				}
			}
			require.NoError(t, w.Outputs[0].check(ctx, y))
			args := ref.LinearArgs{X: normals(1, rows*in), W: normals(2, in*out), Rows: rows, In: in, Out: out}
			for row := range rows {
				clear(args.X[row*in+in-8:][:8])
			}
			less := ref.Linear32(args)
			for i := range less {
				less[i] = round(p, less[i])
			}
			assert.ErrorContains(t, w.Outputs[0].check(ctx, less), "bound", "%v: 8 inputs are missing", p)
			return nil
		}))
	}
}

func TestNormals(t *testing.T) {
	list := normals(1, 100000)
	var sum, squares, most float64
	for _, x := range list {
		sum += float64(x)
		squares += float64(x) * float64(x)
		most = max(most, float64(x))
	}
	assert.InDelta(t, 0, sum/1e5, 0.02)
	assert.InDelta(t, 1, squares/1e5, 0.02)
	assert.Greater(t, most, 2.5)
	assert.Equal(t, list[:10], normals(1, 10))
	other, product := normals(2, len(list)), 0.0
	for i, x := range list {
		product += float64(x) * float64(other[i])
	}
	assert.InDelta(t, 0, product/1e5, 0.02, "two seeds")
}
