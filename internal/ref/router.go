package ref

import "fmt"

// RouterConfig is the config of a router. [DefaultRouterConfig] returns the defaults of the PyTorch implementation; the
// zero value is invalid.
type RouterConfig struct {
	NumTokens       int               // number of tokens to select, >= 1
	BlockSize       int               // tokens are selected per block of this many; 0: in the whole sequence
	FetchKRatio     float64           // k of the coordinate descent is min(tokens * ratio, length)
	StraightThrough bool              // the score of a valid slot is 1 instead of its soft score
	CosineScale     float64           // 0: dot product; otherwise cosine times this
	Descent         CoorDescentConfig // K is ignored: it follows from the other fields
}

// DefaultRouterConfig returns the defaults of the PyTorch implementation: fetch ratio 9/8, straight-through, dot
// product, 20 iterations, eps from 4 down to 0.03 with a decay of 0.7.
func DefaultRouterConfig(numTokens int) RouterConfig {
	return RouterConfig{
		NumTokens: numTokens, FetchKRatio: 9.0 / 8, StraightThrough: true,
		Descent: CoorDescentConfig{Iters: 20, Eps: 0.03, EpsInit: 4, EpsDecay: 0.7},
	}
}

// RouterArgs are the arguments of a router.
type RouterArgs = RouterArgsOf[float32]

// RouterArgsOf is [RouterArgs] with tensors of one precision.
type RouterArgsOf[T Float] struct {
	RouterConfig
	X             []T     // [B, N, C]
	Mask          []uint8 // [B, N]; nil: all valid
	Tokens        []T     // [R, C], or [B, R, C] if TokensPerItem
	TokensPerItem bool    // every item has routing tokens of its own
	B, N, C, R    int

	// RandomLogits [B, R, N] selects random routing: they replace the logits of Tokens, and every score is 1. nil:
	// routing by Tokens.
	RandomLogits []T
}

// Routing is the result of a router in float64.
type Routing = RoutingOf[float64]

// RoutingOf is a [Routing] in one precision.
type RoutingOf[T Float] struct {
	// Routed is false if all tokens are selected. Then K is N, Indices, Logits and SoftScores are nil, and Scores and
	// Valid are the mask.
	Routed bool
	K      int // slots per route: blocks times slots per block

	Indices []int32 // [B, R, K] tokens, sorted by block and then by descending logit; 0 in an empty slot
	Valid   []uint8 // [B, R, K] routed mask
	Scores  []T     // [B, R, K] 0 in an empty slot
	Tokens  []T     // [B, R, K, C] x[index] * score

	Logits     []T // [B, R, N]
	SoftScores []T // [B, R, N] scores of the coordinate descent, 0 for masked entries; nil with random routing
}

// CoordinateDescentRouter selects the tokens of the heavy branch.
//
//	x [B, N, C]    mask [B, N] optional    token [R, C] or [B, R, C]    indices, scores [B, R, K]
//
//	N <= NumTokens: no routing. Otherwise blocks = ceil(N / BlockSize), count = ceil(NumTokens / blocks),
//	K = blocks * count, and in each block of length n the count tokens with the largest logits are selected
//	soft score = coordinate descent of the block's logits with k = min(count * FetchKRatio, n)
//
// If a block is not longer than count, all its valid tokens are selected. Its soft scores are its mask, and the
// remaining slots are empty.
func CoordinateDescentRouter(a RouterArgs) Routing {
	return coordinateDescentRouter(convertRouter[float64](a))
}

// CoordinateDescentRouter32 is [CoordinateDescentRouter] in plain float32.
func CoordinateDescentRouter32(a RouterArgs) RoutingOf[float32] {
	return coordinateDescentRouter(a)
}

// convertRouter returns the arguments in precision T.
func convertRouter[T Float](a RouterArgs) RouterArgsOf[T] {
	return RouterArgsOf[T]{
		RouterConfig: a.RouterConfig, X: convert[T](a.X), Mask: a.Mask, Tokens: convert[T](a.Tokens), TokensPerItem: a.TokensPerItem,
		B: a.B, N: a.N, C: a.C, R: a.R, RandomLogits: convert[T](a.RandomLogits),
	}
}

