package ref

// ScatterArgs are the arguments of [Scatter].
type ScatterArgs struct {
	Base    []float32 // [B, N, C] contents of y before; nil: zeros
	Row     []float32 // [C] added to the rows that no slot writes; nil: zeros
	Value   []float32 // [B, K, C]; nil if K is 0
	Indices []int32   // [B, K] row of y in the same batch item; each row at most once among valid slots
	Score   []float32 // [B, K] factor; nil: 1
	Valid   []uint8   // [B, K] routed mask, 0 = empty slot; nil: all valid
	Add     bool      // add to the row instead of replacing it
	B, N    int
	C, K    int
}

// Scatter writes rows by index.
//
//	base [B, N, C]    row [C]    value [B, K, C]    indices [B, K]    y [B, N, C]
//	y[b, indices[b, k]]  = value[b, k] * score[b, k]      (Add: base is added)
//	y[b, i]              = base[b, i] + row               where no slot writes row i
//
// An empty slot writes nothing.
func Scatter(a ScatterArgs) []float64 { return scatter[float64](a) }

// Scatter32 is [Scatter] in plain float32.
func Scatter32(a ScatterArgs) []float32 { return scatter[float32](a) }

func scatter[T Float](a ScatterArgs) []T {
	const op = "Scatter"
	checkOptional(op, "base", a.Base, a.B*a.N*a.C)
	checkOptional(op, "row", a.Row, a.C)
	checkLen(op, "value", len(a.Value), a.B*a.K*a.C)
	checkLen(op, "indices", len(a.Indices), a.B*a.K)
	checkOptional(op, "score", a.Score, a.B*a.K)
	checkOptional(op, "valid", a.Valid, a.B*a.K)
	score := convert[T](a.Score)
	y := make([]T, a.B*a.N*a.C)
	for i, v := range a.Base {
		y[i] = T(v)
	}
	written := make([]bool, a.B*a.N)
	for slot, index := range a.Indices {
		if isSkipped(score, a.Valid, slot) {
			continue
		}
		checkIndex(op, "indices", index, a.N)
		row := slot/a.K*a.N + int(index)
		written[row] = true
		dest := row * a.C
		for i, f := range a.Value[slot*a.C : (slot+1)*a.C] {
			v := T(f)
			if score != nil {
				v *= score[slot]
			}
			if a.Add {
				v += y[dest+i]
			}
			y[dest+i] = v
		}
	}
	for i := range y {
		if a.Row != nil && !written[i/a.C] {
			y[i] += T(a.Row[i%a.C])
		}
	}
	return y
}
