package pipelines

import (
	"fmt"
	"slices"
	"unsafe"

	"github.com/colt5-vulkan/colt5/shaders"
	"github.com/colt5-vulkan/colt5/vk"
)

// CoorDescent computes soft top-k scores from router logits in [0, 1] by coordinate descent. Every row, or every
// segment of a row, is a problem of its own. Segments are blocks of a row, or prefixes of it.
//
//	logits [Rows, N] f32 in         mask [Rows / Routes, N] u8 in, optional
//	scores [Rows, N] f32 out        state [Rows, Blocks, Iters, 4] f32 out, optional
//	indices [Rows, Blocks, Slots] i32 in      valid [Rows, Blocks, Slots] u32 in, optional
//	selected scores [Rows, Blocks, Slots] f32 out, in addition to scores or instead of them
//	row k [Rows] f32 in, optional: a K for each row
//
// With Windows, window m = 0 .. Windows-1 is the prefix of min(m * WindowSize, N) entries of a row. K is the same
// for all windows:
//
//	scores [Items, Windows, Routes, N], 0 beyond the prefix      state [Items, Windows, Routes, Iters, 4]
//	indices, valid, selected scores [Items, Windows, Routes, Slots]      Items = Rows / Routes
//
// The iterations are
//
//	t = 0 .. Iters-1: a_t = e_t * (log K - logsumexp(u)),  u_i = 0 at t = 0, then min(logit_i, -a_{t-1}) / e_t
//	score_i = exp(min(logit_i + a_{Iters-1}, 0) / e_Iters);  e_0 = max(EpsInit, Eps), e_{t+1} = max(e_t * EpsDecay, Eps)
//
// Masked entries score 0 and do not contribute. Logits are clamped to -1e38 .. 1e38, so infinities are allowed; the
// scores of a row with a NaN are undefined. A selected score has the bits that its entry has in scores. It is 0 where
// valid is 0, and where the index, counted from the start of the row, is outside of the segment.
//
// State is what a backward pass needs, with top_t = min(largest logit, -a_{t-1}):
//
//	t = 0: a_0 in two floats (high, low), number of valid entries, largest logit
//	t > 0: a_t in two floats, sum of exp((min(logit, -a_{t-1}) - top_t) / e_t), number of logits > -a_{t-1}
//
// The state of a segment without a valid entry, or of which all entries are selected, is zero: its gradient is 0.
// Scores differ in the last bits between a run with State and one without, which caches exponentials.
//
// A segment of up to 32,768 entries takes one dispatch; a workgroup holds it in registers. On devices with few
// registers it is 24,576 or 49,152 entries, 6,144 on some. A longer segment takes Iters + 1 dispatches, and several
// workgroups share it through Scratch. The path and the order of summation depend only on the device and on the
// length of a block (with Windows: on N). On devices with few registers whose driver reports spills they also
// depend on the driver, on State and on Windows. State and Scratch start at multiples of 16 bytes, the mask at any
// byte, other ranges at multiples of 4.
//
// Shader: shaders/src/coor_descent.comp. CPU reference: internal/ref.CoorDescent. Source: arXiv 1502.04759, 2304.04947.
type CoorDescent struct {
	config  CoorDescentConfig
	kernels kernelCache
}

// CoorDescentConfig is the schedule of the iterations.
type CoorDescentConfig struct {
	Iters    int     // 1 to 65536
	Eps      float64 // temperature: 1e-30 to 1e30; larger is smoother
	EpsInit  float64 // temperature of the first iteration; 0, or less than Eps: Eps
	EpsDecay float64 // factor of the temperature per iteration, in (0, 1]; 0: 1
}

// coorDescentPush is the common part of the push constants of both kernels.
type coorDescentPush struct {
	groups, n, blockSize, blocks, routes, slots, iters uint32
	k, kLast                                           float32
}

// coorDescentRegisterPush is for the kernel that holds a segment in registers.
type coorDescentRegisterPush struct {
	coorDescentPush
	eInit, eps, decay, decayLow float32
}

