package ref

// ImageAttentionConfig is the config of [ConditionalRoutedImageAttention].
type ImageAttentionConfig struct {
	AttentionConfig        // LightWindowSize is the side of a patch; HasLightAttn and RotaryEmb are not used
	ChannelFirst    bool   `json:"channel_first"`
	RouteScope      string `json:"route_scope"` // "window": each patch routes on its own; "image" or empty: the whole image does
}

// ConditionalRoutedImageAttention is light attention inside each patch and
// heavy attention of chosen pixels of the image, or of the patch.
//
//	x [B, H, W, C], channel first [B, C, H, W]    y of the same shape
//
// Pixels count row by row in the image, or in the patch. The routes hold a row
// for each image, or for each patch, patches row by row.
func ConditionalRoutedImageAttention(x []float32, b, height, width int, c ImageAttentionConfig, p Params, prefix string) Result {
	return image(convert[float64](x), b, height, width, c, p, prefix)
}

// ConditionalRoutedImageAttention32 is [ConditionalRoutedImageAttention] in plain float32.
func ConditionalRoutedImageAttention32(x []float32, b, height, width int, c ImageAttentionConfig, p Params, prefix string) ResultOf[float32] {
	return image(x, b, height, width, c, p, prefix)
}

func image[T Float](x []T, b, height, width int, c ImageAttentionConfig, p Params, prefix string) ResultOf[T] {
	return runModule("ConditionalRoutedImageAttention", p, prefix, func(m module[T]) []T { return m.image(x, b, height, width, c) })
}

func (m module[T]) image(x []T, b, height, width int, c ImageAttentionConfig) []T {
	checkLen(m.name, "x", len(x), b*height*width*c.Dim)
	side := c.LightWindowSize
	checkLen(m.name, "rows that patches leave over", height%side+width%side, 0)
	if c.ChannelFirst {
		x = transpose(x, b, c.Dim, height*width)
	}
	// From here on a pixel is a token, and patches is its order by patches.
	patches, pixels := patchOrder(height, width, side), side*side
	n := height * width / pixels
	cut := permuteTokens(x, b, patches, c.Dim)
	light := m.child("light_attn.")
	y := light.attend(light.rmsNorm("norm", cut, b*n*pixels, c.Dim), nil, b*n, pixels, c.AttentionConfig,
		func(int) (lo, hi int) { return 0, pixels })
	c.HasLightAttn = false
	if c.RouteScope == "window" {
		y = addTensors(y, m.attention(cut, nil, b*n, pixels, c.AttentionConfig))
		y = permuteTokens(y, b, inversePermutation(patches), c.Dim)
	} else {
		y = addTensors(permuteTokens(y, b, inversePermutation(patches), c.Dim), m.attention(x, nil, b, height*width, c.AttentionConfig))
	}
	if c.ChannelFirst {
		y = transpose(y, b, height*width, c.Dim)
	}
	return y
}

// exchange turns [B, rows, columns] into [B, columns, rows].
func transpose[T Float](x []T, b, rows, columns int) []T {
	y := make([]T, len(x))
	for i, v := range x {
		item, r, col := i/(rows*columns), i/columns%rows, i%columns
		y[(item*columns+col)*rows+r] = v
	}
	return y
}

// patchOrder returns the pixels of an image, patch by patch, in each row by row.
func patchOrder(height, width, side int) []int {
	var order []int
	for row := 0; row < height; row += side {
		for column := 0; column < width; column += side {
			for i := range side * side {
				order = append(order, (row+i/side)*width+column+i%side)
			}
		}
	}
	return order
}

// inverse returns the order that undoes another.
func inversePermutation(order []int) []int {
	back := make([]int, len(order))
	for i, from := range order {
		back[from] = i
	}
	return back
}

// reorder returns the tokens of each item in the given order.
func permuteTokens[T Float](x []T, b int, order []int, c int) []T {
	y, n := make([]T, len(x)), len(order)
	for i := range b * n {
		from := i/n*n + order[i%n]
		copy(y[i*c:(i+1)*c], x[from*c:(from+1)*c])
	}
	return y
}
