package sampling

import (
	"math"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestPhilox has the known answers of the Random123 library.
func TestPhilox(t *testing.T) {
	const all = 0xffffffff
	assert.Equal(t, [4]uint32{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}, philox([4]uint32{}, [2]uint32{}))
	assert.Equal(t, [4]uint32{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}, philox([4]uint32{all, all, all, all}, [2]uint32{all, all}))
	assert.Equal(t, [4]uint32{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1},
		philox([4]uint32{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, [2]uint32{0xa4093822, 0x299f31d0}))
}

func TestGreedy(t *testing.T) {
	for _, logits := range [][]float32{{1, 3, 3, 2}, {-5, -1, -2}, {float32(math.Inf(-1)), 0}} {
		token, err := Options{TopK: 2, TopP: 0.5, Seed: 9}.Choose(logits, 4)
		require.NoError(t, err)
		assert.Equal(t, 1, token)
	}
}

// shares chooses at many positions.
func shares(t *testing.T, o Options, logits []float32) []float64 {
	t.Helper()
	const n = 20000
	list := make([]float64, len(logits))
	for i := range n {
		token, err := o.Choose(logits, uint64(i))
		require.NoError(t, err)
		list[token] += 1.0 / n
	}
	return list
}

// TestShares requires the probabilities of the definition, within 4 standard deviations.
func TestShares(t *testing.T) {
	logits := []float32{float32(math.Log(1)), float32(math.Log(4)), float32(math.Log(2)), float32(math.Log(2)), float32(math.Log(1))}
	for _, test := range []struct {
		o    Options
		want []float64
	}{
		{Options{Temperature: 1}, []float64{.1, .4, .2, .2, .1}},
		{Options{Temperature: 0.5}, []float64{1. / 26, 16. / 26, 4. / 26, 4. / 26, 1. / 26}},
		{Options{Temperature: 1, TopK: 9, TopP: 1, Seed: 7}, []float64{.1, .4, .2, .2, .1}},
		{Options{Temperature: 1, TopK: 2}, []float64{0, 4. / 6, 2. / 6, 0, 0}},
		{Options{Temperature: 1, TopK: 3}, []float64{0, .5, .25, .25, 0}},
		{Options{Temperature: 1, TopP: 0.39}, []float64{0, 1, 0, 0, 0}},
		{Options{Temperature: 1, TopP: 0.5}, []float64{0, 4. / 6, 2. / 6, 0, 0}},
		{Options{Temperature: 1, TopP: 0.79}, []float64{0, .5, .25, .25, 0}},
		{Options{Temperature: 1, TopP: 0.85}, []float64{1. / 9, 4. / 9, 2. / 9, 2. / 9, 0}},
		{Options{Temperature: 1, TopK: 3, TopP: 0.7}, []float64{0, 4. / 6, 2. / 6, 0, 0}}, // of what top-k leaves
		{Options{Temperature: 0.001}, []float64{0, 1, 0, 0, 0}},
	} {
		for i, got := range shares(t, test.o, logits) {
			p := test.want[i]
			assert.InDelta(t, p, got, 4*math.Sqrt(p*(1-p)/20000)+1e-12, "%+v: token %d", test.o, i)
		}
	}
}

func TestSeeds(t *testing.T) {
	logits := make([]float32, 256)
	var lists [4][]int
	for i, seed := range []uint64{1, 1, 2, 1 << 32} {
		for position := range 16 {
			token, err := Options{Temperature: 1, Seed: seed}.Choose(logits, uint64(position))
			require.NoError(t, err)
			lists[i] = append(lists[i], token)
		}
	}
	assert.Equal(t, lists[0], lists[1])
	assert.NotEqual(t, lists[0], lists[2])
	assert.NotEqual(t, lists[0], lists[3])
	far, err := Options{Temperature: 1, Seed: 1}.Choose(logits, 1<<32)
	require.NoError(t, err)
	assert.NotEqual(t, lists[0][0], far, "both words of a position count")
}

func TestBadLogits(t *testing.T) {
	for _, x := range []float64{math.NaN(), math.Inf(1)} {
		_, err := Options{}.Choose([]float32{0, float32(x)}, 0)
		assert.ErrorContains(t, err, "the logit of token 1 is")
	}
	_, err := Options{}.Choose(nil, 0)
	assert.ErrorContains(t, err, "there are no logits")
	for want, o := range map[string]Options{
		"temperature is -1, want at least 0": {Temperature: -1}, "temperature is NaN": {Temperature: math.NaN()}, "temperature is +Inf": {Temperature: math.Inf(1)},
		"top-k is -1": {TopK: -1}, "top-p is 2, want 0 to 1": {TopP: 2}, "top-p is NaN": {TopP: math.NaN()},
	} {
		assert.ErrorContains(t, o.Check(), want)
	}
	assert.NoError(t, Options{Temperature: 1, TopK: 1, TopP: 1}.Check())
}
