package route

import "math/rand/v2"

// embedding computes the vectors of tokens; see description.
type embedding struct {
	dim   int
	bytes [256][]float32
	mean  []float64 // of the text
}

const (
	window        = 32   // bytes on each side that a vector depends on
	ownWeight     = 0.25 // of the byte's embedding
	contextWeight = 8    // of the mean of the window, whose elements are small, about 1 / sqrt(65)
)

func newEmbedding(seed uint64, dim int, text []byte) *embedding {
	e := &embedding{dim: dim, mean: make([]float64, dim)}
	const stream = 0x62797465 // another stream than that of the weights
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
		share := float64(count) / float64(len(text))
		for i, x := range e.bytes[b] {
			e.mean[i] += share * float64(x)
		}
	}
	return e
}

// tokens returns the vectors of count bytes of the text from position at. Windows extend beyond these bytes.
func (e *embedding) tokens(text []byte, at, count int) []float32 {
	out := make([]float32, count*e.dim)
	sum := make([]float64, e.dim) // over the window
	add := func(b byte, sign float64) {
		for i, x := range e.bytes[b] {
			sum[i] += sign * float64(x)
		}
	}
	low, high := max(at-window, 0), max(at-window, 0) // the present window
	for t := at; t < at+count; t++ {
		for ; high < min(t+window+1, len(text)); high++ {
			add(text[high], 1)
		}
		for ; low < t-window; low++ {
			add(text[low], -1)
		}
		const scale = 1.0 / (2*window + 1) // also at the start and end of the text, where windows are shorter
		count := float64(high - low)
		own, token := e.bytes[text[t]], out[(t-at)*e.dim:][:e.dim]
		for i := range token {
			token[i] = float32(ownWeight*float64(own[i]) + contextWeight*scale*(sum[i]-count*e.mean[i]))
		}
	}
	return out
}
