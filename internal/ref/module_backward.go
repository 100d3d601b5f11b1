package ref

import (
	"slices"
	"strings"
)

// Gradients is the result of the backward pass of a module in float64.
type Gradients = GradientsOf[float64]

// GradientsOf is a [Gradients] in one precision.
//
// Steps are for comparisons piece by piece. Their names begin with the prefix of the layer. For a linear layer L,
// L.product is the gradient of its matrix product, and L.input that of its operand after gather and norm. Other names
// are listed at the function of the layer.
type GradientsOf[T Float] struct {
	Y      []T            // result of the forward pass
	Inputs map[string][]T // by the name of the argument: x, context
	Params map[string][]T // by PyTorch name; 0 for a weight that the call does not use
	Steps  map[string][]T // of intermediate results
}

// gradientModule is a module whose forward pass keeps what its backward pass needs, and its gradients so far. A layer
// has a function that runs it forward, and returns its result and its state: the arguments of its kernels. The method
// backward of the state adds the gradients of the weights, and returns those of the inputs.
type gradientModule[T Float] struct {
	module[T]
	grads GradientsOf[T]
}

// runBackward runs a module forward and backward. f returns the result and the gradients of the inputs.
func runBackward[T Float](name string, p Params, prefix string, f func(m gradientModule[T]) (y []T,
	inputs map[string][]T)) GradientsOf[T] {
	m := gradientModule[T]{module[T]{name, p, prefix, map[string]RoutingOf[T]{}},
		GradientsOf[T]{Params: map[string][]T{}, Steps: map[string][]T{}}}
	for weight, w := range p {
		if strings.HasPrefix(weight, prefix) {
			m.grads.Params[weight] = make([]T, len(w))
		}
	}
	g := m.grads
	g.Y, g.Inputs = f(m)
	return g
}

// onlyX is the gradients of the inputs of a module whose only input is x.
func onlyX[T Float](y, dx []T) ([]T, map[string][]T) { return y, map[string][]T{"x": dx} }

// child returns a submodule. prefix is relative to this module.
func (m gradientModule[T]) child(prefix string) gradientModule[T] {
	m.prefix += prefix
	return m
}

// add adds to the gradient of a weight, beginning with element first.
func (m gradientModule[T]) add(name string, first int, g []T) {
	addScaled(m.grads.Params[m.prefix+name][first:first+len(g)], g, 1)
}

// keep stores the gradient of an intermediate result.
func (m gradientModule[T]) keep(name string, g []T) { m.grads.Steps[m.prefix+name] = slices.Clone(g) }

// linearArgs returns the arguments of a linear layer over all rows of x.
func (m gradientModule[T]) linearArgs(name string, x []T, rows, in, out int, bias bool) LinearArgsOf[T] {
	a := LinearArgsOf[T]{X: x, W: m.weight(name+".weight", out*in), Rows: rows, In: in, Out: out}
	if bias {
		a.Bias = m.weight(name+".bias", out)
	}
	return a
}

// linearBackward is [LinearBackward]. It stores the gradients of weight, bias, product and input.
func (m gradientModule[T]) linearBackward(name string, a LinearArgsOf[T], dy []T) LinearGradsOf[T] {
	g := linearBackward(a, dy)
	m.add(name+".weight", 0, g.W)
	if a.Bias != nil {
		m.add(name+".bias", 0, g.Bias)
	}
	m.keep(name+".product", g.Product)
	m.keep(name+".input", g.Normalised)
	return g
}

// layerNormBackward is [LayerNormBackward]. It stores the gradients of weight and bias.
func (m gradientModule[T]) layerNormBackward(name string, x, dy []T, rows, c int) []T {
	g := layerNormBackward(x, m.weight(name+".weight", c), dy, rows, c)
	m.add(name+".weight", 0, g.Weight)
	m.add(name+".bias", 0, g.Bias)
	return g.X
}

// rmsNormBackward is [RMSNormBackward]. It stores the gradient of gamma.
func (m gradientModule[T]) rmsNormBackward(name string, x, dy []T, rows, c int) []T {
	dx, dgamma := rmsNormBackward(x, m.weight(name+".gamma", c), dy, rows, c)
	m.add(name+".gamma", 0, dgamma)
	return dx
}

// routerState is a router after the forward pass.
type routerState[T Float] struct {
	m       gradientModule[T]
	name    string
	args    RouterArgsOf[T]
	routing RoutingOf[T]
}

// forwardRouter runs a router, by random logits unless they are nil.
func (m gradientModule[T]) forwardRouter(name string, c RouterConfig, x []T, mask []uint8, b, n, dim, routes int,
	random []T) routerState[T] {
	return routerState[T]{m, name, RouterArgsOf[T]{
		RouterConfig: c, X: x, Mask: mask, Tokens: m.weight(name+".routing_token", routes*dim), B: b, N: n, C: dim,
		R: routes, RandomLogits: random,
	}, m.routeBy(name, c, x, mask, b, n, dim, routes, random)}
}

func (s routerState[T]) list() tokenList[T] { return s.routing.list(s.args.B, s.args.N, s.args.R) }

// backward takes the gradient of the scores and returns that of x. Steps: NAME.scores, NAME.logits.
func (s routerState[T]) backward(dscores []T) []T {
	return s.m.logitsBackward(s.name, s.args.logitsArgs(), dscores, routerScoresBackward(s.args, s.routing, dscores))
}

// logitsBackward returns the gradient of the tokens of a router, whose logits have the gradient dlogits; nil: 0.
func (m gradientModule[T]) logitsBackward(name string, a RouterLogitsArgsOf[T], dscores, dlogits []T) []T {
	m.keep(name+".scores", dscores)
	if dlogits == nil {
		return make([]T, len(a.X))
	}
	m.keep(name+".logits", dlogits)
	dx, dtokens := routerLogitsBackward(a, dlogits)
	m.add(name+".routing_token", 0, dtokens)
	return dx
}
