package ref

// RotaryBackward is the gradient of [Rotary]: the rotation of dy by the negative angles. X of the arguments is dy.
//
//	dx[d]       =  dy[d] cos + dy[d + D/2] sin
//	dx[d + D/2] = -dy[d] sin + dy[d + D/2] cos
func RotaryBackward(a RotaryArgs) []float64 { return rotary(convertRotary[float64](a), -1) }

// RotaryBackward32 is [RotaryBackward] in plain float32, with the angles of [Rotary32].
func RotaryBackward32(a RotaryArgs) []float32 { return rotary(a, -1) }
