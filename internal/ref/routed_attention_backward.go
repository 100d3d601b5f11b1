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
// queries and slots.
//
// Round has the effect of the kernel on cooperative matrices: rows are rounded after multiplication by a score, null keys
// and values too, the result y, and p_j and ds_j for the products with rows.
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
	h, d := a.Heads, a.DimHead
	g := RoutedAttentionGradsOf[T]{
		Q: make([]T, len(a.Q)), KV: make([]T, len(a.KV)), Null: make([]T, len(a.Null)),
		KeyScores: like(a.KeyScores), QueryScores: like(a.QueryScores),
	}
	for head := range h {
		for list := range a.Lists {
			keys, q := a.visible(list, head), queryBackward[T]{round: a.Round, scoreKeys: a.ScoreKeys, scoreValues: a.ScoreValues}
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
	round                        Rounding
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
	// Rows times their scores.
	q, keys, values := a.scaled(a.q, a.score), make([][]T, len(a.keys)), make([][]T, len(a.keys))
	p, along, largest := make([]T, len(a.keys)), make([]T, len(a.keys)), T(math.Inf(-1))
	for j := range a.keys {
		keys[j], values[j] = a.scaled(a.keys[j], factor(j, a.scoreKeys)), a.scaled(a.values[j], factor(j, a.scoreValues))
		p[j], along[j] = dot(q, keys[j])*scale, dot(values[j], dy)
		largest = max(largest, p[j])
	}
	var sum, mean T
	for j := range p {
		p[j] = expT(p[j] - largest)
		sum += p[j]
	}
	y := make([]T, len(dy))
	for j := range p {
		p[j] /= sum
		mean += p[j] * along[j]
		addScaled(y, values[j], p[j])
	}
	if a.round != nil { // the kernel reads the rounded result
		mean = dot(dy, a.scaled(y, 1))
	}
	dscores = make([]T, len(a.keys))
	for j := range p {
		weight, ds := a.rounded(p[j]), a.rounded(p[j]*(along[j]-mean))*scale
		addScaled(a.dvalues[j], dy, weight*factor(j, a.scoreValues))
		addScaled(a.dkeys[j], q, ds*factor(j, a.scoreKeys))
		addScaled(a.dq, keys[j], ds*a.score)
		if a.scoreValues {
			dscores[j] += weight * dot(a.values[j], dy)
		}
		if a.scoreKeys {
			dscores[j] += ds * dot(a.keys[j], q)
		}
		dscore += ds * dot(a.q, keys[j])
	}
	return dscore, dscores
}

func (a queryBackward[T]) rounded(x T) T {
	if a.round == nil {
		return x
	}
	return T(a.round(float32(x)))
}

// scaled returns a row times a score.
func (a queryBackward[T]) scaled(row []T, score T) []T {
	if a.round == nil && score == 1 {
		return row
	}
	list := make([]T, len(row))
	for i := range row {
		list[i] = a.rounded(row[i] * score)
	}
	return list
}
