package ref

import "math"

// RoutedAttentionArgs are the arguments of [RoutedAttention]. The layout of KV depends on the other arguments:
//
//	Indices and Prefix absent    [R, Lists, Keys, H/R, 2, D]           one row per slot
//	Indices                      [Lists / PerItem, KVRows, H, 2, D]    slots select rows of their item
//	Prefix                       [Lists / PerItem, KVRows, H, 2, D]    list l of an item has its first l * Prefix rows as keys
type RoutedAttentionArgs struct {
	Q, KV       []float32 // Q [Lists, Queries, H, D]
	Indices     []int32   // [Lists, R, Keys]; an index out of range makes the slot empty
	Valid       []uint8   // [Lists, R, Keys], with Prefix [Lists / PerItem, KVRows]; nil: all valid
	KeyScores   []float32 // [Lists, R, Keys]; used with ScoreValues and ScoreKeys
	QueryValid  []uint8   // [Lists, Queries], 0 = empty slot with a result of 0; nil: all valid
	QueryScores []float32 // [Lists, Queries], 0 = empty slot with a result of 0; nil: 1
	Null        []float32 // [2, H, D] null key and null value of every head

	ScoreValues, ScoreKeys               bool
	Lists, Queries, Keys, Heads, DimHead int
	Routes, PerItem, KVRows, Prefix      int // PerItem 0: 1; Prefix 0: none
	Round                                Rounding
}

// RoutedAttention is the attention of each list of queries to the keys and values of its slots, and to the null key and
// value of every head.
//
//	y [Lists, Queries, H, D] = sum_j softmax_j(q . k_j / sqrt(D) * scores) * v_j * score
func RoutedAttention(a RoutedAttentionArgs) []float64 { return routedAttention[float64](a) }

// RoutedAttention32 is [RoutedAttention] in plain float32.
func RoutedAttention32(a RoutedAttentionArgs) []float32 { return routedAttention[float32](a) }

func routedAttention[T Float](a RoutedAttentionArgs) []T {
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
	q, kv, null := convert[T](a.Q), convert[T](a.KV), convert[T](a.Null)
	y := make([]T, len(q))
	parallel(a.Lists*h, func(lo, hi int) {
		for unit := lo; unit < hi; unit++ {
			list, head := unit/h, unit%h
			keys, values, scores := routedKeys(a, kv, list, head, perItem)
			keys, values, scores = append(keys, null[head*d:][:d]), append(values, null[(h+head)*d:][:d]), append(scores, 1)
			for i := range a.Queries {
				slot := list*a.Queries + i
				if isSkipped(a.QueryScores, a.QueryValid, slot) {
					continue
				}
				score := T(1)
				if a.QueryScores != nil {
					score = T(a.QueryScores[slot])
				}
				at := (slot*h + head) * d
				attendQuery(y[at:][:d], q[at:][:d], keys, values, scores, score, a.ScoreKeys, a.ScoreValues, a.Round)
			}
		}
	})
	return y
}

// routedKeys returns the keys, values and scores of the valid slots of a list for one head.
func routedKeys[T Float](a RoutedAttentionArgs, kv []T, list, head, perItem int) (keys, values [][]T, scores []T) {
	h, d := a.Heads, a.DimHead
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
		score := T(1)
		if a.KeyScores != nil {
			score = T(a.KeyScores[slot])
		}
		keys, values, scores = append(keys, kv[2*row*d:][:d]), append(values, kv[(2*row+1)*d:][:d]), append(scores, score)
	}
	return keys, values, scores
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
