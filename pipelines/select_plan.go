package pipelines

import (
	"math"

	"github.com/colt5-vulkan/colt5/vk"
)

// selectMax bounds N and K: shaders count the bytes of a row's pairs in 32 bits.
const selectMax = 1 << 28

// selectStateBytes is STATE_WORDS of shaders/src/include/select.glsl, in bytes.
const selectStateBytes = 4 * (16 + 2048 + 2048 + 1024)

const (
	selectMinSampled          = 8192      // segments up to this length are never sampled
	selectMaxSampledSegments  = 8         // segments that fit one workgroup are sampled only up to this number
	selectMaxSamplesPerThread = 32        // of select_sample
	selectGatherChunks        = 2         // 16-byte chunks per invocation, as in select_gather.comp
	selectPairsPerPass        = 16        // of a workgroup of select_rank
	selectNarrowSort          = 512       // longest segment that 128 invocations sort as a whole, four entries each
	selectRegisters           = 96        // of an invocation: at 64, Intel's compiler spills 8
	selectMaxCandidates       = 16 * 1024 // of a segment: ranking takes quadratic time
)

// selectLimits is what a device allows: powers of two.
type selectLimits struct {
	threads      uint32 // invocations of a workgroup, 64 to 1,024
	sortCapacity uint32 // pairs of a sort in shared memory
	subgroupMin  uint32 // smallest subgroup size
}

func newSelectLimits(c vk.Caps) selectLimits {
	l := selectLimits{threads: 64, sortCapacity: 1024, subgroupMin: max(c.SubgroupMin, 1)}
	most := min(c.MaxWorkgroupInvocations, c.MaxWorkgroupSize[0], 1024)
	if c.MaxSharedBytes >= 32<<10 {
		l.sortCapacity = 2048
	} else {
		most = min(most, 256) // the sums of subgroups need shared memory too
	}
	for device := limitsOfCaps(c); l.threads*2 <= most && device.registersIn(l.threads*2) >= selectRegisters; {
		l.threads *= 2
	}
	return l
}

// scanThreads is the workgroup size of the sampled and radix kernels: an SM holds several such workgroups, which hide
// each other's latency.
func (l selectLimits) scanThreads() uint32 { return min(l.threads, 512) }

// elementThreads is the workgroup size of kernels that gain nothing from more, such as select_merge with one invocation
// per pair.
func (l selectLimits) elementThreads() uint32 { return min(l.threads, 256) }

// selectSizes is the shape of a selection.
type selectSizes struct {
	rows, n, k, block, windows int
	unaligned                  bool // the logits do not start at a multiple of 16 bytes
}

func (a SelectArgs) sizes() selectSizes {
	return selectSizes{rows: a.Rows, n: a.N, k: a.K, block: a.BlockSize, windows: a.Windows, unaligned: a.Logits.Offset()%16 != 0}
}

// selectPlan is the algorithm of a selection and the division of its work: a pure function of sizes and limits. A chunk
// is 16 bytes of logits, four keys.
type selectPlan struct {
	block, blocks, segments uint64 // entries of the longest segment; segments of a row; segments of all rows
	selected                uint64 // most entries that a segment can select
	threads                 uint32 // invocations of a workgroup
	parts, span             uint64 // workgroups per segment; chunks per part

	direct  bool // one workgroup per segment
	sampled bool // by a sampled threshold; neither: radix

	samplesPerThread         uint64
	sampleStride, sampleRank uint64 // entries per sample; rank of the sample that is the threshold, from the largest
	maxCandidates            uint64 // entries of a segment above the threshold that are stored
	rankGroups               uint64 // workgroups per segment that rank them

	fusedSort bool   // the selecting workgroup sorts
	sortRuns  uint64 // runs of a segment that are sorted in a dispatch of their own
	merges    int    // dispatches that merge runs

	stateBytes, countBytes, candidateBytes, pairBytes uint64 // scratch memory; twice pairBytes with more than one merge
}

