package ref

// EmbedBackward is the gradient of [Embed].
//
//	ids [Rows]    dy [Rows, C]    dtable [V, C]
//	dtable[v] = sum of dy[r] over the rows with ids[r] = v, in the order of rows
//
// Rows whose id is out of range have no part in it.
func EmbedBackward(ids []int32, dy []float32, v, c int) []float64 {
	return embedBackward(ids, convert[float64](dy), v, c)
}

// EmbedBackward32 is [EmbedBackward] in plain float32.
func EmbedBackward32(ids []int32, dy []float32, v, c int) []float32 {
	return embedBackward(ids, dy, v, c)
}

func embedBackward[T Float](ids []int32, dy []T, v, c int) []T {
	checkLen("EmbedBackward", "dy", len(dy), len(ids)*c)
	dtable := make([]T, v*c)
	for r, id := range ids {
		if id >= 0 && int(id) < v {
			addScaled(dtable[int(id)*c:(int(id)+1)*c], dy[r*c:(r+1)*c], 1)
		}
	}
	return dtable
}