// coorDescentLongPush is for one step of the kernel for long segments.
type coorDescentLongPush struct {
	coorDescentPush
	parts, span, step uint32
	ePrevious, e      float32
}

var (
	_ = [1]struct{}{}[unsafe.Sizeof(coorDescentRegisterPush{})-52]
	_ = [1]struct{}{}[unsafe.Sizeof(coorDescentLongPush{})-56]
)

// coorDescentPlan is the division of a segment among invocations and workgroups.
type coorDescentPlan struct {
	threads       uint32 // invocations of a workgroup
	vec4PerThread uint32 // vec4 of entries that an invocation holds in registers; 0: the segment is long
	parts         int    // workgroups that share a long segment
	span          int    // entries of a part, a multiple of 4
}

const (
	coorDescentMaxVec4     = 16   // per invocation; more would spill registers
	coorDescentSureVec4    = 6    // per invocation: fits on every chip that it was compiled for
	coorDescentPartEntries = 4096 // 16 per invocation
	coorDescentMaxParts    = 1024 // every workgroup adds up the results of all parts
)

// coorDescentVec4 returns how many vec4 of entries an invocation of a workgroup can hold in registers. It is 0 for a
// workgroup with too few registers per invocation. Not sure: compilers for some chips with so many registers spill.
//
// Compiled for 512 invocations, or as many as fit: 16 fit in the 128 registers of NVIDIA's chips since Turing,
// which have uniform registers too; 12 in those of its older chips (14 spill 65) and of Intel's from Gen11 on (13
// spill 4), but not of Gen9 (6 fit, 7 spill 12); 8 in the 104 of Apple's (9 spill 16) and the 96 of Adreno (10
// spill 4). In 64 not even 4 fit.
func coorDescentVec4(l deviceLimits, workgroup uint32, sure bool) uint32 {
	switch n := l.registersIn(workgroup); {
	case n >= 220:
		return coorDescentMaxVec4
	case n < 96:
		return 0
	case sure:
		return coorDescentSureVec4
	case n >= 128:
		return 12
	}
	return 8
}

// planCoorDescent is a function of the device and of the length of a segment. sure: of two plans the one with fewer
// entries per invocation.
func planCoorDescent(l deviceLimits, length int, sure bool) coorDescentPlan {
	// 32 entries per invocation amortise the redundant work of every invocation: the reduction over the workgroup and
	// the scalars of an iteration. At 512 invocations it is 64 entries, because redundant scalars cost more with 1,024.
	// Where 64 entries do not fit, 1,024 may still be better than several dispatches. The shader reduces at most 256
	// subgroups.
	limit := min(l.MaxWorkgroupInvocations, l.MaxWorkgroupSize[0], 1024, 256*max(l.SubgroupMin, 1))
	if coorDescentVec4(l, 512, sure) == coorDescentMaxVec4 {
		limit = min(limit, 512)
	}
	threads := uint32(min(64, limit))
	largest := threads // which holds the most entries
	for n := 2 * threads; n <= limit; n *= 2 {
		if n*coorDescentVec4(l, n, sure) > largest*coorDescentVec4(l, largest, sure) {
			largest = n
		}
	}
	for threads < largest && int(threads*4*min(8, coorDescentVec4(l, threads, sure))) < length {
		threads *= 2
	}
	if n := ceilDiv(uint64(length), 4*uint64(threads)); n <= uint64(coorDescentVec4(l, threads, sure)) {
		return coorDescentPlan{threads: threads, vec4PerThread: uint32(n)}
	}
	span := coorDescentPartEntries
	if length > coorDescentPartEntries*coorDescentMaxParts {
		span = (length + span*coorDescentMaxParts - 1) / (span * coorDescentMaxParts) * span
	}
	return coorDescentPlan{threads: min(threads, 256), parts: (length + span - 1) / span, span: span}
}

