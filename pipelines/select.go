package pipelines

import (
	"fmt"
	"math"
	"unsafe"

	"github.com/colt5-vulkan/colt5/shaders"
	"github.com/colt5-vulkan/colt5/vk"
)

// Select is the hard top-k: the K valid entries with the largest logits of each row, or of each segment of a row.
// Segments are blocks of a row, or prefixes of it.
//
//	logits [Rows, N] f32 in             mask [Rows / Routes, N] u8 in, optional
//	indices [Rows, Blocks, K] i32 out   valid [Rows, Blocks, K] u32 out, 1 or 0   values [Rows, Blocks, K] f32 out, optional
//	Blocks = ceil(N / BlockSize)
//
// With Windows, window m = 0 .. Windows-1 is the prefix of min(m * WindowSize, N) entries of a row, so the slots of window
// 0 stay empty:
//
//	indices, valid, values [Items, Windows, Routes, K]   Items = Rows / Routes
//
// Of equal logits the lower index wins. -0 equals +0, and a NaN ranks below minus infinity. A masked entry is never
// selected. With fewer than K valid entries the last slots stay empty: they have EmptyIndex, valid 0 and value 0.
// Indices count from the start of the row, also with blocks. K may exceed N; a CPU driver rejects a K of tens of
// millions. Scratch starts at a multiple of 16 bytes, the mask at any byte, other ranges at multiples of 4.
//
// There are three algorithms. Sizes below are those of a segment; a window counts as N entries.
//
//   - Direct: one workgroup, one dispatch. Up to 32,768 entries (32 per invocation of the largest workgroup), or 65,536
//     unsorted.
//   - Sampled: a sample gives a threshold, many workgroups gather the entries above it, and the slot of each is the
//     number of gathered entries that precede it. Three dispatches, four unsorted. For longer segments, and for few
//     segments of more than 8,192 entries that are sorted; up to 2,048 slots (1,024 on small devices) and some million
//     entries.
//   - Radix: one dispatch per digit of the keys, of which there are three, one to count and one to compact. Sorting
//     takes further dispatches. So does a direct selection of more than 2,048 slots (1,024 on small devices).
//
// Shaders: shaders/select*.comp. CPU reference: internal/ref.Select.
type Select struct {
	config  SelectConfig
	caps    vk.Caps
	limits  selectLimits
	kernels kernelCache
}

// SelectConfig is the order of the slots of a segment.
type SelectConfig struct {
	Sorted bool // by descending logit, then by ascending index; false: by ascending index, which is faster
}

// selectPush follows the nine addresses in the push constants of shaders/src/include/select.glsl, which describes the
// fields.
type selectPush struct {
	n, block, blocks, k, slots, routes, segments, parts, span, parameter uint32
	emptyIndex                                                           int32
	validWord, maxCandidates, skippedBlocks                              uint32
}

var _ = [1]struct{}{}[unsafe.Sizeof(selectPush{})-56]

// NewSelect makes a selection. Record compiles kernels when it first needs them.
func NewSelect(dev *vk.Device, c SelectConfig) (*Select, error) {
	caps := dev.Caps()
	return &Select{config: c, caps: caps, limits: newSelectLimits(caps), kernels: kernelCache{dev: dev}}, nil
}

// Record appends the dispatches of a selection to a command list.
func (s *Select) Record(list *vk.CommandList, a SelectArgs) error {
	const op = "Select"
	if a.Routes == 0 {
		a.Routes = 1
	}
	if err := s.checkSizes(a); err != nil {
		return err
	}
	r := selectRecorder{Select: s, list: list, args: a, plan: newSelectPlan(s.limits, s.config.Sorted, a.sizes())}
	if r.plan.segments > math.MaxInt32 {
		return fmt.Errorf("pipelines: %s: Rows %d with %d blocks each, want at most %d blocks", op, a.Rows, r.plan.blocks, math.MaxInt32)
	}
	if r.plan.direct {
		if err := checkIterations(s.caps, op, fmt.Sprintf("K of %d", a.K), a.K/int(r.plan.threads)); err != nil {
			return err
		}
	}
	if err := r.checkRanges(); err != nil {
		return err
	}
	r.push = selectPush{
		n: uint32(a.N), block: uint32(r.plan.block), blocks: uint32(r.plan.blocks), k: uint32(a.K), slots: uint32(r.plan.selected),
		routes: uint32(a.Routes), segments: uint32(r.plan.segments), parts: 1, span: uint32(r.plan.span), emptyIndex: a.EmptyIndex, validWord: max(a.ValidWord, 1),
		skippedBlocks: uint32(a.SkipBlocks),
	}
	if a.Windows > 0 {
		r.push.block = uint32(a.WindowSize)
	}
	if err := r.record(); err != nil {
		return fmt.Errorf("pipelines: %s: %w", op, err)
	}
	return nil
}

