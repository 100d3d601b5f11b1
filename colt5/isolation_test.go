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

// NaN and infinity in one item do not reach the others, and nothing hangs.
func TestNaNItemsAreAlone(t *testing.T) {
	b := newBench(t)
	for _, s := range b.subjects(F32) {
		nanItemsAreAlone(b, s)
	}
}

func nanItemsAreAlone(b *bench, s subject) {
	if s.ids > 0 {
		return
	}
	for _, masks := range []bool{false, true} {
		for _, value := range []float32{float32(math.NaN()), float32(math.Inf(-1))} {
			v := s.some(1, 2, masks)
			other := s.some(2, 2, masks)
			for i := range other.x {
				other.x[i] = value
			}
			for i := range other.second {
				other.second[i] = value
			}
			run := func(v values) []float32 {
				y, in := b.upload(s, 2, v)
				require.NoError(b.t, y.Write(nans(y.Len())))
				require.NoError(b.t, s.forward(y, in))
				return b.read(y)
			}
			good := run(v)
			for j := range 2 {
				got := run(s.with(v, other, j, 2))
				i, size := 1-j, len(good)/2
				assert.True(b.t, sameBits(good[i*size:][:size], got[i*size:][:size]), "%s item %d %v %v", s.name, i, masks, value)
			}
		}
	}
}

// TestPrecisionOfEveryModule: what every module keeps to holds in 16 bits too, where the device has them.
func TestPrecisionOfEveryModule(t *testing.T) {
	for _, p := range []DType{F16, BF16} {
		b := newBench(t)
		if p.Supported(b.dev.Caps()) != nil {
			continue
		}
		for _, s := range b.subjects(p) {
			t.Run(fmt.Sprint(p, " ", s.name), func(t *testing.T) {
				gputest.CountCase()
				for _, test := range []func(*bench, subject){itemsAreAlone, nanItemsAreAlone, repeatedCall, memoryAsMeasured, saveAndLoad} {
					test(&bench{t, b.dev}, s)
				}
			})
		}
		t.Run(fmt.Sprint(p, " causal"), func(t *testing.T) {
			gputest.CountCase()
			const items = 32
			c := causalAttention(&bench{t, b.dev}, in(p, smallAutoregressive()))
			for seed := range uint64(4) {
				before, after := c.edits(t, rand.New(rand.NewPCG(seed, 1)), items, smallN-1)
				assert.Zero(t, before, "outputs before the edited token changed")
				assert.Equal(t, items-1, after, "outputs from the edited token on did not change")
			}
		})
	}
}

// NaN in padding does not reach real tokens of the same item, in products of 16 bits neither.
func TestNaNPaddingIsAlone(t *testing.T) {
	for _, p := range []DType{F32, F16, BF16} {
		b := newBench(t)
		if p.Supported(b.dev.Caps()) != nil {
			continue
		}
		gputest.CountCase()
		c := smallAttention()
		c.Dim, c.LightDimHead, c.HeavyDimHead, c.Precision = 16, 8, 8, p
		a := create(b, NewConditionalRoutedAttention, c)
		const items, n = 3, 48
		mask, data := someMask(1, items, n), normal(1, items*n*c.Dim)
		run := func(x []float32) []float32 {
			y := b.tensor(F32, items, n, c.Dim)
			require.NoError(t, a.Forward(y, b.floats(x, items, n, c.Dim), AttentionOptions{Mask: b.bytes(mask, items, n)}))
			return b.read(y)
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
