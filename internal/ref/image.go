package ref

// ImageAttentionConfig is the config of [ConditionalRoutedImageAttention].
type ImageAttentionConfig struct {
	AttentionConfig        // LightWindowSize is the side of a patch in pixels; HasLightAttn and RotaryEmb are ignored
	ChannelFirst    bool   `json:"channel_first"`
	RouteScope      string `json:"route_scope"` // "window": tokens are selected in each patch; "image" or empty: in the whole image
}

// ConditionalRoutedImageAttention is light attention within each patch plus heavy attention of selected pixels of the
// image or patch.
//
//	x [B, H, W, C], with ChannelFirst [B, C, H, W]    mask [B, H, W] optional    y has the shape of x
//
// Indices of pixels are row-major within the image, or within the patch. The routes have one row per image, or per
// patch in row-major order.
func ConditionalRoutedImageAttention(x []float32, mask []uint8, b, height, width int, c ImageAttentionConfig, p Params, prefix string) Result {
	return image(convert[float64](x), mask, b, height, width, c, p, prefix)
}

// ConditionalRoutedImageAttention32 is [ConditionalRoutedImageAttention] in plain float32.
func ConditionalRoutedImageAttention32(x []float32, mask []uint8, b, height, width int, c ImageAttentionConfig, p Params, prefix string) ResultOf[float32] {
	return image(x, mask, b, height, width, c, p, prefix)
}

func image[T Float](x []T, mask []uint8, b, height, width int, c ImageAttentionConfig, p Params, prefix string) ResultOf[T] {
	return runModule("ConditionalRoutedImageAttention", p, prefix, func(m module[T]) []T { return m.image(x, mask, b, height, width, c) })
}

func (m module[T]) image(x []T, mask []uint8, b, height, width int, c ImageAttentionConfig) []T {
	checkLen(m.name, "x", len(x), b*height*width*c.Dim)
	checkOptional(m.name, "mask", mask, b*height*width)
	side := c.LightWindowSize
	checkLen(m.name, "rows and columns outside patches", height%side+width%side, 0)
	if c.ChannelFirst {
		x = transpose(x, b, c.Dim, height*width)
	}
	// From here on pixels are tokens. order lists them patch by patch.
	order, pixels := patchOrder(height, width, side), side*side
	n := height * width / pixels
	byPatch := permuteTokens(x, b, order, c.Dim)
	light := m.child("light_attn.")
	y := light.attend(light.rmsNorm("norm", byPatch, b*n*pixels, c.Dim), nil, b*n, pixels, c.AttentionConfig,
		func(int) (lo, hi int) { return 0, pixels }, nil)
	c.HasLightAttn = false
	if c.RouteScope == "window" {
		var patchMask []uint8
		if mask != nil {
			patchMask = permuteTokens(mask, b, order, 1)
		}
		y = addTensors(y, m.attention(byPatch, patchMask, b*n, pixels, c.AttentionConfig))
		y = permuteTokens(y, b, inversePermutation(order), c.Dim)
	} else {
		y = addTensors(permuteTokens(y, b, inversePermutation(order), c.Dim), m.attention(x, mask, b, height*width, c.AttentionConfig))
	}
	if c.ChannelFirst {
		y = transpose(y, b, height*width, c.Dim)
	}
	return y
}

// transpose returns [B, columns, rows] of [B, rows, columns].
func transpose[T Float](x []T, b, rows, columns int) []T {
	y := make([]T, len(x))
	for i, v := range x {
		item, r, col := i/(rows*columns), i/columns%rows, i%columns
		y[(item*columns+col)*rows+r] = v
	}
	return y
}

// patchOrder lists the pixels of an image patch by patch. Patches, and pixels within a patch, are row-major.
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

// inversePermutation returns the inverse of a permutation.
func inversePermutation(order []int) []int {
	back := make([]int, len(order))
	for i, from := range order {
		back[from] = i
	}
	return back
}

// permuteTokens returns the tokens of each item in the given order.
func permuteTokens[T any](x []T, b int, order []int, c int) []T {
	y, n := make([]T, len(x)), len(order)
	for i := range b * n {
		from := i/n*n + order[i%n]
		copy(y[i*c:(i+1)*c], x[from*c:(from+1)*c])
	}
	return y
}