// selectRecorder records one selection.
type selectRecorder struct {
	*Select
	list *vk.CommandList
	args SelectArgs
	plan selectPlan
	push selectPush

	// The parts of the scratch memory.
	state, counts, candidates vk.Range
	pairs                     [2]vk.Range
}

func (r *selectRecorder) record() error {
	switch {
	case r.plan.sampled:
		return r.recordSampled()
	case r.plan.direct:
		if err := r.dispatch(selectStep{kernel: "select", readsLogits: true, to: r.pairs[0]}); err != nil {
			return err
		}
		return r.recordSort()
	}
	return r.recordRadix()
}

// recordRadix records a selection by three digits of the keys.
func (r *selectRecorder) recordRadix() error {
	r.push.parts = uint32(r.plan.parts)
	if err := r.list.Fill(r.state, 0); err != nil {
		return err
	}
	for step := range uint32(4) { // three histograms, and the counts
		s := selectStep{kernel: "select_digit", parameter: step, readsLogits: true, intermediate: true, state: vk.ReadWrite(r.state)}
		if step == 3 {
			s.counts = vk.Write(r.counts)
		}
		if err := r.dispatch(s); err != nil {
			return err
		}
	}
	compact := selectStep{kernel: "select_compact", readsLogits: true, state: vk.Read(r.state), counts: vk.Read(r.counts), to: r.pairs[0]}
	if err := r.dispatch(compact); err != nil {
		return err
	}
	return r.recordSort()
}

// recordSampled records a selection by a sampled threshold.
func (r *selectRecorder) recordSampled() error {
	p, state := r.plan, vk.ReadWrite(r.state)
	r.push.span = uint32(p.sampleStride)
	sample := selectStep{kernel: "select_sample", parameter: uint32(p.sampleRank), readsLogits: true, sparse: true, intermediate: true, state: vk.Write(r.state)}
	if err := r.dispatch(sample); err != nil {
		return err
	}
	r.push.span, r.push.parts, r.push.maxCandidates = uint32(p.span), uint32(p.parts), uint32(p.maxCandidates)
	gather := selectStep{kernel: "select_gather", readsLogits: true, state: state, counts: vk.Write(r.counts), to: r.candidates}
	if err := r.dispatch(gather); err != nil {
		return err
	}
	r.push.parts = uint32(p.rankGroups)
	rank := selectStep{
		kernel: "select_rank", parameter: uint32(p.parts), readsLogits: true, sparse: true, state: state, counts: vk.Read(r.counts),
		from: r.candidates, to: r.pairs[0],
	}
	if err := r.dispatch(rank); err != nil || p.pairBytes == 0 {
		return err
	}
	// Unsorted: a second ranking orders the selected pairs by index.
	r.push.maxCandidates = uint32(p.selected)
	r.push.parts = uint32(min(p.rankGroups, ceilDiv(p.selected, selectPairsPerPass)))
	return r.dispatch(selectStep{kernel: "select_rank", state: vk.Read(r.state), from: r.pairs[0]})
}