func newSelectPlan(l selectLimits, sorted bool, sizes selectSizes) selectPlan {
	n := uint64(sizes.n)
	p := selectPlan{block: uint64(sizes.block), parts: 1}
	if sizes.block == 0 || p.block > n {
		p.block = n
	}
	p.blocks = ceilDiv(n, p.block)
	if sizes.windows > 0 {
		p.blocks = uint64(sizes.windows)
	}
	p.segments = uint64(sizes.rows) * p.blocks
	p.selected = min(uint64(sizes.k), p.block)

	chunks, unalignedChunks := ceilDiv(p.block, 4), ceilDiv(p.block+3, 4) // the latter where segments start within a chunk
	if n%4 != 0 && sizes.rows > 1 || p.block%4 != 0 && p.blocks > 1 {
		chunks = unalignedChunks
	}
	// An invocation of the direct kernel has four chunks in flight and reads at most eight. More invocations would have
	// less work each and wait longer at barriers. Without sorting it reads up to sixteen: that is a router, whose
	// selection runs beside longer dispatches, where a single step matters most.
	maxChunks := uint64(8)
	if !sorted {
		maxChunks = 16
	}
	p.threads = min(l.threads, 256)
	if sorted && p.block <= selectNarrowSort {
		p.threads = min(l.threads, 128)
	}
	for p.threads < l.threads && 4*uint64(p.threads) < chunks {
		p.threads *= 2
	}
	p.direct = chunks <= maxChunks*uint64(p.threads)
	if sizes.unaligned { // after the choice of direct, so that the need for scratch memory does not depend on alignment
		chunks = unalignedChunks
	}
	keepDirect := p.direct && (p.segments > selectMaxSampledSegments || !sorted)
	if p.block > selectMinSampled && p.selected <= uint64(l.sortCapacity) && !keepDirect && p.planSampled(l, chunks, sorted) {
		return p
	}
	if !p.direct {
		const maxParts = 1024 // each adds up the counts of the parts before it
		p.threads = l.scanThreads()
		tile := 2 * uint64(p.threads) // chunks that a workgroup of select_digit reads at a time
		p.span = ceilDiv(chunks, tile*maxParts) * tile
		p.parts = ceilDiv(chunks, p.span)
		p.stateBytes = p.segments * selectStateBytes
		p.countBytes = (p.segments*p.parts*8 + 15) &^ 15
	}
	p.fusedSort = sorted && p.direct && p.selected <= uint64(l.sortCapacity)
	if sorted && !p.fusedSort {
		p.sortRuns = ceilDiv(p.selected, uint64(l.sortCapacity))
		p.pairBytes = (p.segments*p.selected*8 + 15) &^ 15
		for run := uint64(l.sortCapacity); run < p.selected; run *= 2 {
			p.merges++
		}
	}
	return p
}

// planSampled plans a selection by a sampled threshold. It returns false where there would be too many candidates.
//
// The number of samples among the k largest entries has about a Poisson distribution with mean k / sampleStride. The
// rank of the threshold is 6 deviations above that mean, so the chance of fewer than k candidates is below one in a
// million. The bound on candidates is as unlikely to be exceeded. In these cases one workgroup does all the work: the
// result is the same, but slow.
func (p *selectPlan) planSampled(l selectLimits, chunks uint64, sorted bool) bool {
	above := func(mean float64) float64 { return math.Ceil(mean + 6*math.Sqrt(mean) + 4) }
	for p.samplesPerThread = 8; ; p.samplesPerThread *= 2 { // more samples, fewer candidates
		samples := p.samplesPerThread * uint64(l.scanThreads())
		p.sampleStride = ceilDiv(p.block, samples)
		rank := above(float64(p.selected) / float64(p.sampleStride))
		p.sampleRank = uint64(rank)
		p.maxCandidates = uint64(above(rank*9/8)) * p.sampleStride // select_sample may let the rank grow by an eighth
		if p.segments*p.maxCandidates*p.maxCandidates <= selectMaxCandidates*selectMaxCandidates || p.samplesPerThread == selectMaxSamplesPerThread {
			break
		}
	}
	if p.maxCandidates > selectMaxCandidates {
		return false
	}
	p.direct, p.sampled, p.threads = false, true, l.elementThreads()
	p.span = selectGatherChunks * uint64(p.threads)
	p.parts = ceilDiv(chunks, p.span)
	p.rankGroups = min(ceilDiv(p.maxCandidates, selectPairsPerPass), max(1024/p.segments, 8))
	p.stateBytes, p.countBytes = p.segments*32, (p.segments*p.parts*4+15)&^15
	p.candidateBytes = (p.segments*p.maxCandidates*8 + 15) &^ 15
	if !sorted {
		p.pairBytes = (p.segments*p.selected*8 + 15) &^ 15
	}
	return true
}

// selectScratch is the scratch memory of a selection, whatever the alignment of its logits.
func selectScratch(l selectLimits, sorted bool, sizes selectSizes) uint64 {
	if sizes.rows < 1 || sizes.n < 1 || sizes.k < 1 || sizes.block < 0 || sizes.windows < 0 {
		return 0
	}
	sizes.unaligned = false
	aligned := newSelectPlan(l, sorted, sizes).scratch()
	sizes.unaligned = true
	return max(aligned, newSelectPlan(l, sorted, sizes).scratch())
}

func (p selectPlan) scratch() uint64 {
	if p.merges > 1 {
		return p.stateBytes + p.countBytes + 2*p.pairBytes
	}
	return p.stateBytes + p.countBytes + p.candidateBytes + p.pairBytes
}
