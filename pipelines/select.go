package pipelines

import (
	"fmt"
	"math"
	"unsafe"

	"github.com/colt5-vulkan/colt5/vk"
)

// Select is the hard top-k: the k valid entries with the largest logits of each row, or of each block of a row.
//
//	logits [Rows, N] f32 in             mask [Rows / Routes, N] u8 in, optional
//	indices [Rows, Blocks, K] i32 out   filled [Rows, Blocks, K] u32 out, 1 or 0   values [Rows, Blocks, K] f32 out, optional
//	Blocks = ceil(N / BlockSize)
//
// With Windows, m = 0 .. Windows-1 chooses from the first min(m * Prefix, N) entries of a row, so window 0 stays empty:
//
//	indices, filled, values [Items, Windows, Routes, K]   Items = Rows / Routes
//
// Of equal logits the lower index wins; -0 equals +0, and a NaN ranks below minus infinity. A masked entry is never taken: with
// fewer than K valid ones the last slots stay empty, with EmptyIndex, filled 0 and value 0. Indices count from the start of the
// row, also with blocks. K may exceed N; by tens of millions a CPU driver refuses. Ranges may start at any multiple of 4 bytes, the mask anywhere,
// scratch memory at a multiple of 16.
//
// There are three ways; a window counts as a block of N entries. A block of up to 32,768 entries (32 a thread of the largest workgroup),
// or 65,536 if not sorted, takes one dispatch of one workgroup. Of a longer one, or of more than 8,192 entries to be sorted where there
// are few blocks, a sample tells a threshold, the entries above it are gathered by many workgroups, and each of these goes to the slot
// that is the number of those before it: three dispatches, or four if not sorted, for up to 2,048 slots (1,024 on small devices) and
// rows of some million entries. Beyond that a long block takes a dispatch for each of three digits of the keys, one to count, one to
// write; sorting then takes dispatches of its own, as it does for a short block with more slots than these.
//
// Shaders: shaders/select*.comp. Reference: internal/ref.Select.
type Select struct {
	config  SelectConfig
	caps    vk.Caps
	limits  selectLimits
	kernels kernelCache
}

// SelectConfig says in which order the slots of a block come.
type SelectConfig struct {
	Sorted bool // by falling logit, equal ones by rising index; false: by rising index, which is faster
}

// Places in the push block of shaders/include/select.glsl, after its nine addresses.
type selectPush struct {
	n, block, blocks, k, slots, routes, segments, parts, span, step uint32
	empty                                                           int32
	word, list, skip                                                uint32
}

var _ [56 - unsafe.Sizeof(selectPush{})]byte
var _ [unsafe.Sizeof(selectPush{}) - 56]byte

// NewSelect makes a selection for a device. Its kernels are compiled when they are first recorded.
func NewSelect(dev *vk.Device, c SelectConfig) (*Select, error) {
	caps := dev.Caps()
	return &Select{config: c, caps: caps, limits: newSelectLimits(caps), kernels: kernelCache{dev: dev}}, nil
}

// Record adds the dispatches of a selection to a tape.
func (s *Select) Record(t *vk.CommandList, a SelectArgs) error {
	if a.Routes == 0 {
		a.Routes = 1
	}
	if err := s.checkSizes(a); err != nil {
		return err
	}
	r := selectRecorder{Select: s, list: t, args: a, plan: newSelectPlan(s.limits, s.config.Sorted, a.sizes())}
	if r.plan.segments > math.MaxInt32 {
		return fmt.Errorf("pipelines: Select: Rows %d with %d blocks each, want at most %d blocks", a.Rows, r.plan.blocks, math.MaxInt32)
	}
	if r.plan.direct {
		if err := checkIterations(s.caps, "Select", fmt.Sprintf("K of %d", a.K), a.K/int(r.plan.threads)); err != nil {
			return err
		}
	}
	if err := r.checkRanges(); err != nil {
		return err
	}
	r.push = selectPush{
		n: uint32(a.N), block: uint32(r.plan.block), blocks: uint32(r.plan.blocks), k: uint32(a.K), slots: uint32(r.plan.selected),
		routes: uint32(a.Routes), segments: uint32(r.plan.segments), parts: 1, span: uint32(r.plan.span), empty: a.EmptyIndex, word: max(a.ValidWord, 1),
		skip: uint32(a.SkipBlocks),
	}
	if a.Windows > 0 {
		r.push.block = uint32(a.Prefix)
	}
	if err := r.record(); err != nil {
		return fmt.Errorf("pipelines: Select: %w", err)
	}
	return nil
}

// selectRecorder is one selection on its way to a tape.
type selectRecorder struct {
	*Select
	list *vk.CommandList
	args SelectArgs
	plan selectPlan
	push selectPush

	state, counts, candidates vk.Range
	pairs                     [2]vk.Range
}

func (r *selectRecorder) record() error {
	p := r.plan
	if p.sampled {
		return r.recordSampled()
	}
	first := selectStep{to: r.pairs[0]}
	if p.pairBytes == 0 {
		first.to = vk.Range{}
	}
	if p.direct {
		first.kernel, first.readsLogits = "select", true
		if err := r.dispatch(first); err != nil {
			return err
		}
		return r.recordSort()
	}
	r.push.parts = uint32(p.parts)
	if err := r.list.Fill(r.state, 0); err != nil {
		return err
	}
	for step := range uint32(4) {
		s := selectStep{kernel: "select_digit", step: step, readsLogits: true, intermediate: true, state: vk.ReadWrite(r.state)}
		if step == 3 {
			s.counts = vk.Write(r.counts)
		}
		if err := r.dispatch(s); err != nil {
			return err
		}
	}
	first.kernel, first.readsLogits, first.state, first.counts = "select_compact", true, vk.Read(r.state), vk.Read(r.counts)
	if err := r.dispatch(first); err != nil {
		return err
	}
	return r.recordSort()
}

