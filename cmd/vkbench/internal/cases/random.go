package cases

import "math"

// normals returns approximately normally distributed values, a function of seed and count alone. The sum of four
// uniform values is close enough to a normal distribution, and fast enough for millions.
func normals(seed uint64, count int) []float32 {
	list := make([]float32, count)
	state := 1 + seed*0x9e3779b97f4a7c15
	for i := range list {
		state = state*6364136223846793005 + 1442695040888963407
		x := state ^ state>>29
		x *= 0x9e3779b97f4a7c15
		sum := x&0xffff + x>>16&0xffff + x>>32&0xffff + x>>48
		list[i] = float32((float64(sum) - 2*0xffff) / 0x10000 * math.Sqrt(3))
	}
	return list
}

// randomText returns bytes, most of which are letters.
func randomText(seed uint64, count int) []byte {
	data := make([]byte, count)
	for i, x := range normals(seed, count) {
		data[i] = byte(64 + 16*x)
	}
	return data
}
