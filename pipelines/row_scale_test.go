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

// A norm divides by the length of a row. From a length of 1.8e19 on, the sum of squares overflows.

// scaledRows returns rows of which row r is multiplied by 2 to the power exponents[r % len(exponents)], and the same rows
// without positive exponents. A plain float32 computation is right for the latter.
func scaledRows(rows [][]float32, exponents ...int) (scaled, tame []float32) {
	for r, row := range rows {
		e := exponents[r%len(exponents)]
		for _, v := range row {
			scaled = append(scaled, float32(math.Ldexp(float64(v), e)))
			tame = append(tame, float32(math.Ldexp(float64(v), min(e, 0))))
		}
	}
	return scaled, tame
}

// rowsOf cuts a tensor into rows.
func rowsOf(x []float32, c int) (list [][]float32) {
	for ; len(x) > 0; x = x[c:] {
		list = append(list, x[:c])
	}
	return list
}

// assertRows compares each row of a result with the reference. The bounds are those of the tame rows.
func assertRows(t *testing.T, got []float32, want []float64, naive []float32, wantTame []float64, c int, floor float64) {
	t.Helper()
	require.Len(t, got, len(want))
	for i := 0; i < len(got); i += c {
		bound := ref.Bound(naive[i:i+c], wantTame[i:i+c], floor)
		assert.NoError(t, ref.MaxErr(got[i:i+c], want[i:i+c]).Within(bound), "row %d", i/c)
	}
}

func TestRMSNormScale(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles kernels for 1 s on CPU drivers")
	}
	for _, test := range []struct {
		c      int
		y      DType
		gather bool
	}{{1, F32, false}, {2, F32, true}, {7, F32, false}, {64, F32, true}, {100, F16, false}, {509, F32, false}, {2048, F32, false}} {
		t.Run(fmt.Sprintf("%d_%v_%v", test.c, test.y, test.gather), func(t *testing.T) {
			const rows = 67
			gpu := gputest.New(t)
			gamma := normal(2, test.c)
			exponents := []int{0, -60, 60, 62, 100, 124, 0}
			if test.y != F32 {
				exponents = []int{0, -60, 40, 50, 54, 57, 0} // rows whose squares do not overflow
			}
			x, tame := scaledRows(rowsOf(normal(1, rows*test.c), test.c), exponents...)
			n, err := NewRMSNorm(gpu.Dev, RMSNormConfig{C: test.c, Y: test.y, Gather: test.gather})
			require.NoError(t, err)
			defer n.Close()
			run := func(name string, x []float32) []float32 {
				a := RMSNormArgs{X: gpu.In("x"+name, x), Gamma: gpu.In("gamma"+name, gamma), Y: gpu.Out("y"+name, len(x)*test.y.Size()), Rows: rows}
				if test.gather {
					list := make([]int32, rows)
					for i := range list {
						list[i] = int32(i)
					}
					a.Gather, a.InRows = gpu.In("gather"+name, list), rows
				} else {
					a.Factors = gpu.Out("factors"+name, 4*rows)
				}
				gpu.Run(func(list *vk.CommandList) error { return n.Record(list, a) })
				return decode(test.y, gpu, "y"+name)
			}
			got := run("", x)
			floor := map[DType]float64{F32: 1e-6, F16: 0x1p-10}[test.y]
			assertRows(t, got, ref.RMSNorm(x, gamma, rows, test.c), ref.RMSNorm32(tame, gamma, rows, test.c), ref.RMSNorm(tame, gamma, rows, test.c), test.c, floor)
			if !test.gather {
				for r, f := range gpu.Float32("factors") {
					sum := 0.0
					for _, v := range x[r*test.c : (r+1)*test.c] {
						sum += float64(v) * float64(v)
					}
					assert.InEpsilon(t, math.Sqrt(float64(test.c))/max(math.Sqrt(sum), 1e-12), f, 2e-6, "row %d", r)
				}
			}
			// Rows with ordinary values keep their bits beside others.
			ordinary := run(" tame", tame)
			for _, r := range []int{0, 6, 13} {
				assert.Equal(t, ordinary[r*test.c:(r+1)*test.c], got[r*test.c:(r+1)*test.c])
			}
		})
	}
}