// sampled records a selection by samples.
func (r *selectRecorder) recordSampled() error {
	p := r.plan
	state := vk.ReadWrite(r.state)
	r.push.span = uint32(p.sampleStride)
	if err := r.dispatch(selectStep{kernel: "select_sample", step: uint32(p.sampleRank), readsLogits: true, sparse: true, intermediate: true, state: vk.Write(r.state)}); err != nil {
		return err
	}
	r.push.span, r.push.parts, r.push.list = uint32(p.span), uint32(p.parts), uint32(p.maxCandidates)
	if err := r.dispatch(selectStep{kernel: "select_gather", readsLogits: true, state: state, counts: vk.Write(r.counts), to: r.candidates}); err != nil {
		return err
	}
	rank := selectStep{
		kernel: "select_rank", step: uint32(p.parts), readsLogits: true, sparse: true, state: state, counts: vk.Read(r.counts), from: r.candidates,
	}
	if p.pairBytes != 0 {
		rank.to = r.pairs[0]
	}
	r.push.parts = uint32(p.rankGroups)
	if err := r.dispatch(rank); err != nil || p.pairBytes == 0 {
		return err
	}
	r.push.list = uint32(p.selected)
	r.push.parts = uint32(min(p.rankGroups, (p.selected+selectPairsPerPass-1)/selectPairsPerPass))
	return r.dispatch(selectStep{kernel: "select_rank", state: vk.Read(r.state), from: r.pairs[0]})
}

// sort brings pairs in order: runs of limits.slots each, then merges; the last step writes the result.
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
	run, threads := uint64(r.limits.sortCapacity), uint64(r.limits.smallThreads())
	for i := range p.merges {
		s = selectStep{kernel: "select_merge", step: uint32(run << i), from: r.pairs[i%2], to: r.pairs[(i+1)%2]}
		places := p.selected
		if i == p.merges-1 {
			s.to, places = vk.Range{}, uint64(r.args.K)
		}
		r.push.parts = uint32((places + threads - 1) / threads)
		if err := r.dispatch(s); err != nil {
			return err
		}
	}
	return nil
}

// selectStep is one dispatch. What writes no pairs to the range to, and is no inner step, writes the result.
type selectStep struct {
	kernel        string
	step          uint32
	readsLogits   bool // the logits; every step that writes values reads some of them too
	sparse        bool // of them, as a rule
	intermediate  bool // writes state and counts only
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
	a, bytes := r.args, s.from.Size()+s.to.Size()
	args := []vk.Access{{}, {}, {}, {}, {}, s.state, s.counts, vk.Read(s.from), vk.Write(s.to)}
	result := s.to.IsZero() && !s.intermediate
	if s.readsLogits || result && !a.Values.IsZero() {
		args[0] = vk.Read(a.Logits)
	}
	if s.readsLogits {
		args[1] = vk.Read(a.Mask)
	}
	if s.readsLogits && !s.sparse {
		bytes += a.Logits.Size() + a.Mask.Size()
	}
	if result {
		args[2], args[3], args[4] = vk.Write(a.Indices), vk.Write(a.Valid), vk.Write(a.Values)
		bytes += a.Indices.Size() + a.Valid.Size() + a.Values.Size()
	}
	push := r.push
	push.step = s.step
	return r.list.Dispatch(vk.Dispatch{Kernel: k, Groups: groups, Args: args, Push: vk.Scalars(&push), Bytes: float64(bytes)})
}

// kernel returns a kernel of a plan, compiled at its first use.
func (s *Select) kernel(name string, p selectPlan, windows, masked bool) (*vk.Kernel, error) {
	const slots, subgroups, own, prefixes, mask = 1, 2, 3, 4, 5 // constant ids; 0 are the threads, and each shader has those it uses
	threads, spec := p.threads, map[uint32]uint32{prefixes: specBool(windows)}
	switch name {
	case "select":
		spec[own] = specBool(p.fusedSort)
	case "select_sample":
		threads, spec[own] = s.limits.mediumThreads(), uint32(p.samplesPerThread)
	case "select_rank":
		threads, spec[own] = s.limits.mediumThreads(), selectPairsPerPass
	case "select_sort":
		threads = s.limits.mediumThreads()
	case "select_merge":
		threads = s.limits.smallThreads()
	}
	if name != "select_merge" && name != "select_compact" && name != "select_gather" {
		spec[slots] = s.limits.sortCapacity
	}
	if name != "select_merge" && name != "select_sort" { // these two see pairs alone
		spec[mask] = specBool(masked)
		spec[subgroups] = max(threads/s.limits.subgroupMin, 1)
	}
	spec[0] = threads
	return s.kernels.get(name, name, s.caps.FullSubgroups, spec)
}

// Close frees the kernels. One that an open tape uses stays, and the next Close tries again.
func (s *Select) Close() error {
	if s == nil {
		return nil
	}
	return s.kernels.close()
}