// coorDescentPlans returns the plans for segments of a length, in order of preference: one that is known to fit the
// registers, or a better one and one that fits.
func coorDescentPlans(l deviceLimits, length int) []coorDescentPlan {
	best, sure := planCoorDescent(l, length, false), planCoorDescent(l, length, true)
	if best == sure || best.vec4PerThread == 0 {
		return []coorDescentPlan{sure}
	}
	if best.vec4PerThread <= coorDescentSureVec4 {
		return []coorDescentPlan{best}
	}
	return []coorDescentPlan{best, sure}
}

// partialBytes is the memory that a long segment passes from one dispatch to the next: 16 bytes, and 8 per part.
func (p coorDescentPlan) partialBytes() uint64 { return 16 + 16*uint64((p.parts+1)/2) }

// checked returns the schedule with its defaults, or an error.
func (c CoorDescentConfig) checked(op string) (CoorDescentConfig, error) {
	const least, most = 1e-30, 1e30 // keep all products and quotients of the kernel in the range of float32
	if c.EpsDecay == 0 {
		c.EpsDecay = 1
	}
	switch {
	case c.Iters < 1 || c.Iters > 1<<16:
		return c, fmt.Errorf("pipelines: %s: Iters is %d, want 1 to %d", op, c.Iters, 1<<16)
	case !(c.Eps >= least && c.Eps <= most):
		return c, fmt.Errorf("pipelines: %s: Eps is %g, want %g to %g", op, c.Eps, least, most)
	case !(c.EpsInit >= 0 && c.EpsInit <= most):
		return c, fmt.Errorf("pipelines: %s: EpsInit is %g, want 0 to %g", op, c.EpsInit, most)
	case !(c.EpsDecay > 0 && c.EpsDecay <= 1):
		return c, fmt.Errorf("pipelines: %s: EpsDecay is %g, want more than 0, at most 1", op, c.EpsDecay)
	}
	return c, nil
}

// NewCoorDescent checks the schedule. Record compiles kernels when it first needs them.
func NewCoorDescent(dev *vk.Device, c CoorDescentConfig) (*CoorDescent, error) {
	c, err := c.checked("CoorDescent")
	if err != nil {
		return nil, err
	}
	return &CoorDescent{config: c, kernels: kernelCache{dev: dev}}, nil
}

// coorDescentFlops is the work for an entry in one iteration: two differences, a scaling, an exponential and a sum.
const coorDescentFlops = 5

// Record appends the dispatches to a command list.
func (c *CoorDescent) Record(list *vk.CommandList, a CoorDescentArgs) error {
	const op = "CoorDescent"
	if a.Routes == 0 {
		a.Routes = 1
	}
	if err := c.check(a); err != nil {
		return err
	}
	caps := c.kernels.dev.Caps()
	plan, kernel, err := c.kernel(coorDescentPlans(limitsOfCaps(caps), a.segmentLength()), coorDescentOptions{
		state: !a.State.IsZero(), windows: a.Windows > 0, rowK: !a.RowK.IsZero(),
	})
	if err != nil {
		return fmt.Errorf("pipelines: %s: %w", op, err)
	}
	count := a.Rows * a.segments() * max(plan.parts, 1)
	groups, err := workgroups(caps, op, uint64(count))
	if err != nil {
		return err
	}
	push := coorDescentPush{
		groups: uint32(count), n: uint32(a.N), blockSize: uint32(a.segmentLength()), blocks: uint32(a.segments()),
		routes: uint32(a.Routes), slots: uint32(a.Slots), iters: uint32(c.config.Iters),
	}
	push.k, push.kLast = a.targets()
	if a.Windows > 0 {
		push.blockSize = uint32(a.WindowSize)
	}
	d := vk.Dispatch{
		Kernel: kernel, Groups: groups,
		Args: []vk.Access{
			vk.Read(a.Logits), vk.Read(a.Mask), vk.Write(a.Scores), vk.Write(a.State), vk.Read(a.Indices), vk.Read(a.Valid), vk.Write(a.SelectedScores),
		},
		Flops: coorDescentFlops * float64(a.Rows) * a.entries(),
		Bytes: float64(a.Logits.Size() + a.Mask.Size()),
	}
	if !a.RowK.IsZero() {
		d.Args[coorDescentState] = vk.Read(a.RowK)
	}
	if plan.vec4PerThread == 0 {
		return c.recordLong(list, a, plan, d, push)
	}
	decay := float32(c.config.EpsDecay)
	d.Push = vk.Scalars(&coorDescentRegisterPush{
		coorDescentPush: push,
		eInit:           float32(max(c.config.EpsInit, c.config.Eps)), eps: float32(c.config.Eps),
		decay: decay, decayLow: float32(c.config.EpsDecay - float64(decay)),
	})
	d.Flops *= float64(c.config.Iters)
	d.Bytes += float64(a.State.Size()) + a.resultBytes()
	return list.Dispatch(d)
}

