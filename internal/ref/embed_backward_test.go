package ref

import "testing"

func TestEmbedBackward(t *testing.T) {
	ids := []int32{2, 0, 2, 5, -1, 2, 1} // 5 and -1 are out of range
	table, dy := coarse(1, 5*3, 1), normal(2, 7*3, 1)
	loss := func() float64 {
		y, _ := Embed(ids, table, 5, 3)
		return lossOf(y, dy)
	}
	checkGradient(t, "table", table, loss, EmbedBackward(ids, dy, 5, 3), EmbedBackward32(ids, dy, 5, 3))
	assertPanics(t, "ref: EmbedBackward: len(dy) is 3, want 21", func() { EmbedBackward(ids, dy[:3], 5, 3) })
}