// LayerNorm has a limit where RMSNorm has none: the length of a row, less its mean, is below 1.8e19.
func TestLayerNormScale(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles kernels for 1 s on CPU drivers")
	}
	for _, c := range []int{1, 7, 64, 509, 2048} {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			const rows = 67
			gpu := gputest.New(t)
			list := rowsOf(normal(1, rows*c), c)
			for i := range list[5] { // a large mean
				list[5][i] = 8 + float32(i%3)
			}
			r := ref.LayerNormArgs{Weight: normal(2, c), Bias: normal(3, c), Rows: rows, C: c}
			var tame []float32
			r.X, tame = scaledRows(list, 0, -60, 40, 50, 57, 54, 0)
			n, err := NewLayerNorm(gpu.Dev, LayerNormConfig{C: c})
			require.NoError(t, err)
			defer n.Close()
			run := func(name string, x []float32) []float32 {
				a := LayerNormArgs{X: gpu.In("x"+name, x), Weight: gpu.In("weight"+name, r.Weight), Bias: gpu.In("bias"+name, r.Bias),
					Y: gpu.Out("y"+name, 4*len(x)), Rows: rows}
				gpu.Run(func(list *vk.CommandList) error { return n.Record(list, a) })
				return gpu.Float32("y" + name)
			}
			got, tamed := run("", r.X), r
			tamed.X = tame
			assertRows(t, got, ref.LayerNorm(r), ref.LayerNorm32(tamed), ref.LayerNorm(tamed), c, 1e-6)
			ordinary := run(" tame", tame)
			for _, r := range []int{0, 6, 13} {
				assert.Equal(t, ordinary[r*c:(r+1)*c], got[r*c:(r+1)*c])
			}
		})
	}
}

func TestPatchEmbedScale(t *testing.T) {
	gpu := gputest.New(t)
	config := PatchEmbedConfig{Channels: 3, Height: 4, Width: 6, PatchHeight: 4, PatchWidth: 6} // an image is a patch
	const images = 7
	e, a, r := newPatchEmbed(t, gpu, images, config, 0)
	tamed := r
	r.X, tamed.X = scaledRows(rowsOf(r.X, config.row()), 0, -60, 40, 50, 57, 54, 0)
	a.X = gpu.In("scaled", r.X)
	gpu.Run(func(list *vk.CommandList) error { return e.Record(list, a) })
	assertRows(t, gpu.Float32("y"), ref.PatchEmbed(r), ref.PatchEmbed32(tamed), ref.PatchEmbed(tamed), config.row(), 1e-6)
}

// The fused norm of every kernel that has one. Those for 16 bits are not for rows whose squares overflow.
func TestLinearNormScale(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles kernels for 2 s on CPU drivers")
	}
	for _, p := range append([]DType{F32}, linearPrecisions(t)...) {
		exponents := []int{0, -60, 60, 62, 100}
		if p != F32 {
			exponents = []int{0, -60, 40, 50, 57}
		}
		for _, in := range []int{30, 69} {
			if testing.Short() && in != 30 {
				continue // takes 3 s
			}
			c := linearCase{LinearConfig: LinearConfig{In: in, Out: 5, Norm: true, Bias: true, Gather: true, Precision: p}, batch: 2, inRows: 90, rows: 70, outRows: 70}
			data := c.data()
			tame := data
			data.X, tame.X = scaledRows(rowsOf(data.X, in), exponents...)
			data.RoundOperands, tame.RoundOperands = p.round, p.round
			want, naive, wantTame := ref.Linear(data), ref.Linear32(tame), ref.Linear(tame)
			tiles := []string{""}
			if p == F32 {
				tiles = []string{linearTiles[1].name(), linearTiles[2].name()}
			}
			for _, tile := range tiles {
				t.Run(fmt.Sprintf("%v_%d_%s", p, in, tile), func(t *testing.T) {
					gpu := gputest.New(t)
					l, args := newLinear(t, gpu, c.LinearConfig, tile), c.args(gpu, data)
					gpu.Run(func(list *vk.CommandList) error { return l.Record(list, args) })
					floor := map[DType]float64{F32: 1e-6, F16: 0x1p-9, BF16: 0x1p-6}[p] // a factor's last bit may round an operand the other way
					assertRows(t, decode(c.y(), gpu, "y"), want, naive, wantTame, c.Out, floor)
				})
			}
		}
	}
}

