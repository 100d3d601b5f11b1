package pipelines

import (
	"fmt"
	"slices"
	"unsafe"

	"github.com/colt5-vulkan/colt5/vk"
)

// CoorDescent turns router logits into soft top-k scores: coordinate descent on each row, or on each block of a row.
//
//	logits [Rows, N] f32 in         mask [Rows / Routes, N] u8 in, optional
//	scores [Rows, N] f32 out        state [Rows, Blocks, Iters, 4] f32 out, optional
//	chosen [Rows, Blocks, Slots] f32 out, beside the scores or in their place: the scores of chosen entries alone
//	indices [Rows, Blocks, Slots] i32 in      filled [Rows, Blocks, Slots] u32 in, optional: which these are, as Select writes them
//
// With Windows, m = 0 .. Windows-1 descends on the first min(m * Prefix, N) entries of a row, whatever m aiming at the same K:
//
//	scores [Items, Windows, Routes, N], 0 beyond the prefix      state [Items, Windows, Routes, Iters, 4]
//	chosen, indices, filled [Items, Windows, Routes, Slots]      Items = Rows / Routes
//
//	t = 0 .. Iters-1: a_t = e_t * (log K - logsumexp(u)),  u_i = 0 at t = 0, then min(logit_i, -a_{t-1}) / e_t
//	score_i = exp(min(logit_i + a_{Iters-1}, 0) / e_Iters);  e_0 = max(EpsInit, Eps), e_{t+1} = max(e_t * EpsDecay, Eps)
//
// Scores are in [0, 1]; masked entries score 0 and count for nothing. Logits beyond 1e38 in size count as 1e38 (so infinities are
// welcome); what a row with a NaN scores is not defined. The chosen score of a slot has the bits that the entry has in scores; it is 0
// where the slot is not filled, and where its index, counted from the start of the row, names no entry of the block or prefix.
//
// State is what a backward pass needs of a block, with top_t = min(largest logit, -a_{t-1}):
//
//	t = 0: a_0 in two floats (high, low), number of valid entries, largest logit
//	t > 0: a_t in two floats, sum of exp((min(logit, -a_{t-1}) - top_t) / e_t), number of logits > -a_{t-1}
//
// A block without a valid entry, or taken whole, has a state of zeros: its gradient is 0. Scores differ in the last bits between a run
// with State and one without, which caches exponentials.
//
// A block of up to 32,768 entries (fewer on small devices) takes one dispatch, in which every workgroup has a block in registers;
// a longer one takes Iters + 1 dispatches, which share it among workgroups through Scratch. Which one depends on the device and
// the length of a block alone, and so does the order of summation; a window counts as a block of N entries. State and scratch memory
// start at multiples of 16 bytes, the mask anywhere, all others at multiples of 4.
//
// Shader: shaders/coor_descent.comp. Reference: internal/ref.CoorDescent. Source: arXiv 1502.04759, 2304.04947.
type CoorDescent struct {
	config  CoorDescentConfig
	kernels kernelCache
}

// CoorDescentConfig is the schedule of the iterations.
type CoorDescentConfig struct {
	Iters    int     // 1 to 65536
	Eps      float64 // smoothness of the choice, 1e-30 to 1e30
	EpsInit  float64 // first eps; 0, or less than Eps: Eps
	EpsDecay float64 // factor of eps after each iteration, in (0, 1]; 0: 1
}

// coorDescentPush is what both kernels are told; their own scalars follow.
type coorDescentPush struct {
	count, n, blockSize, blocks, routes, slots, iters uint32
	k, kLast                                          float32
}

type coorDescentRowPush struct {
	coorDescentPush
	eInit, eps, decay, decayLow float32
}

type coorDescentLongPush struct {
	coorDescentPush
	parts, span, step uint32
	eBefore, e        float32
}

