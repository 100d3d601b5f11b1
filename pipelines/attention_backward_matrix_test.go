package pipelines

import (
	"errors"
	"fmt"
	"math"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/internal/ref"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Backward passes of attention with 16-bit operands. CPU drivers compile each kernel for seconds: few configs, many sizes.

func windowBackwardPrecisions(t *testing.T) []DType {
	return matrixPrecisions(t, func(p DType) error {
		_, err := NewWindowAttentionBackward(gputest.Device(t), WindowAttentionConfig{Heads: 1, DimHead: 8, Window: 4, Precision: p})
		return err
	})
}

// gradientFloor bounds the effect of two roundings to 16 bits on a gradient: that of the weight of its largest pair, and that of
// the result. A number just above a power of 2 changes by up to half a unit in the last place, 2^-11 or 2^-8 of it. The float32
// reference rounds weights too, but may be closer to its neighbours than the kernel.
func (p DType) gradientFloor() float64 { return 2 * 2 * p.halfULP() }

// withoutTile reports whether a test that pretends to have a device with few registers has matrices and subgroups too large for
// such a device's workgroups. Devices with few registers have tiles for all heads: TestLowRegisterBackwardTiles.
func withoutTile(t *testing.T, p DType, dimHead int, factors bool) bool {
	l := limitsOf(gputest.Device(t))
	matrix, err := p.matrixShape(l.Caps)
	require.NoError(t, err)
	if !l.lowRegisters() {
		return false
	}
	_, err = lowRegisterBackwardTile(l, matrix, "keys", dimHead, factors)
	return errors.Is(err, vk.ErrUnsupported)
}

func TestWindowAttentionBackwardMatrix(t *testing.T) {
	type config = WindowAttentionConfig
	for _, p := range windowBackwardPrecisions(t) {
		for i, group := range []struct {
			config
			sizes     [][2]int // items, tokens
			scale     float32
			viaShared bool // weights go through shared memory
		}{
			{config: config{Heads: 2, DimHead: 16, Window: 8}, sizes: [][2]int{{1, 1}, {2, 7}, {2, 31}, {2, 32}, {3, 65}, {2, 101}}},
			{config: config{Heads: 2, DimHead: 16, Window: 8, Causal: true}, sizes: [][2]int{{2, 7}, {2, 64}, {2, 101}}, viaShared: true},
			{config: config{Heads: 1, DimHead: 64, Window: 64}, sizes: [][2]int{{2, 200}}},
			{config: config{Heads: 2, DimHead: 22, Window: 12, Causal: true, Exact: true}, sizes: [][2]int{{2, 7}, {3, 65}, {2, 101}}},
			{config: config{Heads: 1, DimHead: 32, Window: 33, Causal: true}, sizes: [][2]int{{2, 200}}, scale: 30},
			{config: config{Heads: 1, DimHead: 128, Window: 1000}, sizes: [][2]int{{2, 70}}},
		} {
			if testing.Short() && i > 1 {
				continue
			}
			if withoutTile(t, p, group.DimHead, false) {
				continue
			}
			group.Precision = p
			w := windowGradient{WindowAttentionConfig: group.config}.open(t, gputest.New(t))
			w.kernels.weightsInRegisters = !group.viaShared
			for _, size := range group.sizes {
				for _, masked := range []bool{false, true} {
					c := windowGradient{group.config, size[0], size[1], group.scale, nil, false}
					if masked {
						c.mask = paddingMask(c.items, c.n)
					}
					t.Run(c.String(), func(t *testing.T) {
						gpu := gputest.New(t)
						a, dy := c.data()
						want := ref.WindowAttentionBackward(a, dy)
						a.Round = p.round
						naive := ref.WindowAttentionBackward32(a, dy)
						got := c.compute(t, w, gpu, c.poisonMasked(a.QKV), dy)
						assert.NoError(t, ref.MaxErr(got, want).Within(ref.Bound(naive, want, p.gradientFloor())))
						row := c.Heads * c.DimHead
						for token, valid := range c.mask {
							if valid == 0 {
								assert.Equal(t, make([]float32, 2*row), got[(3*token+1)*row:][:2*row], "key and value of the masked token %d", token)
							}
						}
						require.Contains(t, gpu.StepNames()[0], matrixAttention("window_attention_backward_queries", p))
						require.Contains(t, gpu.StepNames()[1], matrixAttention("window_attention_backward_keys", p))
					})
				}
			}
		}
	}
}

// The bits of an item do not depend on other items, on the number of dispatches, or on tokens outside the window, even if
// those are infinite or NaN.
func TestWindowAttentionBackwardMatrixBits(t *testing.T) {
	for _, p := range windowBackwardPrecisions(t) {
		c := windowGradient{WindowAttentionConfig{Heads: 2, DimHead: 16, Window: 8, Causal: true, Precision: p}, 2, 101, 0, nil, false}
		a, dy := c.data()
		w := c.open(t, gputest.New(t))
		first := c.compute(t, w, gputest.New(t), a.QKV, dy)
		w.kernels.maxFlops = 1e5
		gpu := gputest.New(t)
		assert.Equal(t, first, c.compute(t, w, gpu, a.QKV, dy))
		assert.Greater(t, len(gpu.StepNames()), 4)

		one, item := c, len(a.QKV)/2
		one.items = 1
		assert.Equal(t, first[item:], one.compute(t, w, gputest.New(t), a.QKV[item:], dy[item/3:]))

		// Queries see the tokens of their block of 8 up to themselves, and of the block before it. Token 50 has a bad query,
		// 51 a bad gradient, 52 a bad key and 53 a bad value.
		row := c.Heads * c.DimHead
		for _, bad := range []float64{math.NaN(), math.Inf(-1)} {
			for kind := range 4 {
				qkv, dys, token := append([]float32{}, a.QKV...), append([]float32{}, dy...), 50+kind
				switch kind {
				case 0:
					qkv[3*token*row] = float32(bad)
				case 1:
					dys[token*row] = float32(bad)
				default:
					qkv[(3*token+kind-1)*row] = float32(bad)
				}
				got := c.compute(t, w, gputest.New(t), qkv, dys)
				var spoiled []int // rows of head 0
				for i := range len(got) / row {
					head := got[i*row:][:c.DimHead]
					if math.IsNaN(float64(head[0])) {
						spoiled = append(spoiled, i)
					} else {
						assert.Equal(t, first[i*row:][:c.DimHead], head, "%g: kind %d: row %d of token %d", bad, kind, i%3, i/3)
					}
					assert.Equal(t, first[i*row+c.DimHead:][:c.DimHead], got[i*row+c.DimHead:][:c.DimHead], "head 1")
				}
				assert.Equal(t, spoiledRows(kind, token), spoiled, "%g: kind %d", bad, kind)
			}
		}
	}
}

// spoiledRows returns the rows of dqkv that a row of token t that is NaN makes NaN with causal windows of 8 tokens: its
// query, the gradient of its result, its key or its value.
func spoiledRows(kind, t int) (rows []int) {
	sees := func(i, j int) bool { return j <= i && j/8 >= i/8-1 }
	for token := range 202 {
		bad := [3]bool{}
		if kind < 2 { // the softmax or delta of query t
			bad = [3]bool{token == t, sees(t, token), sees(t, token)}
		} else { // of the queries that see it
			bad[0] = sees(token, t)
			for i := range 202 {
				if sees(i, t) && sees(i, token) {
					bad[1], bad[2] = true, true
				}
			}
		}
		for part, spoiled := range bad {
			if spoiled {
				rows = append(rows, 3*token+part)
			}
		}
	}
	return rows
}

func TestPatchAttentionBackwardMatrix(t *testing.T) {
	type config = PatchAttentionConfig
	precisions := matrixPrecisions(t, func(p DType) error {
		_, err := NewPatchAttentionBackward(gputest.Device(t), config{Heads: 1, DimHead: 8, Patch: 4, Precision: p})
		return err
	})
	for _, p := range precisions {
		for _, c := range []patchGradient{
			{config{Heads: 1, DimHead: 2, Patch: 1}, 1, 1, 0, false},
			{config{Heads: 2, DimHead: 16, Patch: 1}, 3, 2, 0, false},
			{config{Heads: 3, DimHead: 24, Patch: 4}, 8, 12, 0, false},
			{config{Heads: 2, DimHead: 36, Patch: 7}, 14, 7, 0, true},
			{config{Heads: 1, DimHead: 64, Patch: 16}, 16, 32, 6, false},
		} {
			if testing.Short() && c.Patch != 4 {
				continue
			}
			c.Precision = p
			t.Run(fmt.Sprintf("%+v", c), func(t *testing.T) {
				gpu := gputest.New(t)
				a, dy := c.data()
				want := ref.PatchAttentionBackward(a, dy)
				a.Round = p.round
				naive := ref.PatchAttentionBackward32(a, dy)
				assert.NoError(t, ref.MaxErr(c.compute(t, c.open(t), gpu, a.QKV, dy), want).Within(ref.Bound(naive, want, p.gradientFloor())))
				require.Contains(t, gpu.StepNames()[0], matrixAttention("patch_attention_backward_queries", p))
				require.Contains(t, gpu.StepNames()[1], matrixAttention("patch_attention_backward_keys", p))
			})
		}
	}
}

func TestRoutedAttentionBackwardMatrix(t *testing.T) {
	all := func(c *RoutedAttentionConfig) {
		c.Valid, c.QueryValid, c.ScoreValues, c.ScoreKeys, c.ScoreQueries = true, true, true, true, true
	}
	indexed := func(c *RoutedAttentionConfig) { c.KeySource = KeySourceIndexed }
	prefix := func(c *RoutedAttentionConfig) { c.KeySource, c.Valid, c.QueryValid = KeySourcePrefix, true, true }
	valid := func(c *RoutedAttentionConfig) { c.Valid, c.QueryValid = true, true }
	scoreValues := func(c *RoutedAttentionConfig) { c.ScoreValues = true }
	precisions := matrixPrecisions(t, func(p DType) error {
		_, err := NewRoutedAttentionBackward(gputest.Device(t), RoutedAttentionConfig{Heads: 1, DimHead: 8, Routes: 1, Precision: p})
		return err
	})
	for _, p := range precisions {
		opened := map[RoutedAttentionConfig]*RoutedAttentionBackward{}
		for i, c := range []routedCase{
			{RoutedAttentionConfig: ownKeys(4, 24, 2).with(all), lists: 2, queries: 64, keys: 65},
			{RoutedAttentionConfig: ownKeys(4, 16, 2).with(all).with(indexed), lists: 6, queries: 8, keys: 45, perItem: 3, rows: 50, scale: 6}, // maxima rise
			{RoutedAttentionConfig: ownKeys(3, 20, 1).with(prefix), lists: 6, queries: 31, perItem: 3, rows: 100, prefix: 40},
			{RoutedAttentionConfig: ownKeys(2, 16, 1), lists: 1, queries: 1, keys: 1},
			{RoutedAttentionConfig: ownKeys(2, 16, 1), lists: 2, queries: 15, keys: 31},
			{RoutedAttentionConfig: ownKeys(2, 16, 1), lists: 1, queries: 70, keys: 200, scale: 30},
			{RoutedAttentionConfig: ownKeys(2, 16, 1), lists: 1, queries: 5, keys: 63, scale: 1000},
			{RoutedAttentionConfig: ownKeys(1, 128, 1).with(valid), lists: 2, queries: 9, keys: 33, validKeys: -1},
			{RoutedAttentionConfig: ownKeys(2, 22, 1).with(scoreValues).with(indexed), lists: 4, queries: 40, keys: 50, perItem: 2, rows: 90},
		} {
			if testing.Short() && i != 1 || withoutTile(t, p, c.DimHead, c.ScoreKeys || c.ScoreValues || c.ScoreQueries) {
				continue
			}
			c.Precision = p
			if opened[c.RoutedAttentionConfig] == nil {
				opened[c.RoutedAttentionConfig] = c.openBackward(t)
			}
			t.Run(fmt.Sprintf("%+v", c), func(t *testing.T) {
				gpu := gputest.New(t)
				a, dy := c.gradientArgs()
				c.check(t, a, dy, c.backward(t, opened[c.RoutedAttentionConfig], gpu, a, dy))
				require.Contains(t, gpu.StepNames()[0], matrixAttention("routed_attention_backward_queries", p))
				require.Contains(t, gpu.StepNames()[1], matrixAttention("routed_attention_backward_keys", p))
			})
		}
	}
}