// recordSort sorts the selected pairs: runs of sortCapacity pairs, then merges. The last step writes the result.
func (r *selectRecorder) recordSort() error {
	p := r.plan
	if p.sortRuns == 0 {
		return nil
	}
	s := selectStep{kernel: "select_sort", from: r.pairs[0], to: r.pairs[0]}
	if p.merges == 0 {
		s.to = vk.Range{}
	}
	r.push.parts = uint32(p.sortRuns)
	if err := r.dispatch(s); err != nil {
		return err
	}
	for i := range p.merges {
		run := uint64(r.limits.sortCapacity) << i
		s = selectStep{kernel: "select_merge", parameter: uint32(run), from: r.pairs[i%2], to: r.pairs[(i+1)%2]}
		pairs := p.selected
		if i == p.merges-1 {
			s.to, pairs = vk.Range{}, uint64(r.args.K)
		}
		r.push.parts = uint32(ceilDiv(pairs, uint64(r.limits.elementThreads())))
		if err := r.dispatch(s); err != nil {
			return err
		}
	}
	return nil
}

// selectStep is one dispatch. It writes pairs to the range to; without that range it writes the result, unless it is
// intermediate.
type selectStep struct {
	kernel        string
	parameter     uint32 // push constant of the kernel
	readsLogits   bool   // a step that writes values reads them in any case
	sparse        bool   // reads so few logits that they do not count as memory traffic
	intermediate  bool   // writes only state and counts
	state, counts vk.Access
	from, to      vk.Range
}

func (r *selectRecorder) dispatch(s selectStep) error {
	k, err := r.kernel(s.kernel, r.plan, r.args.Windows > 0, !r.args.Mask.IsZero())
	if err != nil {
		return err
	}
	groups, err := vk.Grid(r.caps, r.plan.segments*uint64(r.push.parts))
	if err != nil {
		return err
	}
	const logits, mask, indices, valid, values = 0, 1, 2, 3, 4 // in args
	a, bytes := r.args, s.from.Size()+s.to.Size()
	args := []vk.Access{{}, {}, {}, {}, {}, s.state, s.counts, vk.Read(s.from), vk.Write(s.to)}
	writesResult := s.to.IsZero() && !s.intermediate
	if s.readsLogits || writesResult && !a.Values.IsZero() {
		args[logits] = vk.Read(a.Logits)
	}
	if s.readsLogits {
		args[mask] = vk.Read(a.Mask)
	}
	if s.readsLogits && !s.sparse {
		bytes += a.Logits.Size() + a.Mask.Size()
	}
	if writesResult {
		args[indices], args[valid], args[values] = vk.Write(a.Indices), vk.Write(a.Valid), vk.Write(a.Values)
		bytes += a.Indices.Size() + a.Valid.Size() + a.Values.Size()
	}
	push := r.push
	push.parameter = s.parameter
	return r.list.Dispatch(vk.Dispatch{Kernel: k, Groups: groups, Args: args, Push: vk.Scalars(&push), Bytes: float64(bytes)})
}

// kernel returns a kernel of a plan.
func (s *Select) kernel(name string, plan selectPlan, windows, masked bool) (*vk.Kernel, error) {
	threads, spec := plan.threads, map[uint32]uint32{shaders.SelectPrefixSegments: specBool(windows)}
	switch name {
	case "select":
		spec[shaders.SelectSorted] = specBool(plan.fusedSort)
	case "select_sample":
		threads, spec[shaders.SelectSampleSamplesPerThread] = s.limits.scanThreads(), uint32(plan.samplesPerThread)
	case "select_rank":
		threads, spec[shaders.SelectRankPairsPerPass] = s.limits.scanThreads(), selectPairsPerPass
	case "select_sort":
		threads = s.limits.scanThreads()
	case "select_merge":
		threads = s.limits.elementThreads()
	}
	// A shader has only the constants that it uses.
	if name != "select_merge" && name != "select_compact" && name != "select_gather" {
		spec[shaders.SelectSortCapacity] = s.limits.sortCapacity
	}
	if name != "select_merge" && name != "select_sort" { // which read no logits
		spec[shaders.SelectMasked] = specBool(masked)
		spec[shaders.SelectSubgroups] = max(threads/s.limits.subgroupMin, 1)
	}
	spec[shaders.SelectLocalSizeX] = threads
	return s.kernels.kernel(fullSubgroups(s.kernels.dev, name, name, threads, spec))
}

// Close frees the kernels. It may be called again, and on nil.
func (s *Select) Close() error {
	if s == nil {
		return nil
	}
	return s.kernels.close()
}
