package ref

import (
	"fmt"
	"slices"
)

// Params are row-major weights by PyTorch state-dict name.
type Params map[string][]float32

// Result is the result of a module in float64.
type Result = ResultOf[float64]

// ResultOf is a [Result] in one precision.
type ResultOf[T Float] struct {
	Y []T
	// Routings holds the result of each router by its full name, e.g. "layers.0.conditional_attn.kv_router".
	Routings map[string]RoutingOf[T]
}

// module is the state of a module that runs: its weights, and the results of its routers.
type module[T Float] struct {
	name   string // for panics
	params Params
	prefix string // of the names of its weights
	routes map[string]RoutingOf[T]
}

// runModule runs f with the weights of a prefix.
func runModule[T Float](name string, p Params, prefix string, f func(m module[T]) []T) ResultOf[T] {
	m := module[T]{name, p, prefix, map[string]RoutingOf[T]{}}
	return ResultOf[T]{f(m), m.routes}
}

// child returns a submodule. prefix is relative to this module.
func (m module[T]) child(prefix string) module[T] {
	m.prefix += prefix
	return m
}

// storedWeight returns a weight in float32. It panics if the weight is missing or has another size.
func (m module[T]) storedWeight(name string, size int) []float32 {
	w, ok := m.params[m.prefix+name]
	if !ok {
		panic(fmt.Sprintf("ref: %s: weight %q is missing", m.name, m.prefix+name))
	}
	checkLen(m.name, m.prefix+name, len(w), size)
	return w
}

// weight returns a weight in precision T.
func (m module[T]) weight(name string, size int) []T { return convert[T](m.storedWeight(name, size)) }

// linear is a linear layer without bias.
func (m module[T]) linear(name string, x []T, rows, in, out int) []T {
	return linear(LinearArgsOf[T]{X: x, W: m.weight(name+".weight", out*in), Rows: rows, In: in, Out: out})
}

// linearBias is a linear layer with bias.
func (m module[T]) linearBias(name string, x []T, rows, in, out int) []T {
	return linear(LinearArgsOf[T]{
		X: x, W: m.weight(name+".weight", out*in), Bias: m.weight(name+".bias", out), Rows: rows, In: in, Out: out,
	})
}

// rmsNorm is [RMSNorm].
func (m module[T]) rmsNorm(name string, x []T, rows, c int) []T {
	return rmsNorm(x, m.weight(name+".gamma", c), rows, c)
}

// layerNorm is [LayerNorm], implemented independently of it.
func (m module[T]) layerNorm(name string, x []T, rows, c int) []T {
	const eps = 1e-5
	w, b := m.weight(name+".weight", c), m.weight(name+".bias", c)
	y := make([]T, rows*c)
	parallel(rows, func(lo, hi int) {
		for r := lo; r < hi; r++ {
			row := x[r*c : (r+1)*c]
			var mean, variance T
			for _, v := range row {
				mean += v / T(c)
			}
			for _, v := range row {
				variance += (v - mean) * (v - mean) / T(c)
			}
			for i, v := range row {
				y[r*c+i] = (v-mean)/sqrtT(variance+eps)*w[i] + b[i]
			}
		}
	})
	return y
}

// feedForward is [FeedForward]. The number of hidden units is that of the weights.
func (m module[T]) feedForward(x []T, rows, c int) []T {
	return feedForward(x, rows, m.feedForwardParams(c))
}

func (m module[T]) feedForwardParams(c int) FeedForwardParams {
	hidden := len(m.params[m.prefix+"1.bias"])
	return FeedForwardParams{
		Gamma: m.storedWeight("0.gamma", c), W1: m.storedWeight("1.weight", hidden*c), B1: m.storedWeight("1.bias", hidden),
		W2: m.storedWeight("3.weight", c*hidden), B2: m.storedWeight("3.bias", c), Dim: c, Hidden: hidden,
	}
}

// routedFeedForward is [ConditionalRoutedFeedForward] with the weights of this module.
func (m module[T]) routedFeedForward(x []T, mask []uint8, b, n, c int, router RouterConfig) []T {
	y, route := conditionalRoutedFeedForward(RouterArgsOf[T]{
		RouterConfig: router, X: x, Mask: mask, Tokens: m.weight("router.routing_token", c), B: b, N: n, C: c, R: 1,
	}, m.child("light_ff.").feedForwardParams(c), m.child("heavy_ff.").feedForwardParams(c))
	m.routes[m.prefix+"router"] = route
	return y
}

// route runs a router and stores its result in routes.
func (m module[T]) route(name string, c RouterConfig, x []T, mask []uint8, b, n, dim, routes int) RoutingOf[T] {
	return m.routeBy(name, c, x, mask, b, n, dim, routes, nil)
}

// routeBy is route, by random logits [B, R, N] unless they are nil.
func (m module[T]) routeBy(name string, c RouterConfig, x []T, mask []uint8, b, n, dim, routes int, random []T) RoutingOf[T] {
	r := coordinateDescentRouter(RouterArgsOf[T]{
		RouterConfig: c, X: x, Mask: mask, Tokens: m.weight(name+".routing_token", routes*dim), B: b, N: n, C: dim, R: routes, RandomLogits: random,
	})
	m.routes[m.prefix+name] = r
	return r
}

// embed returns the rows of an embedding table selected by ids.
func (m module[T]) embed(name string, ids []int32, c int) []T {
	table := m.params[m.prefix+name+".weight"]
	w := m.weight(name+".weight", len(table)/c*c)
	var x []T
	for _, id := range ids {
		checkIndex(m.name, "ids", id, len(table)/c)
		x = append(x, w[int(id)*c:(int(id)+1)*c]...)
	}
	return x
}

// addTensors returns x + y.
func addTensors[T Float](x, y []T) []T {
	checkLen("addTensors", "y", len(y), len(x))
	z := slices.Clone(x)
	for i, v := range y {
		z[i] += v
	}
	return z
}
