package main

import (
	"errors"
	"fmt"
	"math"

	"github.com/colt5-vulkan/colt5/colt5"
	"github.com/colt5-vulkan/colt5/pipelines"
	"github.com/colt5-vulkan/colt5/vk"
)

// How time grows with the length of a sequence: a transformer block that routes a fixed number of tokens to its heavy attention, and one of 32
// to its heavy feedforward; and beside it the attention of all tokens to all tokens.
const blockLength, denseAttention = "block_length", "dense_attention"

// lengthCases are those whose second size is a length.
func lengthCases() []benchCase {
	block := []string{"batch", "tokens", "dim", "heavy tokens of the attention"}
	dense := []string{"batch", "tokens", "heads", "dim head"}
	return []benchCase{
		{blockLength, block, [][]int{{1, 131072, 512, 1024}}, [][]int{{1, 512, 64, 32}}, setupBlockLength},
		{denseAttention, dense, [][]int{{1, 8192, 8, 64}}, [][]int{{1, 256, 4, 64}}, setupDenseAttention},
	}
}

func setupBlockLength(s *benchStage, size []int) (*workload, error) {
	n := size[1]
	config := blockExample(size[2])
	config.Precision = colt5.DType(s.precision)
	config.NumHeavyAttnTokensQ, config.NumHeavyAttnTokensKV, config.NumHeavyFFTokens = size[3], size[3], max(n/32, 1)
	return s.block(config, size[0], n)
}

// setupDenseAttention is what routed attention costs when every token is chosen: the attention alone, without its projections.
func setupDenseAttention(s *benchStage, size []int) (*workload, error) {
	b, n, h, d := size[0], size[1], size[2], size[3]
	return setupRoutedAttention(s, []int{b, n, n, h, d})
}

// sweep times cases at longer and longer sequences, each until a run would take more than some seconds or does not fit the device.
type sweep struct {
	lengths []int
	dims    map[string][]int // the other sizes, after the length
	most    float64          // ms of a run
}

// newSweep goes from 1,024 to 1,048,576 tokens, or, small, over lengths that a processor can do.
func newSweep(small bool) sweep {
	s := sweep{dims: map[string][]int{blockLength: {512, 1024}, denseAttention: {8, 64}}, most: 3000}
	first, last := 1024, 1<<20
	if small {
		first, last, s.most = 128, 2048, 1000
		s.dims[blockLength] = []int{64, 32}
	}
	for n := first; n <= last; n *= 2 {
		s.lengths = append(s.lengths, n)
	}
	return s
}

// steps is how many runs there are at most, in some precisions.
func (s sweep) steps(precisions []pipelines.DType) int {
	return len(lengthCases()) * len(precisions) * len(s.lengths)
}

// run times the cases, and remarks where they end.
func (s sweep) run(b *benchmark, bar *progress, precisions []pipelines.DType, remark func(string)) error {
	if b.pace.most > b.pace.reps { // no -reps: runs of seconds need no ten of them
		defer func(p pace) { b.pace = p }(b.pace)
		b.pace.reps, b.pace.warmup = min(b.pace.reps, 3), min(b.pace.warmup, 1)
	}
	var failed error
	for _, c := range lengthCases() {
		for _, p := range precisions {
			err := s.line(b, bar, c, p, remark)
			failed = errors.Join(failed, err)
			if errors.Is(err, errInterrupted) {
				return failed
			}
		}
	}
	return failed
}

// line times a case in a precision.
func (s sweep) line(b *benchmark, bar *progress, c benchCase, p pipelines.DType, remark func(string)) error {
	var seen []float64 // ms, by length
	for _, n := range s.lengths {
		x := sized{benchCase: c, size: append([]int{1, n}, s.dims[c.name]...), precision: p}
		if next := s.expect(c.name, seen); next > s.most {
			remark(fmt.Sprintf("%s in %s ends before %d tokens, which would take some %s ms a run.", c.name, precisionName(p), n, significant(next)))
			return nil
		}
		bar.at(x.title())
		switch err := b.run(x); {
		case errors.Is(err, vk.ErrOutOfMemory), errors.Is(err, vk.ErrUnsupported):
			remark(fmt.Sprintf("%s in %s ends before %d tokens: %v.", c.name, precisionName(p), n, err))
			return nil
		case errors.Is(err, errInterrupted):
			return err
		case err != nil:
			return fmt.Errorf("%s: %w", x.title(), err)
		}
		bar.next()
		seen = append(seen, b.gpu)
	}
	return nil
}

// expect is how long the next length takes, in ms, after those seen; 0: nothing is known.
func (s sweep) expect(name string, seen []float64) float64 {
	if len(seen) == 0 {
		return 0
	}
	i := len(seen)
	power := 1.0
	if name == denseAttention {
		power = 2
	}
	return seen[i-1] * math.Pow(float64(s.lengths[i])/float64(s.lengths[i-1]), power)
}
