package ref

import (
	"math"
	"testing"

	"github.com/stretchr/testify/assert"
)

// The local-attention package rotates the keys of a window by their place among the keys of the window, and its
// queries by the last places. LocalMHA, which counts positions from the start of the sequence, computes the same.
func TestLocalMHARotaryByWindow(t *testing.T) {
	const n, w, d = 35, 5, 6
	for _, causal := range []bool{false, true} {
		c := LocalMHAConfig{Dim: d, WindowSize: w, DimHead: d, Heads: 1, Causal: causal, ExactWindowSize: true, UseRotaryPosEmb: true}
		x, p := normal(1, n*d, 1), Params{"to_qkv.weight": normal(2, 3*d*d, 0.5), "to_out.weight": make([]float32, d*d)}
		for i := range d {
			p["to_out.weight"][i*d+i] = 1
		}
		got := LocalMHA(x, nil, 1, n, c, p, "").Y
		qkv := linear(LinearArgsOf[float64]{X: convert[float64](x), W: convert[float64](p["to_qkv.weight"]), Rows: n, In: d, Out: 3 * d})
		blocks := 3
		if causal {
			blocks = 2
		}
		for i := range n {
			first := (i/w - 1) * w // the first key of the window, perhaps before the start of the sequence
			q := rotated(qkv[3*i*d:][:d], (blocks-1)*w+i%w)
			sum, out := 0.0, make([]float64, d)
			for place := range blocks * w {
				j := first + place
				if j < 0 || j >= n || j > i+w || j < i-w || causal && j > i {
					continue
				}
				k, s := rotated(qkv[(3*j+1)*d:][:d], place), 0.0
				for e := range d {
					s += q[e] * k[e]
				}
				s = math.Exp(s / math.Sqrt(d))
				sum += s
				for e := range d {
					out[e] += s * qkv[(3*j+2)*d+e]
				}
			}
			for e := range d {
				assert.InDelta(t, out[e]/sum, got[i*d+e], 1e-12, "token %d", i)
			}
		}
	}
}