const (
	_ = uint(52 - unsafe.Sizeof(coorDescentRowPush{}))
	_ = uint(unsafe.Sizeof(coorDescentRowPush{}) - 52)
	_ = uint(56 - unsafe.Sizeof(coorDescentLongPush{}))
	_ = uint(unsafe.Sizeof(coorDescentLongPush{}) - 56)
)

// coorDescentPlan is how a block of some length is worked on.
type coorDescentPlan struct {
	threads       uint32 // of a workgroup
	vec4PerThread uint32 // four entries each, that an invocation holds; 0: the block is long
	parts         int    // of a long block, a workgroup each
	span          int    // entries of a part, a multiple of 4
}

// planCoorDescent is a function of the device and the length of a block.
func planCoorDescent(caps vk.Caps, length int) coorDescentPlan {
	// An invocation should have 32 entries, so that what all of them do alike (the sum over the workgroup, the scalars of a step)
	// stays small; 64 where the workgroup can grow no more: of 1,024 invocations these scalars take longer. The shader adds up at most
	// 256 subgroups.
	limit := min(caps.MaxWorkgroupInvocations, caps.MaxWorkgroupSize[0], 512, 256*max(caps.SubgroupMin, 1))
	invocations := uint32(min(64, limit))
	for 2*invocations <= limit && int(invocations)*32 < length {
		invocations *= 2
	}
	if quads := (length + 4*int(invocations) - 1) / (4 * int(invocations)); quads <= 16 {
		return coorDescentPlan{threads: invocations, vec4PerThread: uint32(quads)}
	}
	const part, mostParts = 4096, 1024 // of a part's 4096 entries an invocation has 16; every workgroup adds up all parts
	span := part
	if length > part*mostParts {
		span = (length + part*mostParts - 1) / (part * mostParts) * part
	}
	return coorDescentPlan{threads: min(invocations, 256), parts: (length + span - 1) / span, span: span}
}

// stride is what a long block leaves from one dispatch to the next: 16 bytes, and 8 a part.
func (p coorDescentPlan) partialBytes() uint64 { return 16 + 16*uint64((p.parts+1)/2) }

// NewCoorDescent checks the schedule. Kernels are compiled when Record first needs them.
func NewCoorDescent(dev *vk.Device, c CoorDescentConfig) (*CoorDescent, error) {
	const least, most = 1e-30, 1e30 // with them no product or quotient of the kernel leaves the range of float32
	if c.EpsDecay == 0 {
		c.EpsDecay = 1
	}
	switch {
	case c.Iters < 1 || c.Iters > 1<<16:
		return nil, fmt.Errorf("pipelines: CoorDescent: Iters is %d, want 1 to %d", c.Iters, 1<<16)
	case !(c.Eps >= least && c.Eps <= most):
		return nil, fmt.Errorf("pipelines: CoorDescent: Eps is %g, want %g to %g", c.Eps, least, most)
	case !(c.EpsInit >= 0 && c.EpsInit <= most):
		return nil, fmt.Errorf("pipelines: CoorDescent: EpsInit is %g, want 0 to %g", c.EpsInit, most)
	case !(c.EpsDecay > 0 && c.EpsDecay <= 1):
		return nil, fmt.Errorf("pipelines: CoorDescent: EpsDecay is %g, want more than 0, at most 1", c.EpsDecay)
	}
	return &CoorDescent{config: c, kernels: kernelCache{dev: dev}}, nil
}

