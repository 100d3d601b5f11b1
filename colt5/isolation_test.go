package colt5

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// checkNaNIsolation: NaN and infinity in one batch item do not affect the others.
func checkNaNIsolation(fx *fixture, s moduleCase) {
	if s.vocabulary > 0 {
		return
	}
	for _, masks := range inShortMode([]bool{true}, []bool{false, true}) {
		for _, value := range []float32{float32(math.NaN()), float32(math.Inf(-1))} {
			v := s.randomInput(1, 2, masks)
			other := s.randomInput(2, 2, masks)
			for i := range other.x {
				other.x[i] = value
			}
			for i := range other.context {
				other.context[i] = value
			}
			run := func(v inputData) []float32 {
				y, in := fx.upload(s, 2, v)
				require.NoError(fx.t, y.Write(fx.t.Context(), nanFill(y.Len())))
				require.NoError(fx.t, s.forward(fx.t.Context(), y, in))
				return fx.read(y)
			}
			good := run(v)
			for j := range 2 {
				got := run(s.withItem(v, other, j, 2))
				i, size := 1-j, len(good)/2
				assert.True(fx.t, sameBits(good[i*size:][:size], got[i*size:][:size]), "%s item %d %v %v", s.name, i, masks, value)
			}
		}
	}
}

// TestPrecisionOfEveryModule: the properties of TestEveryModule also hold with the 16-bit precisions that the device
// supports.
func TestPrecisionOfEveryModule(t *testing.T) {
	for _, p := range []DType{F16, BF16} {
		fx := newFixture(t)
		if p.Supported(fx.dev.Caps()) != nil {
			continue
		}
		for _, s := range fx.testModules(p) {
			t.Run(fmt.Sprint(p, " ", s.name), func(t *testing.T) {
				gputest.CountCase()
				for _, test := range []func(*fixture, moduleCase){checkBatchIsolation, checkNaNIsolation, checkRepeatedCall, checkPlannedMemory, checkSaveLoad} {
					test(fx.sub(t), s)
				}
			})
		}
		t.Run(fmt.Sprint(p, " causal"), func(t *testing.T) {
			gputest.CountCase()
			const items = 32
			c := causalAttention(fx.sub(t), withPrecision(p, smallAutoregressive()))
			for seed := range uint64(4) {
				before, after := c.countEdits(t, rand.New(rand.NewPCG(seed, 1)), items, smallN-1)
				assert.Zero(t, before, "outputs before the edited token changed")
				assert.Equal(t, items-1, after, "outputs from the edited token on did not change")
			}
		})
	}
}

// NaN in padding does not affect real tokens of the same item.
func TestNaNPaddingIsolation(t *testing.T) {
	t.Parallel()
	for _, p := range []DType{F32, F16, BF16} {
		fx := newFixture(t)
		if p.Supported(fx.dev.Caps()) != nil {
			continue
		}
		gputest.CountCase()
		c := smallAttention()
		c.Dim, c.LightDimHead, c.HeavyDimHead, c.Precision = 16, 8, 8, p
		a := mustNewSeeded(fx, NewConditionalRoutedAttention, c)
		const items, n = 3, 48
		mask, data := randomMask(1, items, n), normal(1, items*n*c.Dim)
		run := func(x []float32) []float32 {
			y := fx.tensor(F32, items, n, c.Dim)
			require.NoError(t, a.Forward(t.Context(), y, fx.floats(x, items, n, c.Dim), AttentionOptions{Mask: fx.bytes(mask, items, n)}))
			return fx.read(y)
		}
		good := run(data)
		for i := range data {
			if mask[i/c.Dim] == 0 {
				data[i] = float32(math.NaN())
			}
		}
		got := run(data)
		for token, valid := range mask {
			if valid != 0 {
				assert.True(t, sameBits(good[token*c.Dim:][:c.Dim], got[token*c.Dim:][:c.Dim]), "%v: item %d token %d", p, token/n, token%n)
			}
		}
	}
}
