package ref

import "testing"

func TestGather(t *testing.T) {
	x := []float32{1, 2, 3, 4, 5, 6, 10, 20, 30, 40, 50, 60} // 2 items, 3 rows of 2
	for _, c := range []struct {
		name string
		a    GatherArgs
		want []float64
	}{
		{"plain", GatherArgs{Indices: []int32{2, 2, 0, 1}, K: 2}, []float64{5, 6, 5, 6, 10, 20, 30, 40}},
		{"more slots than rows", GatherArgs{Indices: []int32{0, 1, 2, 0, 2, 1, 0, 2}, K: 4},
			[]float64{1, 2, 3, 4, 5, 6, 1, 2, 50, 60, 30, 40, 10, 20, 50, 60}},
		{"score", GatherArgs{Indices: []int32{2, 0, 1, 1}, K: 2, Score: []float32{0.5, 2, 0, 1}}, []float64{2.5, 3, 2, 4, 0, 0, 30, 40}},
		{"indices of empty slots are ignored", GatherArgs{Indices: []int32{2, 99, -1, 1}, K: 2, Valid: []uint8{1, 0, 1, 1}, Score: []float32{1, 1, 0, 1}},
			[]float64{5, 6, 0, 0, 0, 0, 30, 40}},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.a.X, c.a.B, c.a.N, c.a.C = x, 2, 3, 2
			assertNear(t, c.want, Gather(c.a), Gather32(c.a))
		})
	}
	a := GatherArgs{X: x, Indices: []int32{0, 3}, B: 2, N: 3, C: 2, K: 1}
	assertPanics(t, "ref: Gather: indices holds 3, want 0..2", func() { Gather(a) })
	a.Score = []float32{1}
	assertPanics(t, "ref: Gather: len(score) is 1, want 2", func() { Gather(a) })
	a.K = 2
	assertPanics(t, "ref: Gather: len(indices) is 2, want 4", func() { Gather(a) })
	a.N = 4
	assertPanics(t, "ref: Gather: len(x) is 12, want 16", func() { Gather(a) })
}
