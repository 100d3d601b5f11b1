package ref

// ConditionalRoutedImageAttentionBackward is the gradient of [ConditionalRoutedImageAttention]. Steps: those of
// [ConditionalRoutedAttentionBackward]; light_attn.qkv in image order, with a route scope "window" the others in patch
// order.
//
//	dy, dx: the shape of x
func ConditionalRoutedImageAttentionBackward(x []float32, mask []uint8, dy []float32, b, height, width int,
	c ImageAttentionConfig, p Params, prefix string) Gradients {
	return imageBackward(convert[float64](x), mask, convert[float64](dy), b, height, width, c, p, prefix)
}

// ConditionalRoutedImageAttentionBackward32 is [ConditionalRoutedImageAttentionBackward] in plain float32.
func ConditionalRoutedImageAttentionBackward32(x []float32, mask []uint8, dy []float32, b, height, width int,
	c ImageAttentionConfig, p Params, prefix string) GradientsOf[float32] {
	return imageBackward(x, mask, dy, b, height, width, c, p, prefix)
}

func imageBackward[T Float](x []T, mask []uint8, dy []T, b, height, width int, c ImageAttentionConfig, p Params,
	prefix string) GradientsOf[T] {
	return runBackward("ConditionalRoutedImageAttention", p, prefix, func(m gradientModule[T]) ([]T, map[string][]T) {
		y, s := m.forwardImage(x, mask, b, height, width, c)
		return onlyX(y, s.backward(dy))
	})
}

// imageState is an image attention after the forward pass.
type imageState[T Float] struct {
	c                ImageAttentionConfig
	b, height, width int
	order            []int // of pixels in the heavy branch; nil: image order
	light            lightAttentionState[T]
	heavy            attentionState[T]
}

func (m gradientModule[T]) forwardImage(x []T, mask []uint8, b, height, width int, c ImageAttentionConfig) ([]T, imageState[T]) {
	s := imageState[T]{c: c, b: b, height: height, width: width}
	if c.ChannelFirst {
		x = transpose(x, b, c.Dim, height*width)
	}
	y, light := m.child("light_attn.").forwardPatches(x, b, height, width, c.AttentionConfig)
	s.light = light
	items, n := b, height*width
	if c.RouteScope == "window" {
		s.order = patchOrder(height, width, c.LightWindowSize)
		items, n = b*n/(c.LightWindowSize*c.LightWindowSize), c.LightWindowSize*c.LightWindowSize
		x = permuteTokens(x, b, s.order, c.Dim)
		if mask != nil {
			mask = permuteTokens(mask, b, s.order, 1)
		}
	}
	c.HasLightAttn = false
	heavy, state := m.forwardAttention(x, mask, items, n, c.AttentionConfig)
	s.heavy = state
	if s.order != nil {
		heavy = permuteTokens(heavy, b, inversePermutation(s.order), c.Dim)
	}
	y = addTensors(y, heavy)
	if c.ChannelFirst {
		y = transpose(y, b, height*width, c.Dim)
	}
	return y, s
}

func (s imageState[T]) backward(dy []T) []T {
	if s.c.ChannelFirst {
		dy = transpose(dy, s.b, s.c.Dim, s.height*s.width)
	}
	dx := s.light.backward(dy)
	if s.order == nil {
		dx = addTensors(dx, s.heavy.backward(dy))
	} else {
		heavy := s.heavy.backward(permuteTokens(dy, s.b, s.order, s.c.Dim))
		dx = addTensors(dx, permuteTokens(heavy, s.b, inversePermutation(s.order), s.c.Dim))
	}
	if s.c.ChannelFirst {
		dx = transpose(dx, s.b, s.height*s.width, s.c.Dim)
	}
	return dx
}