func coordinateDescentRouter[T Float](a RouterArgsOf[T]) RoutingOf[T] {
	a.check()
	if a.N <= a.NumTokens {
		return selectAll(a)
	}
	size, blocks, count := a.blocks()
	slots := a.B * a.R * blocks * count
	r := RoutingOf[T]{
		Routed: true, K: blocks * count,
		Indices: make([]int32, slots), Valid: make([]uint8, slots), Scores: make([]T, slots),
		Logits: logitsOf(a),
	}
	if a.RandomLogits == nil {
		r.SoftScores = make([]T, a.B*a.R*a.N)
	}
	parallel(a.B*a.R, func(lo, hi int) {
		for row := lo; row < hi; row++ {
			for block := range blocks {
				start := block * size
				routeBlock(a, r, row, start, min(start+size, a.N), (row*blocks+block)*count, count)
			}
		}
	})
	r.Tokens = gatherRows(a.X, r.Indices, r.Scores, r.Valid, a.B, a.N, a.C, a.R*r.K)
	return r
}

// blocks returns the length of a block, the number of blocks, and the number of slots of each.
func (a RouterArgsOf[T]) blocks() (size, blocks, count int) {
	size, blocks = a.N, 1
	if a.BlockSize > 0 {
		size, blocks = a.BlockSize, (a.N+a.BlockSize-1)/a.BlockSize
	}
	return size, blocks, (a.NumTokens + blocks - 1) / blocks
}

// descent returns the config of the coordinate descent of a block of n entries with count slots.
func (c RouterConfig) descent(count, n int) CoorDescentConfig {
	d := c.Descent
	d.K = min(float64(count)*c.FetchKRatio, float64(n))
	return d
}

func (a RouterArgsOf[T]) check() {
	const op = "CoordinateDescentRouter"
	if a.NumTokens < 1 || a.BlockSize < 0 || !(a.FetchKRatio > 0) {
		panic(fmt.Sprintf("ref: %s: bad config %+v", op, a.RouterConfig))
	}
	checkLen(op, "x", len(a.X), a.B*a.N*a.C)
	checkOptional(op, "mask", a.Mask, a.B*a.N)
	checkOptional(op, "random logits", a.RandomLogits, a.B*a.R*a.N)
}

// logitsOf returns the random logits if present, else the logits of the routing tokens.
func logitsOf[T Float](a RouterArgsOf[T]) []T {
	if a.RandomLogits != nil {
		return a.RandomLogits
	}
	return routerLogits(a.logitsArgs())
}

func (a RouterArgsOf[T]) logitsArgs() RouterLogitsArgsOf[T] {
	return RouterLogitsArgsOf[T]{
		X: a.X, Tokens: a.Tokens, TokensPerItem: a.TokensPerItem, CosineScale: a.CosineScale,
		B: a.B, N: a.N, C: a.C, R: a.R,
	}
}

// selectAll returns the routing that selects all valid tokens.
func selectAll[T Float](a RouterArgsOf[T]) RoutingOf[T] {
	slots := a.B * a.R * a.N
	r := RoutingOf[T]{K: a.N, Valid: make([]uint8, slots), Scores: make([]T, slots), Tokens: make([]T, slots*a.C)}
	for slot := range slots {
		token := slot/(a.R*a.N)*a.N + slot%a.N
		if !isValid(a.Mask, token) {
			continue
		}
		r.Valid[slot], r.Scores[slot] = 1, 1
		copy(r.Tokens[slot*a.C:(slot+1)*a.C], a.X[token*a.C:])
	}
	return r
}

// routeBlock selects among tokens start..end-1 of one row (batch item and route). It writes count slots, beginning at
// slot.
func routeBlock[T Float](a RouterArgsOf[T], r RoutingOf[T], row, start, end, slot, count int) {
	n := end - start
	logits := r.Logits[row*a.N+start : row*a.N+end]
	var mask []uint8
	if a.Mask != nil {
		item := row / a.R
		mask = a.Mask[item*a.N+start : item*a.N+end]
	}
	soft := softScores(a, logits, mask, count)
	if r.SoftScores != nil {
		copy(r.SoftScores[row*a.N+start:], soft)
	}
	selected := selectRows(logits, mask, 1, n, count)
	for j, index := range selected.Indices[:selected.Count[0]] {
		r.Indices[slot+j] = int32(start) + index
		r.Valid[slot+j] = 1
		r.Scores[slot+j] = 1
		if !a.StraightThrough && a.RandomLogits == nil {
			r.Scores[slot+j] = soft[index]
		}
	}
}

// softScores returns the coordinate descent scores of one block, or its mask if the block is not longer than count.
func softScores[T Float](a RouterArgsOf[T], logits []T, mask []uint8, count int) []T {
	n := len(logits)
	if n > count {
		return coorDescent(logits, mask, 1, n, a.descent(count, n))
	}
	scores := make([]T, n)
	for i := range scores {
		if isValid(mask, i) {
			scores[i] = 1
		}
	}
	return scores
}
