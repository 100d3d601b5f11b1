package ref

import "math"

// RoutedAttentionGrads are the gradients of [RoutedAttention].
type RoutedAttentionGrads = RoutedAttentionGradsOf[float64]

// RoutedAttentionGradsOf is [RoutedAttentionGrads] in one precision. Shapes are those of the arguments.
type RoutedAttentionGradsOf[T Float] struct {
	Q, KV, Null            []T
	KeyScores, QueryScores []T // nil where the argument is nil
}

// RoutedAttentionBackward is the gradient of [RoutedAttention]. dy [Lists, Queries, H, D].
//
// For a query q with score f, and its keys k_j, values v_j and scores f_j (1 where ScoreKeys or ScoreValues is off):
//
//	s_j = q . k_j / sqrt(D) * f_j * f    p = softmax(s)    y = sum_j p_j * f_j * v_j
//
//	e_j   = v_j . dy * f_j               ds_j = p_j * (e_j - sum_l p_l * e_l)
//	dq    = sum_j ds_j * f_j * f / sqrt(D) * k_j
//	dk_j += ds_j * f_j * f / sqrt(D) * q          dv_j += p_j * f_j * dy
//	df   += sum_j ds_j * s_j / f                  df_j += p_j * v_j . dy (values) + ds_j * s_j / f_j (keys)
//
// Empty queries and keys have gradient 0. A row of KV that several slots select gets the sum, in the order of lists,
// queries and slots. Round must be nil.
func RoutedAttentionBackward(a RoutedAttentionArgs, dy []float32) RoutedAttentionGrads {
	return routedAttentionBackward(convertRouted[float64](a), convert[float64](dy))
}

// RoutedAttentionBackward32 is [RoutedAttentionBackward] in plain float32.
func RoutedAttentionBackward32(a RoutedAttentionArgs, dy []float32) RoutedAttentionGradsOf[float32] {
	return routedAttentionBackward(a, dy)
}

func routedAttentionBackward[T Float](a RoutedAttentionArgsOf[T], dy []T) RoutedAttentionGradsOf[T] {
	a.check()
	checkLen("RoutedAttentionBackward", "dy", len(dy), len(a.Q))
	checkNotRounded("RoutedAttentionBackward", a.Round)
	h, d := a.Heads, a.DimHead
	g := RoutedAttentionGradsOf[T]{
		Q: make([]T, len(a.Q)), KV: make([]T, len(a.KV)), Null: make([]T, len(a.Null)),
		KeyScores: like(a.KeyScores), QueryScores: like(a.QueryScores),
	}
	for head := range h {
		for list := range a.Lists {
			keys, q := a.visible(list, head), queryBackward[T]{scoreKeys: a.ScoreKeys, scoreValues: a.ScoreValues}
			q.keys, q.values, q.scores = a.keysOf(list, head)
			for _, k := range keys {
				q.dkeys, q.dvalues = append(q.dkeys, g.KV[2*k.row*d:][:d]), append(q.dvalues, g.KV[(2*k.row+1)*d:][:d])
			}
			q.dkeys, q.dvalues = append(q.dkeys, g.Null[head*d:][:d]), append(q.dvalues, g.Null[(h+head)*d:][:d])
			for i := range a.Queries {
				slot := list*a.Queries + i
				if isSkipped(a.QueryScores, a.QueryValid, slot) {
					continue
				}
				at := (slot*h + head) * d
				q.q, q.dq, q.score = a.Q[at:][:d], g.Q[at:][:d], a.queryScore(slot)
				dscore, dscores := attendQueryBackward(q, dy[at:][:d])
				if g.QueryScores != nil {
					g.QueryScores[slot] += dscore
				}
				for j, k := range keys {
					if g.KeyScores != nil {
						g.KeyScores[k.slot] += dscores[j]
					}
				}
			}
		}
	}
	return g
}

// queryBackward is a query with what it sees, as in attendQuery, and where to add the gradients.
type queryBackward[T Float] struct {
	q, dq                        []T
	keys, values, dkeys, dvalues [][]T
	scores                       []T // nil: 1
	score                        T
	scoreKeys, scoreValues       bool
}

// attendQueryBackward adds the gradients of attendQuery to dq, dkeys and dvalues. It returns those of the query's score
// and of the keys' scores. The formulas are those of [RoutedAttentionBackward].
func attendQueryBackward[T Float](a queryBackward[T], dy []T) (dscore T, dscores []T) {
	scale := 1 / sqrtT(T(len(a.q)))
	factor := func(j int, on bool) T {
		if !on || a.scores == nil {
			return 1
		}
		return a.scores[j]
	}
	p, products, largest := make([]T, len(a.keys)), make([]T, len(a.keys)), T(math.Inf(-1))
	for j, k := range a.keys {
		products[j] = dot(a.q, k) * scale
		p[j] = products[j] * factor(j, a.scoreKeys) * a.score
		largest = max(largest, p[j])
	}
	var sum, mean T
	for j := range p {
		p[j] = expT(p[j] - largest)
		sum += p[j]
	}
	for j, v := range a.values {
		p[j] /= sum
		mean += p[j] * factor(j, a.scoreValues) * dot(v, dy)
	}
	dscores = make([]T, len(a.keys))
	for j, v := range a.values {
		along := dot(v, dy)
		addScaled(a.dvalues[j], dy, p[j]*factor(j, a.scoreValues))
		if a.scoreValues {
			dscores[j] += p[j] * along
		}
		ds := p[j] * (along*factor(j, a.scoreValues) - mean)
		dscore += ds * products[j] * factor(j, a.scoreKeys)
		if a.scoreKeys {
			dscores[j] += ds * products[j] * a.score
		}
		dproduct := ds * factor(j, a.scoreKeys) * a.score * scale
		addScaled(a.dq, a.keys[j], dproduct)
		addScaled(a.dkeys[j], a.q, dproduct)
	}
	return dscore, dscores
}

// checkNotRounded panics if an attention with rounded operands is to be differentiated.
func checkNotRounded(op string, round Rounding) {
	if round != nil {
		panic("ref: " + op + ": Round is set, want nil")
	}
}
