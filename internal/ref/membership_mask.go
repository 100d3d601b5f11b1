package ref

// MembershipMask marks the rows that valid slots select, and the first rows of every item.
//
//	indices, valid [B, K]    y [B, N]: 1 or 0
func MembershipMask(indices []int32, valid []uint8, b, n, k, first int) []uint32 {
	const op = "MembershipMask"
	checkLen(op, "indices", len(indices), b*k)
	checkLen(op, "valid", len(valid), b*k)
	y := make([]uint32, b*n)
	for item := range b {
		for i := range first {
			y[item*n+i] = 1
		}
		for slot := item * k; slot < (item+1)*k; slot++ {
			if valid[slot] != 0 {
				checkIndex(op, "indices", indices[slot], n)
				y[item*n+int(indices[slot])] = 1
			}
		}
	}
	return y
}