// Record adds the descent to a tape.
func (c *CoorDescent) Record(t *vk.CommandList, a CoorDescentArgs) error {
	if a.Routes == 0 {
		a.Routes = 1
	}
	if err := c.check(a); err != nil {
		return err
	}
	p := planCoorDescent(c.kernels.dev.Caps(), a.segmentLength())
	k, err := c.kernel(p, !a.State.IsZero(), a.Windows > 0)
	if err != nil {
		return fmt.Errorf("pipelines: CoorDescent: %w", err)
	}
	units := a.Rows * a.segments()
	groups, err := workgroups(c.kernels.dev.Caps(), "CoorDescent", uint64(units)*uint64(max(p.parts, 1)))
	if err != nil {
		return err
	}
	push := coorDescentPush{
		count: uint32(units * max(p.parts, 1)), n: uint32(a.N), blockSize: uint32(a.segmentLength()), blocks: uint32(a.segments()),
		routes: uint32(a.Routes), slots: uint32(a.Slots), iters: uint32(c.config.Iters),
	}
	push.k, push.kLast = a.targets()
	if a.Windows > 0 {
		push.blockSize = uint32(a.Prefix)
	}
	d := vk.Dispatch{
		Kernel: k, Groups: groups,
		Args: []vk.Access{
			vk.Read(a.Logits), vk.Read(a.Mask), vk.Write(a.Scores), vk.Write(a.State), vk.Read(a.Indices), vk.Read(a.Valid), vk.Write(a.SelectedScores),
		},
		Flops: coorDescentFlops * float64(a.Rows) * a.entries(),
		Bytes: float64(a.Logits.Size() + a.Mask.Size()),
	}
	if p.vec4PerThread == 0 {
		return c.recordLong(t, a, p, d, push)
	}
	decay := float32(c.config.EpsDecay)
	d.Push = vk.Scalars(&coorDescentRowPush{
		push, float32(max(c.config.EpsInit, c.config.Eps)), float32(c.config.Eps), decay, float32(c.config.EpsDecay - float64(decay)),
	})
	d.Flops *= float64(c.config.Iters)
	d.Bytes += float64(a.State.Size()) + a.resultBytes()
	return t.Dispatch(d)
}

// coorDescentFlops is the work on an entry in one iteration: two differences, a scaling, an exponential, a sum.
const coorDescentFlops = 5

// recordLong records a dispatch a step. The halves of the scratch memory take turns: a step reads one and writes the other.
func (c *CoorDescent) recordLong(t *vk.CommandList, a CoorDescentArgs, p coorDescentPlan, d vk.Dispatch, push coorDescentPush) error {
	half := a.Scratch.Size() / 2
	before, after := a.Scratch.Slice(0, half), a.Scratch.Slice(half, half)
	first := max(c.config.EpsInit, c.config.Eps)
	e, eBefore := first, first
	args := d.Args
	for step := range c.config.Iters + 1 {
		d.Args = append(slices.Clone(args), vk.Read(before), vk.Write(after))
		if step < c.config.Iters { // nothing yet of scores, indices, filled and chosen
			d.Args[2], d.Args[4], d.Args[5], d.Args[6] = vk.Access{}, vk.Access{}, vk.Access{}, vk.Access{}
		} else {
			d.Bytes += a.resultBytes()
		}
		if step == 0 { // nor of the state
			d.Args[3] = vk.Access{}
		}
		d.Push = vk.Scalars(&coorDescentLongPush{push, uint32(p.parts), uint32(p.span), uint32(step), float32(eBefore), float32(e)})
		if err := t.Dispatch(d); err != nil {
			return err
		}
		before, after = after, before
		eBefore, e = e, max(e*c.config.EpsDecay, c.config.Eps)
	}
	return nil
}

// kernel is the kernel of a plan.
func (c *CoorDescent) kernel(p coorDescentPlan, state, windows bool) (*vk.Kernel, error) {
	name, spec := "coor_descent", map[uint32]uint32{0: p.threads, 3: specBool(windows)}
	if p.vec4PerThread == 0 {
		name = "coor_descent_long"
	} else {
		spec[1], spec[2] = p.vec4PerThread, specBool(state)
	}
	return c.kernels.get(name, name, false, spec)
}

// Close frees the kernels. One that an open tape uses stays, and the next Close tries again.
func (c *CoorDescent) Close() error {
	if c == nil {
		return nil
	}
	return c.kernels.close()
}
