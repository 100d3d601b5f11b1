package ref

// FeedForwardBackward is the gradient of [FeedForward] with the weights of a prefix. The steps are those of the layers
// 1 and 3.
//
//	x, dy [Rows, C]
func FeedForwardBackward(x, dy []float32, rows, c int, p Params, prefix string) Gradients {
	return plainFeedForwardBackward(convert[float64](x), convert[float64](dy), rows, c, p, prefix)
}

// FeedForwardBackward32 is [FeedForwardBackward] in plain float32.
func FeedForwardBackward32(x, dy []float32, rows, c int, p Params, prefix string) GradientsOf[float32] {
	return plainFeedForwardBackward(x, dy, rows, c, p, prefix)
}

func plainFeedForwardBackward[T Float](x, dy []T, rows, c int, p Params, prefix string) GradientsOf[T] {
	return runBackward("FeedForward", p, prefix, func(m gradientModule[T]) ([]T, map[string][]T) {
		y, s := m.forwardFeedForward(x, tokenList[T]{b: 1, n: rows, k: rows}, c, nil)
		dx, _, _ := s.backward(dy)
		return onlyX(y, dx)
	})
}

// ConditionalRoutedFeedForwardInput is the input of [ConditionalRoutedFeedForwardBackward].
type ConditionalRoutedFeedForwardInput struct {
	X       []float32 // [B, N, C]
	Mask    []uint8   // [B, N] optional
	B, N, C int
	Router  RouterConfig
}

// ConditionalRoutedFeedForwardBackward is the gradient of [ConditionalRoutedFeedForward] with the weights of a prefix.
//
//	dy [B, N, C]
//	heavy branch: dy at the selected rows, times the score; score: dy . heavy output; light branch: dy
//
// Steps: those of the layers 1 and 3 of light_ff and heavy_ff, router.scores, router.logits.
func ConditionalRoutedFeedForwardBackward(in ConditionalRoutedFeedForwardInput, dy []float32, p Params, prefix string) Gradients {
	return conditionalRoutedFeedForwardBackward[float64](in, dy, p, prefix)
}

// ConditionalRoutedFeedForwardBackward32 is [ConditionalRoutedFeedForwardBackward] in plain float32.
func ConditionalRoutedFeedForwardBackward32(in ConditionalRoutedFeedForwardInput, dy []float32, p Params,
	prefix string) GradientsOf[float32] {
	return conditionalRoutedFeedForwardBackward[float32](in, dy, p, prefix)
}

func conditionalRoutedFeedForwardBackward[T Float](in ConditionalRoutedFeedForwardInput, dy []float32, p Params,
	prefix string) GradientsOf[T] {
	return runBackward("ConditionalRoutedFeedForward", p, prefix, func(m gradientModule[T]) ([]T, map[string][]T) {
		y, s := m.forwardRoutedFeedForward(convert[T](in.X), in.Mask, in.B, in.N, in.C, in.Router)
		return onlyX(y, s.backward(convert[T](dy)))
	})
}

// feedForwardState is a feedforward layer after the forward pass.
type feedForwardState[T Float] struct {
	m             gradientModule[T]
	first, second LinearArgsOf[T]
}

// forwardFeedForward is a feedforward layer of the rows of a list. Its results, times their scores, are added to base.
func (m gradientModule[T]) forwardFeedForward(x []T, l tokenList[T], c int, base []T) ([]T, feedForwardState[T]) {
	hidden := len(m.params[m.prefix+"1.bias"])
	s := feedForwardState[T]{m: m, first: m.linearArgs("1", x, l.k, c, hidden, true)}
	s.first.Batch, s.first.InRows, s.first.Gather, s.first.Valid = l.b, l.n, l.indices, l.valid
	s.first.Gamma, s.first.GELU = m.weight("0.gamma", c), true
	s.second = m.linearArgs("3", linear(s.first), l.k, hidden, c, true)
	s.second.Batch, s.second.OutRows, s.second.Scatter, s.second.Valid = l.b, l.n, l.indices, l.valid
	s.second.Score, s.second.Residual, s.second.Base = l.scores, base, base
	return linear(s.second), s
}

func (s feedForwardState[T]) backward(dy []T) (dx, dscores, dbase []T) {
	second := s.m.linearBackward("3", s.second, dy)
	first := s.m.linearBackward("1", s.first, second.X)
	s.m.add("0.gamma", 0, first.Gamma)
	if s.second.Base != nil {
		dbase = addTensors(second.Residual, second.Base)
	}
	return first.X, second.Score, dbase
}

// routedFeedForwardState is a routed feedforward layer after the forward pass.
type routedFeedForwardState[T Float] struct {
	router       routerState[T]
	light, heavy feedForwardState[T]
}

func (m gradientModule[T]) forwardRoutedFeedForward(x []T, mask []uint8, b, n, c int,
	router RouterConfig) ([]T, routedFeedForwardState[T]) {
	s := routedFeedForwardState[T]{router: m.forwardRouter("router", router, x, mask, b, n, c, 1, nil)}
	y, light := m.child("light_ff.").forwardFeedForward(x, tokenList[T]{b: 1, n: b * n, k: b * n}, c, nil)
	s.light = light
	y, s.heavy = m.child("heavy_ff.").forwardFeedForward(x, s.router.list(), c, y)
	return y, s
}

func (s routedFeedForwardState[T]) backward(dy []T) []T {
	heavy, dscores, dlight := s.heavy.backward(dy)
	light, _, _ := s.light.backward(dlight)
	return addTensors(addTensors(light, heavy), s.router.backward(dscores))
}
