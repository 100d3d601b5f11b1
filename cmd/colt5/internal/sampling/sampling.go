// Package sampling chooses tokens by their logits.
package sampling

import (
	"cmp"
	"fmt"
	"math"
	"slices"
)

// Options say how a token is chosen.
type Options struct {
	Temperature float64 // divides the logits; 0: the token with the largest logit, of equal ones the lower
	TopK        int     // only so many tokens with the largest logits, of equal ones the lower; 0: all
	TopP        float64 // only the fewest of those whose probabilities sum to at least this; 0 or 1: all
	Seed        uint64
}

// Check checks the options.
func (o Options) Check() error {
	switch {
	case !(o.Temperature >= 0) || math.IsInf(o.Temperature, 1):
		return fmt.Errorf("temperature is %v, want at least 0", o.Temperature)
	case o.TopK < 0:
		return fmt.Errorf("top-k is %d, want at least 0", o.TopK)
	case !(o.TopP >= 0 && o.TopP <= 1):
		return fmt.Errorf("top-p is %v, want 0 to 1", o.TopP)
	}
	return nil
}

// Choose chooses the token at a position of the sequence. The choice depends on the logits, the options and the position
// only. Logits with a NaN have no largest one: an error.
func (o Options) Choose(logits []float32, position uint64) (int, error) {
	order := make([]int, len(logits))
	for i, x := range logits {
		order[i] = i
		if x != x || math.IsInf(float64(x), 1) {
			return 0, fmt.Errorf("the logit of token %d is %v, want a number", i, x)
		}
	}
	if len(order) == 0 {
		return 0, fmt.Errorf("there are no logits, want at least one")
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(logits[b], logits[a]) })
	if o.Temperature == 0 {
		return order[0], nil
	}
	if o.TopK > 0 {
		order = order[:min(o.TopK, len(order))]
	}
	weights, sum := make([]float64, len(order)), 0.0
	for i, token := range order {
		weights[i] = math.Exp((float64(logits[token]) - float64(logits[order[0]])) / o.Temperature)
		sum += weights[i]
	}
	if o.TopP > 0 && o.TopP < 1 {
		mass := 0.0
		for i, w := range weights {
			if mass += w; mass >= o.TopP*sum {
				weights, sum = weights[:i+1], mass
				break
			}
		}
	}
	words := philox([4]uint32{uint32(position), uint32(position >> 32)}, [2]uint32{uint32(o.Seed), uint32(o.Seed >> 32)})
	left := float64(words[0]) * 0x1p-32 * sum
	for i, w := range weights {
		if left < w {
			return order[i], nil
		}
		left -= w
	}
	return order[len(weights)-1], nil // by rounding
}
