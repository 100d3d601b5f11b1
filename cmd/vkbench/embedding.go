package main

import "math/rand/v2"

// embedding turns bytes into tokens; see routeDescription.
type embedding struct {
	dim   int
	bytes [256][]float32
	mean  []float64 // of the text
}

const (
	window        = 32   // bytes to each side that a token knows of
	ownWeight     = 0.25 // of the byte itself
	contextWeight = 8    // of its surroundings: their mean is small, about 1 / sqrt(65)
)

func newEmbedding(seed uint64, dim int, text []byte) *embedding {
	e := &embedding{dim: dim, mean: make([]float64, dim)}
	const stream = 0x62797465 // so that the numbers are not those of a weight
	r := rand.New(rand.NewPCG(seed, stream))
	for b := range e.bytes {
		e.bytes[b] = make([]float32, dim)
		for i := range e.bytes[b] {
			e.bytes[b][i] = float32(r.NormFloat64())
		}
	}
	var counts [256]int
	for _, b := range text {
		counts[b]++
	}
	for b, count := range counts {
		part := float64(count) / float64(len(text))
		for i, x := range e.bytes[b] {
			e.mean[i] += part * float64(x)
		}
	}
	return e
}

// tokens are the vectors of count bytes of the text, from at on. The bytes before and after are their surroundings too.
func (e *embedding) tokens(text []byte, at, count int) []float32 {
	out := make([]float32, count*e.dim)
	sum := make([]float64, e.dim) // of the window
	add := func(b byte, sign float64) {
		for i, x := range e.bytes[b] {
			sum[i] += sign * float64(x)
		}
	}
	low, high := max(at-window, 0), max(at-window, 0) // the window so far
	for t := at; t < at+count; t++ {
		for ; high < min(t+window+1, len(text)); high++ {
			add(text[high], 1)
		}
		for ; low < t-window; low++ {
			add(text[low], -1)
		}
		const scale = 1.0 / (2*window + 1) // also where the text begins or ends: there the fewer bytes weigh less
		count := float64(high - low)
		own, token := e.bytes[text[t]], out[(t-at)*e.dim:][:e.dim]
		for i := range token {
			token[i] = float32(ownWeight*float64(own[i]) + contextWeight*scale*(sum[i]-count*e.mean[i]))
		}
	}
	return out
}
