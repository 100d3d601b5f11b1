package ref

// Add is the sum of two tensors.
func Add(a, b []float32) []float64 { return add(convert[float64](a), convert[float64](b)) }

// Add32 is [Add] in plain float32.
func Add32(a, b []float32) []float32 { return add(a, b) }

func add[T Float](a, b []T) []T {
	checkLen("Add", "b", len(b), len(a))
	y := make([]T, len(a))
	for i := range y {
		y[i] = a[i] + b[i]
	}
	return y
}
