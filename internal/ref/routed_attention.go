package ref

import "math"

// RoutedAttentionArgs are the arguments of [RoutedAttention]. The layout of KV depends on the other arguments:
//
//	Indices and Prefix absent    [R, Lists, Keys, H/R, 2, D]           one row per slot
//	Indices                      [Lists / PerItem, KVRows, H, 2, D]    slots select rows of their item
//	Prefix                       [Lists / PerItem, KVRows, H, 2, D]    list l of an item has its first l * Prefix rows as keys
type RoutedAttentionArgs = RoutedAttentionArgsOf[float32]

// RoutedAttentionArgsOf is [RoutedAttentionArgs] with tensors of one precision.
type RoutedAttentionArgsOf[T Float] struct {
	Q, KV       []T     // Q [Lists, Queries, H, D]
	Indices     []int32 // [Lists, R, Keys]; an index out of range makes the slot empty
	Valid       []uint8 // [Lists, R, Keys], with Prefix [Lists / PerItem, KVRows]; nil: all valid
	KeyScores   []T     // [Lists, R, Keys]; used with ScoreValues and ScoreKeys
	QueryValid  []uint8 // [Lists, Queries], 0 = empty slot with a result of 0; nil: all valid
	QueryScores []T     // [Lists, Queries], 0 = empty slot with a result of 0; nil: 1
	Null        []T     // [2, H, D] null key and null value of every head

	ScoreValues, ScoreKeys               bool
	Lists, Queries, Keys, Heads, DimHead int
	Routes, PerItem, KVRows, Prefix      int // PerItem 0: 1; Prefix 0: none
	Round                                Rounding
}

// RoutedAttention is the attention of each list of queries to the keys and values of its slots, and to the null key and
// value of every head.
//
//	y [Lists, Queries, H, D] = sum_j softmax_j(q . k_j / sqrt(D) * scores) * v_j * score
func RoutedAttention(a RoutedAttentionArgs) []float64 {
	return routedAttention(convertRouted[float64](a))
}

// RoutedAttention32 is [RoutedAttention] in plain float32.
func RoutedAttention32(a RoutedAttentionArgs) []float32 { return routedAttention(a) }

// convertRouted returns the arguments in precision T.
func convertRouted[T Float](a RoutedAttentionArgs) RoutedAttentionArgsOf[T] {
	return RoutedAttentionArgsOf[T]{
		Q: convert[T](a.Q), KV: convert[T](a.KV), Indices: a.Indices, Valid: a.Valid, KeyScores: convert[T](a.KeyScores),
		QueryValid: a.QueryValid, QueryScores: convert[T](a.QueryScores), Null: convert[T](a.Null), ScoreValues: a.ScoreValues,
		ScoreKeys: a.ScoreKeys, Lists: a.Lists, Queries: a.Queries, Keys: a.Keys, Heads: a.Heads, DimHead: a.DimHead,
		Routes: a.Routes, PerItem: a.PerItem, KVRows: a.KVRows, Prefix: a.Prefix, Round: a.Round,
	}
}

func (a RoutedAttentionArgsOf[T]) check() {
	const op = "RoutedAttention"
	perItem := max(a.PerItem, 1)
	h, d := a.Heads, a.DimHead
	checkLen(op, "q", len(a.Q), a.Lists*a.Queries*h*d)
	checkLen(op, "null", len(a.Null), 2*h*d)
	rows, valid := a.Lists*a.Keys, a.Lists*a.Routes*a.Keys
	if a.Indices != nil || a.Prefix > 0 {
		rows = a.Lists / perItem * a.KVRows
	}
	if a.Prefix > 0 {
		valid = rows
	}
	checkLen(op, "kv", len(a.KV), 2*rows*h*d)
	checkOptional(op, "valid", a.Valid, valid)
	checkOptional(op, "indices", a.Indices, a.Lists*a.Routes*a.Keys)
	checkOptional(op, "key scores", a.KeyScores, a.Lists*a.Routes*a.Keys)
	checkOptional(op, "query valid", a.QueryValid, a.Lists*a.Queries)
	checkOptional(op, "query scores", a.QueryScores, a.Lists*a.Queries)
}

func routedAttention[T Float](a RoutedAttentionArgsOf[T]) []T {
	a.check()
	h, d := a.Heads, a.DimHead
	y := make([]T, len(a.Q))
	parallel(a.Lists*h, func(lo, hi int) {
		for unit := lo; unit < hi; unit++ {
			list, head := unit/h, unit%h
			keys, values, scores := a.keysOf(list, head)
			for i := range a.Queries {
				slot := list*a.Queries + i
				if isSkipped(a.QueryScores, a.QueryValid, slot) {
					continue
				}
				at := (slot*h + head) * d
				attendQuery(y[at:][:d], a.Q[at:][:d], keys, values, scores, a.queryScore(slot), a.ScoreKeys, a.ScoreValues, a.Round)
			}
		}
	})
	return y
}