// coorDescentState is the place of the state in the addresses of a dispatch. RowK, which excludes a state, has the same:
// one more address would exceed the 128 bytes of push constants that every device has.
const coorDescentState = 3

// recordLong records one dispatch per step. Steps use the two halves of the scratch memory alternately: each reads one
// and writes the other.
func (c *CoorDescent) recordLong(list *vk.CommandList, a CoorDescentArgs, plan coorDescentPlan, d vk.Dispatch, push coorDescentPush) error {
	const scores, indices, valid, selectedScores = 2, 4, 5, 6 // in d.Args
	half := a.Scratch.Size() / 2
	previous, next := a.Scratch.Slice(0, half), a.Scratch.Slice(half, half)
	e := max(c.config.EpsInit, c.config.Eps)
	ePrevious := e
	args := d.Args
	for step := range c.config.Iters + 1 {
		d.Args = append(slices.Clone(args), vk.Read(previous), vk.Write(next))
		if step < c.config.Iters { // only the last step writes scores
			for _, arg := range []int{scores, indices, valid, selectedScores} {
				d.Args[arg] = vk.Access{}
			}
		} else {
			d.Bytes += a.resultBytes()
		}
		if step == 0 && a.RowK.IsZero() { // which computes no a_t yet
			d.Args[coorDescentState] = vk.Access{}
		}
		d.Push = vk.Scalars(&coorDescentLongPush{
			coorDescentPush: push, parts: uint32(plan.parts), span: uint32(plan.span), step: uint32(step), ePrevious: float32(ePrevious), e: float32(e),
		})
		if err := list.Dispatch(d); err != nil {
			return err
		}
		previous, next = next, previous
		ePrevious, e = e, max(e*c.config.EpsDecay, c.config.Eps)
	}
	return nil
}

// coorDescentOptions are the arguments that select the code of a kernel.
type coorDescentOptions struct{ state, windows, rowK bool }

// kernel selects one of some plans and returns its kernel.
func (c *CoorDescent) kernel(plans []coorDescentPlan, o coorDescentOptions) (coorDescentPlan, *vk.Kernel, error) {
	variants := make([]kernelVariant, len(plans))
	for i, plan := range plans {
		variants[i] = plan.variant(o)
	}
	i, err := c.kernels.choose(variants, len(plans)-1)
	if err != nil {
		return coorDescentPlan{}, nil, err
	}
	kernel, err := c.kernels.kernel(variants[i])
	return plans[i], kernel, err
}

// variant returns the kernel of a plan.
func (p coorDescentPlan) variant(o coorDescentOptions) kernelVariant {
	name := "coor_descent"
	spec := map[uint32]uint32{
		shaders.CoorDescentLocalSizeX: p.threads, shaders.CoorDescentEntriesPrefixSegments: specBool(o.windows), shaders.CoorDescentKPerRow: specBool(o.rowK),
	}
	if p.vec4PerThread == 0 {
		name = "coor_descent_long"
	} else {
		spec[shaders.CoorDescentVec4PerThread], spec[shaders.CoorDescentSaveState] = p.vec4PerThread, specBool(o.state)
	}
	return kernelVariant{name: name, spv: name, spec: spec}
}

// Close frees the kernels. It may be called again, and on nil.
func (c *CoorDescent) Close() error {
	if c == nil {
		return nil
	}
	return c.kernels.close()
}
