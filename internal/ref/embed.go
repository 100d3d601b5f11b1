package ref

// Embed is a token embedding. bad is the number of ids out of range; their rows are zeros.
//
//	ids [Rows]    table [V, C]    y [Rows, C]
func Embed(ids []int32, table []float32, v, c int) (y []float64, bad int) {
	checkLen("Embed", "table", len(table), v*c)
	y = make([]float64, len(ids)*c)
	for r, id := range ids {
		if id < 0 || int(id) >= v {
			bad++
			continue
		}
		for i, x := range table[int(id)*c : (int(id)+1)*c] {
			y[r*c+i] = float64(x)
		}
	}
	return y, bad
}
