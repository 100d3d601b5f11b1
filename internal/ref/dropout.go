package ref

// DropoutArgs are the arguments of [Dropout].
type DropoutArgs struct {
	X           []float32
	Seed        uint64
	Step, Layer uint32
	First       uint64 // number of the first element
	Rate        float64
}

// Dropout keeps element e if its random word times 2^-32 is at least the rate, and divides it by 1 - Rate; other elements
// are 0. The word of element e is word e%4 of [Philox] with the seed as key and the counter (Step, Layer, e/4). Applied to
// the gradient of the result, it is its own gradient.
func Dropout(a DropoutArgs) []float64 { return dropout(a, convert[float64](a.X)) }

// Dropout32 is [Dropout] in plain float32.
func Dropout32(a DropoutArgs) []float32 { return dropout(a, a.X) }

func dropout[T Float](a DropoutArgs, x []T) []T {
	y := make([]T, len(x))
	for i, v := range x {
		e := a.First + uint64(i)
		words := Philox([4]uint32{a.Step, a.Layer, uint32(e / 4), uint32(e / 4 >> 32)}, [2]uint32{uint32(a.Seed), uint32(a.Seed >> 32)})
		if float64(words[e%4])*0x1p-32 >= a.Rate {
			y[i] = v / T(1-a.Rate)
		}
	}
	return y
}
