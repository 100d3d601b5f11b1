package ref

import "fmt"

// FeedForwardParams are the weights of a feedforward layer. The comments give the names in a PyTorch state dict.
type FeedForwardParams struct {
	Gamma       []float32 // 0.gamma  [C]
	W1          []float32 // 1.weight [Hidden, C]
	B1          []float32 // 1.bias   [Hidden]
	W2          []float32 // 3.weight [C, Hidden]
	B2          []float32 // 3.bias   [C]
	Dim, Hidden int       // C and int(C * mult)
}

// FeedForward is RMSNorm, Linear, exact GELU, Linear.
//
//	x [Rows, C]    y [Rows, C]
//	y = gelu(rmsnorm(x) w1^T + b1) w2^T + b2
func FeedForward(x []float32, rows int, p FeedForwardParams) []float64 {
	return feedForward(convert[float64](x), rows, p)
}

// FeedForward32 is [FeedForward] in plain float32.
func FeedForward32(x []float32, rows int, p FeedForwardParams) []float32 {
	return feedForward(x, rows, p)
}

func feedForward[T Float](x []T, rows int, p FeedForwardParams) []T {
	h := linear(LinearArgsOf[T]{
		X: x, W: convert[T](p.W1), Bias: convert[T](p.B1), Gamma: convert[T](p.Gamma), GELU: true,
		Rows: rows, In: p.Dim, Out: p.Hidden,
	})
	return linear(LinearArgsOf[T]{
		X: h, W: convert[T](p.W2), Bias: convert[T](p.B2), Rows: rows, In: p.Hidden, Out: p.Dim,
	})
}

// ConditionalRoutedFeedForwardArgs are the arguments of [ConditionalRoutedFeedForward].
type ConditionalRoutedFeedForwardArgs struct {
	Router       RouterArgs // with x, mask and routing token; R must be 1
	Light, Heavy FeedForwardParams
}

// ConditionalRoutedFeedForward applies a light feedforward layer to all tokens, and a heavy one to the tokens that the
// router selects.
//
//	x [B, N, C]    mask [B, N] optional    y [B, N, C]
//	y = light(x) + scatter(heavy(routed x) * score); not routed: y = light(x) + heavy(x) * mask
func ConditionalRoutedFeedForward(a ConditionalRoutedFeedForwardArgs) []float64 {
	y, _ := conditionalRoutedFeedForward(convertRouter[float64](a.Router), a.Light, a.Heavy)
	return y
}

// ConditionalRoutedFeedForward32 is [ConditionalRoutedFeedForward] in plain float32.
func ConditionalRoutedFeedForward32(a ConditionalRoutedFeedForwardArgs) []float32 {
	y, _ := conditionalRoutedFeedForward(a.Router, a.Light, a.Heavy)
	return y
}

func conditionalRoutedFeedForward[T Float](r RouterArgsOf[T], light, heavy FeedForwardParams) ([]T, RoutingOf[T]) {
	if r.R != 1 {
		panic(fmt.Sprintf("ref: ConditionalRoutedFeedForward: router has %d routes, want 1", r.R))
	}
	y := feedForward(r.X, r.B*r.N, light)
	route := coordinateDescentRouter(r)
	selected := r.X
	if route.Routed {
		// route.Tokens is not used, because it is multiplied by the score. Here the score multiplies the output.
		selected = gatherRows(r.X, route.Indices, nil, route.Valid, r.B, r.N, r.C, route.K)
	}
	selected = feedForward(selected, r.B*route.K, heavy)
	for slot := range r.B * route.K {
		if route.Valid[slot] == 0 {
			continue
		}
		token := slot
		if route.Routed {
			token = slot/route.K*r.N + int(route.Indices[slot])
		}
		for i, v := range selected[slot*r.C : (slot+1)*r.C] {
			y[token*r.C+i] += v * route.Scores[slot]
		}
	}
	return y, route
}
