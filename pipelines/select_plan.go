package pipelines

import (
	"math"

	"github.com/colt5-vulkan/colt5/vk"
)

// selectMax bounds N and K: the bytes of a row's pairs must fit 32 bits.
const selectMax = 1 << 28

// selectStateBytes is STATE_WORDS of the shaders.
const selectStateBytes = 4 * (16 + 2048 + 2048 + 1024)

const (
	selectMinSampled          = 8192      // the longest block that is never sampled, and one that a workgroup can do and need not sort is not either
	selectMaxSampledSegments  = 8         // most blocks that are sampled though one workgroup each could do them
	selectMaxSamplesPerThread = 32        // most of a thread of select_sample
	selectGatherChunks        = 2         // GRANULES of select_gather.comp, of a thread
	selectPairsPerPass        = 16        // GROUP of select_rank.comp
	selectNarrowSort          = 512       // the longest block that is sorted whole by 128 threads, four entries each
	selectMaxCandidates       = 16 * 1024 // most candidates of a block: ranking them takes the square of it
)

// selectLimits is what a device allows: powers of two.
type selectLimits struct {
	threads      uint32 // of a workgroup, 64 to 1,024
	sortCapacity uint32 // of a sort in shared memory
	subgroupMin  uint32 // the smallest size
}

func newSelectLimits(c vk.Caps) selectLimits {
	l := selectLimits{threads: 64, sortCapacity: 1024, subgroupMin: max(c.SubgroupMin, 1)}
	most := min(c.MaxWorkgroupInvocations, c.MaxWorkgroupSize[0], 1024)
	if c.SharedBytes >= 32<<10 {
		l.sortCapacity = 2048
	} else {
		most = min(most, 256) // the sums of subgroups need shared memory too
	}
	for l.threads*2 <= most {
		l.threads *= 2
	}
	return l
}

// middle is the workgroup of the long ways: several of them fit a core and fill each other's pauses.
func (l selectLimits) mediumThreads() uint32 { return min(l.threads, 512) }

// small is the workgroup of shaders that gain nothing from more: a thread a pair of select_merge.
func (l selectLimits) smallThreads() uint32 { return min(l.threads, 256) }

// selectSizes is the shape of a selection.
type selectSizes struct {
	rows, n, k, block, windows int
	unaligned                  bool // the logits start between multiples of 16 bytes
}

func (a SelectArgs) sizes() selectSizes {
	return selectSizes{rows: a.Rows, n: a.N, k: a.K, block: a.BlockSize, windows: a.Windows, unaligned: a.Logits.Offset()%16 != 0}
}

// selectPlan says how a selection is done: a pure function of sizes and limits.
type selectPlan struct {
	block, blocks, segments                 uint64 // entries of the longest segment, segments of a row, of all rows
	selected                                uint64 // most that a segment fills
	direct                                  bool   // one workgroup a segment
	threads                                 uint32 // of a workgroup
	parts, span                             uint64 // of a segment; granules of four keys, of a part
	sampled                                 bool   // by a threshold that samples tell
	samplesPerThread                        uint64 // of a thread
	sampleStride, sampleRank, maxCandidates uint64 // entries a sample; the sample that is the threshold, from above; most candidates
	rankGroups                              uint64 // workgroups a segment that rank them
	fusedSort                               bool   // sorted where it is chosen
	sortRuns                                uint64 // of a segment that are sorted in dispatches of their own
	merges                                  int

	stateBytes, countBytes, candidateBytes, pairBytes uint64 // bytes of scratch memory; pairs twice if there is more than one merge
}

