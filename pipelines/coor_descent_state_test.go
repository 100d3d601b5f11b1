package pipelines

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/stretchr/testify/assert"
)

// a_t is that of a float64 iteration. The sum and the count follow from the a_{t-1} in the state.
func TestCoorDescentState(t *testing.T) {
	limit := longestInRegisters(gputest.Device(t).Caps())
	for _, n := range []int{1, 5, 500, 5000, limit + 50} {
		for _, config := range []CoorDescentConfig{routerSchedule, topKSchedule, {Iters: 1, Eps: 0.2}} {
			if testing.Short() && n != 500 {
				continue
			}
			t.Run(fmt.Sprintf("%d eps %g", n, config.Eps), func(t *testing.T) {
				c := descentCase{config: config, logits: scaled(normal(21, 3*n), 4), rows: 3, n: n, k: max(0.7, float64(n)/20), state: true}
				c.mask = randomMask(22, 3*n)
				clear(c.mask[n : 2*n])
				gpu := gputest.New(t)
				c.run(t, gpu)
				state := gpu.Float32("state")
				for row := range 3 {
					c.checkState(t, row, state[4*config.Iters*row:4*config.Iters*(row+1)])
				}
			})
		}
	}
}

// checkState checks the state [Iters, 4] of a row.
func (c descentCase) checkState(t *testing.T, row int, state []float32) {
	t.Helper()
	var s []float64
	all, mask := c.segment(row, 0, c.n)
	for i, v := range all {
		if mask[i] != 0 {
			s = append(s, float64(v))
		}
	}
	if len(s) == 0 {
		assert.Equal(t, make([]float32, len(state)), state)
		return
	}
	largest := slices.Max(s)
	e, decay := max(c.config.EpsInit, c.config.Eps), c.config.EpsDecay
	if decay == 0 {
		decay = 1
	}
	a := e * math.Log(c.k/float64(len(s)))
	for i := range c.config.Iters {
		high, low, sum, other := state[4*i], state[4*i+1], state[4*i+2], state[4*i+3]
		if i == 0 {
			assert.Equal(t, []float32{float32(len(s)), float32(largest)}, []float32{sum, other})
		} else {
			// The sum and the count follow from the a of the kernel, the next a from that of this loop.
			previous := float64(state[4*i-4]) + float64(state[4*i-3])
			wantSum, count := sumBelow(s, previous, min(largest, -previous), e)
			assert.InEpsilon(t, wantSum, sum, 2e-6, "sum of step %d", i)
			assert.Equal(t, float32(count), other, "count of step %d", i)
			top := min(largest, -a)
			wantSum, _ = sumBelow(s, a, top, e)
			a = e*math.Log(c.k/wantSum) - top
		}
		assert.LessOrEqual(t, math.Abs(float64(low)), math.Abs(float64(high))*0x1p-23, "pair of step %d", i)
		assert.InDelta(t, a, float64(high)+float64(low), 5e-7*max(1, 5*e), "a of step %d", i)
		e = max(e*decay, c.config.Eps)
	}
}

// sumBelow is the sum of exp((min(s, -a) - top) / e), and the number of s above -a.
func sumBelow(s []float64, a, top, e float64) (sum float64, count int) {
	for _, v := range s {
		sum += math.Exp((min(v, -a) - top) / e)
		if v+a > 0 {
			count++
		}
	}
	return sum, count
}
