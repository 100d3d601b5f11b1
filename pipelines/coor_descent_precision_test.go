package pipelines

import (
	"fmt"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/internal/ref"
	"github.com/stretchr/testify/assert"
)

// Half an ulp of a logit of 15 is 3e-5 of eps 0.03. A plain float32 computation has at least that error; the pairs of
// floats of the kernel do not.
func TestCoorDescentPrecision(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 2 s; the errors of long rows need long rows")
	}
	for _, n := range []int{2048, 32768, 100000} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			s := scaled(normal(7, n), 4)
			for i := range s {
				s[i] -= 60
			}
			c := descentCase{config: routerSchedule, logits: s, rows: 1, n: n, k: float64(n) / 32}
			got := c.run(t, gputest.New(t))
			want, naive := c.reference()
			assert.Greater(t, ref.MaxErr(naive, want).Rel, 5e-5, "the error of plain float32 is too small to test anything")
			assert.NoError(t, ref.MaxErr(got, want).Within(1e-5))
		})
	}
}

// With constant eps, -a first changes by 16 bits and more. That costs no accuracy once it converges.
func TestCoorDescentConstantEps(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles kernels for 1 s on CPU drivers")
	}
	n := 4096
	if testing.Short() {
		n = 500
	}
	for iters, k := range map[int]float64{12: 256, 20: 16, 50: 256} {
		c := descentCase{config: CoorDescentConfig{Iters: iters, Eps: 0.1}, logits: normal(7, n), rows: 1, n: n, k: k}
		got := c.run(t, gputest.New(t))
		want, _ := c.reference()
		assert.NoError(t, ref.MaxErr(got, want).Within(5e-7), "%d iterations, k %g", iters, k)
	}
}

// With a tiny k, -a leaves the range of the exponentials within one iteration, also in the last one.
func TestCoorDescentLeastK(t *testing.T) {
	for _, n := range []int{500, 4000, 30_000} {
		if testing.Short() && n > 500 {
			continue // takes 6 s
		}
		for iters := range 8 {
			if testing.Short() && iters%4 != 1 {
				continue
			}
			s := make([]float32, n)
			for i := range s {
				s[i] = float32(i % 4)
			}
			c := descentCase{config: CoorDescentConfig{Iters: 1 + iters, Eps: 0.03}, logits: s, rows: 1, n: n, k: 1e-6}
			c.run(t, gputest.New(t))
		}
	}
}
