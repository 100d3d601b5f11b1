package colt5

import (
	"math"
	"math/big"
	"testing"

	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestMemoryNeverWraps: at sizes around powers of 2 the sums of Memory are those of exact arithmetic, or an error.
func TestMemoryNeverWraps(t *testing.T) {
	caps := newFixture(t).dev.Caps()
	product := func(sizes ...int) *big.Int {
		p := big.NewInt(1)
		for _, n := range sizes {
			p.Mul(p, big.NewInt(int64(n)))
		}
		return p
	}
	large := func(exponents ...int) (list []int) {
		for _, e := range exponents {
			list = append(list, 1<<e-1, 1<<e)
		}
		return list
	}
	accepted := 0
	for _, k := range moduleTypes(F32) {
		if k.memory == nil || k.n == 0 {
			continue // the size is a constant of the configuration
		}
		var before [5]uint64
		for _, items := range append(large(15, 16, 20, 30), math.MaxInt32) {
			for _, n := range append([]int{k.n}, large(15, 16, 28, 30)...) {
				if n%k.n != 0 && k.pixels != nil {
					continue // no whole patches
				}
				m, err := k.memory(caps, items, n)
				if err != nil {
					continue
				}
				accepted++
				parts := []uint64{m.Weights, m.Inputs, m.Outputs, m.Workspace, m.Gradients}
				if y := append([]int{4, items, n}, k.y[1:]...); k.y[0] == smallN {
					require.Equal(t, product(y...).String(), new(big.Int).SetUint64(m.Outputs).String(), "%s %d x %d", k.name, items, n)
				}
				sum := new(big.Int)
				for _, p := range parts {
					require.LessOrEqual(t, p, uint64(maxBytes), k.name)
					sum.Add(sum, new(big.Int).SetUint64(p))
				}
				require.True(t, sum.IsUint64() && sum.Uint64() == m.Total(), "%s %d x %d: %v", k.name, items, n, m)
				if n == k.n {
					assert.GreaterOrEqual(t, m.Workspace, before[3], "%s: a larger batch needs no less", k.name)
					copy(before[:], parts)
				}
			}
		}
	}
	assert.Greater(t, accepted, 50)
}

// TestArenaNeverWraps: allocations whose sum exceeds 64 bits are an error of the plan.
func TestArenaNeverWraps(t *testing.T) {
	b := &builder{}
	b.restart(0)
	for range 1 << 10 {
		b.alloc(1 << 56)
	}
	assert.Less(t, b.peak, uint64(2*maxBytes))
	require.ErrorIs(t, b.err, vk.ErrOutOfMemory)
}