func newSelectPlan(l selectLimits, sorted bool, z selectSizes) selectPlan {
	n := uint64(z.n)
	p := selectPlan{block: uint64(z.block), parts: 1}
	if z.block == 0 || p.block > n {
		p.block = n
	}
	p.blocks = (n + p.block - 1) / p.block
	if z.windows > 0 {
		p.blocks = uint64(z.windows)
	}
	p.segments = uint64(z.rows) * p.blocks
	p.selected = min(uint64(z.k), p.block)

	granules, shifted := (p.block+3)/4, (p.block+3+3)/4 // the latter where segments start within a granule
	if n%4 != 0 && z.rows > 1 || p.block%4 != 0 && p.blocks > 1 {
		granules = shifted
	}
	// A thread of a short segment has four granules on their way at a time, and reads eight at most. More threads than that takes have
	// less to do, and wait longer for each other. It reads up to sixteen where nothing is sorted: such a choice is a router's, with longer work
	// beside it, and what counts is that it is one step.
	most := uint64(8)
	if !sorted {
		most = 16
	}
	p.threads = min(l.threads, 256)
	if sorted && p.block <= selectNarrowSort {
		p.threads = min(l.threads, 128)
	}
	for p.threads < l.threads && 4*uint64(p.threads) < granules {
		p.threads *= 2
	}
	p.direct = granules <= most*uint64(p.threads)
	if z.unaligned { // one more granule does not change the way, so that it does not take scratch memory where none was taken
		granules = shifted
	}
	quick := p.direct && (p.segments > selectMaxSampledSegments || !sorted)
	if p.block > selectMinSampled && p.selected <= uint64(l.sortCapacity) && !quick && p.sample(l, granules, sorted) {
		return p
	}
	if !p.direct {
		const most = 1024 // parts: each sums the counts of those before it
		p.threads = l.mediumThreads()
		tile := 2 * uint64(p.threads) // what select_digit reads at a time
		p.span = (granules + tile*most - 1) / (tile * most) * tile
		p.parts = (granules + p.span - 1) / p.span
		p.stateBytes = p.segments * selectStateBytes
		p.countBytes = (p.segments*p.parts*8 + 15) &^ 15
	}
	p.fusedSort = sorted && p.direct && p.selected <= uint64(l.sortCapacity)
	if sorted && !p.fusedSort {
		p.sortRuns = (p.selected + uint64(l.sortCapacity) - 1) / uint64(l.sortCapacity)
		p.pairBytes = (p.segments*p.selected*8 + 15) &^ 15
		for run := uint64(l.sortCapacity); run < p.selected; run *= 2 {
			p.merges++
		}
	}
	return p
}

// sample plans a selection by samples, if it can.
//
// Of the k largest entries a number of samples is drawn that is about Poisson(k / stretch), so the chance that it reaches rank, 6
// deviations and more above, is below one in a million; the chance of more than list entries above the threshold is too. Then one
// workgroup does all: the result is the same, but slow.
func (p *selectPlan) sample(l selectLimits, granules uint64, sorted bool) bool {
	above := func(mean float64) float64 { return math.Ceil(mean + 6*math.Sqrt(mean) + 4) }
	for p.samplesPerThread = 8; ; p.samplesPerThread *= 2 { // more samples, fewer candidates
		all := p.samplesPerThread * uint64(l.mediumThreads())
		p.sampleStride = (p.block + all - 1) / all
		rank := above(float64(p.selected) / float64(p.sampleStride))
		p.sampleRank, p.maxCandidates = uint64(rank), uint64(above(rank*9/8))*p.sampleStride // select_sample may add an eighth
		if p.segments*p.maxCandidates*p.maxCandidates <= selectMaxCandidates*selectMaxCandidates || p.samplesPerThread == selectMaxSamplesPerThread {
			break
		}
	}
	if p.maxCandidates > selectMaxCandidates {
		return false
	}
	p.direct, p.sampled, p.threads = false, true, l.smallThreads()
	p.span = selectGatherChunks * uint64(p.threads)
	p.parts = (granules + p.span - 1) / p.span
	p.rankGroups = min((p.maxCandidates+selectPairsPerPass-1)/selectPairsPerPass, max(1024/p.segments, 8))
	p.stateBytes, p.countBytes = p.segments*32, (p.segments*p.parts*4+15)&^15
	p.candidateBytes = (p.segments*p.maxCandidates*8 + 15) &^ 15
	if !sorted {
		p.pairBytes = (p.segments*p.selected*8 + 15) &^ 15
	}
	return true
}

// selectScratch is the scratch memory of a selection, wherever its logits start.
func selectScratch(l selectLimits, sorted bool, z selectSizes) uint64 {
	if z.rows < 1 || z.n < 1 || z.k < 1 || z.block < 0 || z.windows < 0 {
		return 0
	}
	z.unaligned = false
	even := newSelectPlan(l, sorted, z).scratch()
	z.unaligned = true
	return max(even, newSelectPlan(l, sorted, z).scratch())
}

func (p selectPlan) scratch() uint64 {
	if p.merges > 1 {
		return p.stateBytes + p.countBytes + 2*p.pairBytes
	}
	return p.stateBytes + p.countBytes + p.candidateBytes + p.pairBytes
}
