package pipelines

import (
	"fmt"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/internal/ref"
	"github.com/stretchr/testify/assert"
)

// Half an ulp of a logit of 15 is 3e-5 of eps 0.03: plain float32 is off by that, and by more. A pair of floats is not.
func TestCoorDescentPrecision(t *testing.T) {
	for _, n := range []int{2048, 32768, 100000} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			s := scaled(normal(7, n), 4)
			for i := range s {
				s[i] -= 60
			}
			c := descentCase{config: routerSchedule, s: s, rows: 1, n: n, k: float64(n) / 32}
			got := c.run(t, gputest.New(t))
			want, naive := c.reference()
			assert.Greater(t, ref.MaxErr(naive, want).Rel, 5e-5, "of plain float32: the case is too easy")
			assert.NoError(t, ref.MaxErr(got, want).Within(1e-5))
		})
	}
}

// With constant eps the bound first moves far, 16 bits and more. That costs no precision where it moves slowly in the end.
func TestCoorDescentConstantEps(t *testing.T) {
	for iters, k := range map[int]float64{12: 256, 20: 16, 50: 256} {
		c := descentCase{config: CoorDescentConfig{Iters: iters, Eps: 0.1}, s: normal(7, 4096), rows: 1, n: 4096, k: k}
		got := c.run(t, gputest.New(t))
		want, _ := c.reference()
		assert.NoError(t, ref.MaxErr(got, want).Within(5e-7), "%d iterations, k %g", iters, k)
	}
}

// So few are to be chosen that the bound leaves the terms' range within one step, in the last one too.
func TestCoorDescentLeastK(t *testing.T) {
	for _, n := range []int{4000, 30_000} {
		for iters := range 8 {
			s := make([]float32, n)
			for i := range s {
				s[i] = float32(i % 4)
			}
			c := descentCase{config: CoorDescentConfig{Iters: 1 + iters, Eps: 0.03}, s: s, rows: 1, n: n, k: 1e-6}
			c.run(t, gputest.New(t))
		}
	}
}
