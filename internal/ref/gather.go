package ref

// GatherArgs are the arguments of [Gather].
type GatherArgs struct {
	X       []float32 // [B, N, C]
	Indices []int32   // [B, K] row of X in the same batch item
	Score   []float32 // [B, K] factor; nil: 1
	Valid   []uint8   // [B, K] routed mask, 0 = empty slot; nil: all valid
	B, N    int
	C, K    int
}

// Gather copies rows by index. With several routes K counts the slots of all routes.
//
//	x [B, N, C]    indices [B, K]    y [B, K, C]
//	y[b, k] = x[b, indices[b, k]] * score[b, k]; an empty slot gives zeros
func Gather(a GatherArgs) []float64 { return gather[float64](a) }

// Gather32 is [Gather] in plain float32.
func Gather32(a GatherArgs) []float32 { return gather[float32](a) }

func gather[T Float](a GatherArgs) []T {
	return gatherRows(convert[T](a.X), a.Indices, convert[T](a.Score), a.Valid, a.B, a.N, a.C, a.K)
}

func gatherRows[T Float](x []T, indices []int32, score []T, valid []uint8, b, n, c, k int) []T {
	const op = "Gather"
	checkLen(op, "x", len(x), b*n*c)
	checkLen(op, "indices", len(indices), b*k)
	checkOptional(op, "score", score, b*k)
	checkOptional(op, "valid", valid, b*k)
	y := make([]T, b*k*c)
	for slot, index := range indices {
		if isSkipped(score, valid, slot) {
			continue
		}
		checkIndex(op, "indices", index, n)
		source := (slot/k*n + int(index)) * c
		for i, v := range x[source : source+c] {
			if score != nil {
				v *= score[slot]
			}
			y[slot*c+i] = v
		}
	}
	return y
}
