package ref

// Peak accumulates products of small matrices in independent chains with different initial values.
//
//	a [m, k]    first, second [k, n]    y [m, n]
//	c_i = i + pairs * (a first + a second), i = 0 .. chains - 1    y = c_0 - c_1 + c_2 - ...
func Peak[T Float](a, first, second []T, m, n, k, pairs, chains int) []T {
	const op = "Peak"
	checkLen(op, "a", len(a), m*k)
	checkLen(op, "first", len(first), k*n)
	checkLen(op, "second", len(second), k*n)
	y := make([]T, m*n)
	for i := range y {
		row, col := i/n, i%n
		for chain := range chains {
			c := T(chain)
			for range pairs {
				for _, b := range [][]T{first, second} {
					for j := range k {
						c += a[row*k+j] * b[j*n+col]
					}
				}
			}
			if chain%2 == 1 {
				c = -c
			}
			y[i] += c
		}
	}
	return y
}