func TestRouterLogitsScale(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles kernels for 2 s on CPU drivers")
	}
	for _, test := range []struct {
		c, r, r2  int
		tokens    []int // exponents of the routing tokens
		exponents []int // of the rows
	}{
		{1, 1, 0, []int{0}, []int{0, -60, 60, 62, 100}}, {30, 3, 2, []int{0}, []int{0, -60, 60, 62, 100}},
		{64, 3, 2, []int{0, 62, -60, 100}, []int{0, -60, 10}}, {8, 9, 9, []int{0, 61}, []int{0, 58, 62}}, // two passes
	} {
		for _, scale := range []float64{8, 0} {
			if testing.Short() && (scale == 0 || test.c != 30 && test.c != 64) {
				continue // CPU drivers compile each for 1 s
			}
			t.Run(fmt.Sprintf("%d_%d_%g", test.c, test.r, scale), func(t *testing.T) {
				const b, n = 2, 37
				gpu := gputest.New(t)
				x, tameX := scaledRows(rowsOf(normal(1, b*n*test.c), test.c), test.exponents...)
				config := RouterLogitsConfig{C: test.c, R: test.r, R2: test.r2, CosineScale: scale}
				l, err := NewRouterLogits(gpu.Dev, config)
				require.NoError(t, err)
				defer l.Close()
				a := RouterLogitsArgs{X: gpu.In("x", x), Factors: gpu.Out("factors", 4*b*n), B: b, N: n}
				sets := [2]struct {
					r            int
					tokens, tame []float32
				}{{r: test.r}, {r: test.r2}}
				for i := range sets {
					sets[i].tokens, sets[i].tame = scaledRows(rowsOf(normal(uint64(2+i), sets[i].r*test.c), test.c), test.tokens...)
				}
				a.Tokens, a.Logits = gpu.In("tokens", sets[0].tokens), gpu.Out("logits0", 4*b*test.r*n)
				if test.r2 > 0 {
					a.Tokens2, a.Logits2 = gpu.In("tokens2", sets[1].tokens), gpu.Out("logits1", 4*b*test.r2*n)
				}
				l.wideGroups = []int{1, math.MaxInt}[test.c%2] // both kernels
				gpu.Run(func(list *vk.CommandList) error { return l.Record(list, a) })
				for r, f := range gpu.Float32("factors") {
					sum := 0.0
					for _, v := range x[r*test.c : (r+1)*test.c] {
						sum += float64(v) * float64(v)
					}
					if scale == 0 && sum > math.MaxFloat32 {
						continue // only cosines have no limit
					}
					assert.InEpsilon(t, math.Sqrt(float64(test.c))/max(math.Sqrt(sum), 1e-12), f, 2e-6, "row %d", r)
				}
				if scale == 0 {
					return // products without a norm
				}
				for i, set := range sets {
					if set.r == 0 {
						continue
					}
					args := ref.RouterLogitsArgs{X: x, Tokens: set.tokens, B: b, N: n, C: test.c, R: set.r, CosineScale: scale}
					tame := args
					tame.X, tame.Tokens = tameX, set.tame
					bound := ref.Bound(ref.RouterLogits32(tame), ref.RouterLogits(tame), 1e-6)
					assert.NoError(t, ref.MaxErr(gpu.Float32(fmt.Sprint("logits", i)), ref.RouterLogits(args)).Within(bound))
				}
			})
		}
	}
}

// Rows that are multiples of a routing token with one nonzero element have a cosine of exactly 1.
func TestRouterLogitsCollinear(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles kernels for 1 s on CPU drivers")
	}
	for _, c := range []int{1, 2, 4, 8, 33} {
		if testing.Short() && c != 1 && c != 8 {
			continue
		}
		const n, tokens = 300, 7
		gpu := gputest.New(t)
		x, routing := make([]float32, n*c), make([]float32, tokens*c)
		for i := range n {
			x[i*c] = float32(0.1 + 0.37*float64(i))
		}
		for r := range tokens {
			routing[r*c] = []float32{0.7, 3, 1e-6, 1e7, 1.1, float32(math.Pi), 1}[r]
		}
		l, err := NewRouterLogits(gpu.Dev, RouterLogitsConfig{C: c, R: tokens, CosineScale: 8})
		require.NoError(t, err)
		defer l.Close()
		a := RouterLogitsArgs{X: gpu.In("x", x), Tokens: gpu.In("tokens", routing), Logits: gpu.Out("logits", 4*tokens*n), B: 1, N: n}
		gpu.Run(func(list *vk.CommandList) error { return l.Record(list, a) })
		for i, logit := range gpu.Float32("logits") {
			require.Equal(t, float32(8), logit, "C %d, logit %d", c, i)
		}
	}
}
