package ref

import (
	"fmt"
	"slices"
)

// Params are weights under the names of a PyTorch state dict, row-major.
type Params map[string][]float32

// Result is what a module twin computed, in float64.
type Result = ResultOf[float64]

// ResultOf is a [Result] in one precision.
type ResultOf[T Float] struct {
	Y []T
	// Routes holds what each router decided, by its name with the module's
	// prefix: "layers.0.conditional_attn.kv_router".
	Routes map[string]RoutingOf[T]
}

// module is the place of a module twin: its weights, and where its routers
// leave what they decided.
type module[T Float] struct {
	name   string // for messages
	params Params
	prefix string
	routes map[string]RoutingOf[T]
}

// within runs a module twin under a prefix.
func runModule[T Float](name string, p Params, prefix string, f func(m module[T]) []T) ResultOf[T] {
	m := module[T]{name, p, prefix, map[string]RoutingOf[T]{}}
	return ResultOf[T]{f(m), m.routes}
}

// under is the place of a module inside this one.
func (m module[T]) child(prefix string) module[T] {
	m.prefix += prefix
	return m
}

// raw returns a weight of the wanted size, as it is stored.
func (m module[T]) storedWeight(name string, size int) []float32 {
	w, ok := m.params[m.prefix+name]
	if !ok {
		panic(fmt.Sprintf("ref: %s: there is no weight %q", m.name, m.prefix+name))
	}
	checkLen(m.name, m.prefix+name, len(w), size)
	return w
}

// weight returns a weight in the precision of the computation.
func (m module[T]) weight(name string, size int) []T { return convert[T](m.storedWeight(name, size)) }

// linear multiplies rows by a weight without bias.
func (m module[T]) linear(name string, x []T, rows, in, out int) []T {
	return linear(LinearArgsOf[T]{X: x, W: m.weight(name+".weight", out*in), Rows: rows, In: in, Out: out})
}

// biased multiplies rows by a weight and adds its bias.
func (m module[T]) linearBias(name string, x []T, rows, in, out int) []T {
	return linear(LinearArgsOf[T]{
		X: x, W: m.weight(name+".weight", out*in), Bias: m.weight(name+".bias", out), Rows: rows, In: in, Out: out,
	})
}

// rmsNorm normalises rows by a gamma.
func (m module[T]) rmsNorm(name string, x []T, rows, c int) []T {
	return rmsNorm(x, m.weight(name+".gamma", c), rows, c)
}

// centred is LayerNorm: rows less their mean, over their standard deviation.
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

// feedForward is RMSNorm, Linear, GELU, Linear; its width is that of its weights.
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

// routedFeedForward is [ConditionalRoutedFeedForward] under the module's prefix.
func (m module[T]) routedFeedForward(x []T, mask []uint8, b, n, c int, router RouterConfig) []T {
	y, route := conditionalRoutedFeedForward(RouterArgsOf[T]{
		RouterConfig: router, X: x, Mask: mask, Tokens: m.weight("router.routing_token", c), B: b, N: n, C: c, R: 1,
	}, m.child("light_ff.").feedForwardParams(c), m.child("heavy_ff.").feedForwardParams(c))
	m.routes[m.prefix+"router"] = route
	return y
}

// route runs a router with several routes over rows of tokens.
func (m module[T]) route(name string, c RouterConfig, x []T, mask []uint8, b, n, dim, routes int) RoutingOf[T] {
	r := coordinateDescentRouter(RouterArgsOf[T]{
		RouterConfig: c, X: x, Mask: mask, Tokens: m.weight(name+".routing_token", routes*dim), B: b, N: n, C: dim, R: routes,
	})
	m.routes[m.prefix+name] = r
	return r
}

// embed returns the rows of a table that ids name.
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

// sum adds tensors of one shape.
func addTensors[T Float](x, y []T) []T {
	checkLen("sum", "y", len(y), len(x))
	z := slices.Clone(x)
	for i, v := range y {
		z[i] += v
	}
	return z
}
