package ref

// AdamWArgs are the inputs of [AdamW]. All slices have the same length.
type AdamWArgs struct {
	P, G, M, V               []float32
	Beta1, Beta2, Eps, Decay float64
	Decayed                  int     // elements that decay, from the start
	Factor                   float64 // of G
	Rate                     float64
	Correction1, Correction2 float64 // 1 - beta^t
}

// AdamW is a step of the optimiser: the new p, m and v.
//
//	g' = g * factor    m' = beta1 * m + (1 - beta1) * g'    v' = beta2 * v + (1 - beta2) * g'^2
//	p' = p * (1 - rate * decay) - rate * (m' / correction1) / (sqrt(v' / correction2) + eps)
func AdamW(a AdamWArgs) (p, m, v []float64) { return adamW[float64](a) }

// AdamW32 is [AdamW] in plain float32.
func AdamW32(a AdamWArgs) (p, m, v []float32) { return adamW[float32](a) }

func adamW[T Float](a AdamWArgs) (p, m, v []T) {
	n := len(a.P)
	checkLen("AdamW", "g", len(a.G), n)
	checkLen("AdamW", "m", len(a.M), n)
	checkLen("AdamW", "v", len(a.V), n)
	p, m, v = make([]T, n), make([]T, n), make([]T, n)
	beta1, beta2, rest1, rest2 := T(a.Beta1), T(a.Beta2), T(1-a.Beta1), T(1-a.Beta2)
	for i := range n {
		g := T(a.G[i]) * T(a.Factor)
		m[i] = beta1*T(a.M[i]) + rest1*g
		v[i] = beta2*T(a.V[i]) + rest2*g*g
		p[i] = T(a.P[i])
		if i < a.Decayed {
			p[i] *= 1 - T(a.Rate*a.Decay)
		}
		p[i] -= T(a.Rate) * (m[i] / T(a.Correction1)) / (sqrtT(v[i]/T(a.Correction2)) + T(a.Eps))
	}
	return p, m, v
}