// queryScore returns the score of a query.
func (a RoutedAttentionArgsOf[T]) queryScore(slot int) T {
	if a.QueryScores == nil {
		return 1
	}
	return a.QueryScores[slot]
}

// keysOf returns the keys, values and scores that the queries of a list see in one head. The null key and value are the
// last.
func (a RoutedAttentionArgsOf[T]) keysOf(list, head int) (keys, values [][]T, scores []T) {
	h, d := a.Heads, a.DimHead
	for _, k := range a.visible(list, head) {
		score := T(1)
		if a.KeyScores != nil {
			score = a.KeyScores[k.slot]
		}
		keys, values, scores = append(keys, a.KV[2*k.row*d:][:d]), append(values, a.KV[(2*k.row+1)*d:][:d]), append(scores, score)
	}
	return append(keys, a.Null[head*d:][:d]), append(values, a.Null[(h+head)*d:][:d]), append(scores, 1)
}

// visibleKey is a key that a list sees.
type visibleKey struct {
	row  int // its key is row 2 * row of KV in units of DimHead, its value the next one
	slot int // its score is KeyScores[slot]
}

// visible returns the valid slots of a list for one head.
func (a RoutedAttentionArgsOf[T]) visible(list, head int) []visibleKey {
	var keys []visibleKey
	h, perItem := a.Heads, max(a.PerItem, 1)
	perRoute := h / a.Routes
	route, item := head/perRoute, list/perItem
	count := a.Keys
	if a.Prefix > 0 {
		count = min(list%perItem*a.Prefix, a.KVRows)
	}
	for j := range count {
		slot := (list*a.Routes+route)*a.Keys + j
		if a.Prefix > 0 {
			slot = item*a.KVRows + j
		}
		row := ((route*a.Lists+list)*a.Keys+j)*perRoute + head%perRoute
		switch {
		case a.Prefix > 0:
			row = (item*a.KVRows+j)*h + head
		case a.Indices != nil:
			index := int(a.Indices[slot])
			if index < 0 || index >= a.KVRows {
				continue
			}
			row = (item*a.KVRows+index)*h + head
		}
		if a.Valid != nil && a.Valid[slot] == 0 {
			continue
		}
		keys = append(keys, visibleKey{row, slot})
	}
	return keys
}

// attendQuery adds the attention output of one query to y, which must be zero. The last key and value are the null key
// and value.
func attendQuery[T Float](y, q []T, keys, values [][]T, scores []T, score T, scoreKeys, scoreValues bool, round Rounding) {
	if round != nil {
		attendQueryRounded(y, q, keys, values, scores, score, scoreKeys, scoreValues, round)
		return
	}
	s, largest := make([]T, len(keys)), T(math.Inf(-1))
	for j, k := range keys {
		s[j] = dot(q, k) / sqrtT(T(len(q)))
		if j < len(keys)-1 && scoreKeys {
			s[j] *= scores[j]
		}
		s[j] *= score
		largest = max(largest, s[j])
	}
	var sum T
	for j := range s {
		s[j] = expT(s[j] - largest)
		sum += s[j]
	}
	for j, v := range values {
		w := s[j] / sum
		if scoreValues {
			w *= scores[j]
		}
		for i, x := range v {
			y[i] += w * x
		}
	}
}

// Rounding rounds a float32 to a 16-bit format. nil: no rounding.
type Rounding func(float32) float32

// attendQueryRounded is attendQuery with the rounding of attention on cooperative matrices: queries, keys and values are
// rounded after multiplication by a score, and results. Weights exp(s - max) are rounded for the product with values;
// their sum is not.
func attendQueryRounded[T Float](y, q []T, keys, values [][]T, scores []T, score T, scoreKeys, scoreValues bool, round Rounding) {
	to := func(x T) T { return T(round(float32(x))) }
	scored := func(x []T, by T) []T { // a score of 1 does not round; the null key and value have score 1
		if by == 1 {
			return x
		}
		list := make([]T, len(x))
		for i := range x {
			list[i] = to(x[i] * by)
		}
		return list
	}
	factor := func(j int, on bool) T {
		if !on {
			return 1
		}
		return scores[j]
	}
	q = scored(q, score)
	s, largest := make([]T, len(keys)), T(math.Inf(-1))
	for j, k := range keys {
		s[j] = dot(q, scored(k, factor(j, scoreKeys))) / sqrtT(T(len(q)))
		largest = max(largest, s[j])
	}
	var sum T
	for j, v := range values {
		w := expT(s[j] - largest)
		sum += w
		for i, x := range scored(v, factor(j, scoreValues)) {
			y[i] += to(w) * x
		}
	}
	for i := range y {
		y[i] = to(y[i] / sum)
	}
}
