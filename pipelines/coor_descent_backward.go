package pipelines

import (
	"fmt"
	"slices"
	"unsafe"

	"github.com/colt5-vulkan/colt5/shaders"
	"github.com/colt5-vulkan/colt5/vk"
)

// CoorDescentBackward computes the gradient of the logits, and of K, from that of the scores of [CoorDescent] and from
// the State that it saved. Segments are those of CoorDescent: rows, blocks of rows, or with Windows prefixes of rows.
//
//	logits [Rows, N] f32 in         mask [Rows / Routes, N] u8 in, optional
//	state [Rows, Blocks, Iters, 4] f32 in
//	dscores [Rows, N] f32 in, optional: the gradient of the scores
//	indices [Rows, Blocks, Slots] i32 in      valid [Rows, Blocks, Slots] u32 in, optional
//	dselected [Rows, Blocks, Slots] f32 in, in addition to dscores or instead of them: the gradient of the selected scores
//	dlogits [Rows, N] f32 out       dk [Rows, Blocks] f32 out, optional: the gradient of a segment's K
//
// With Windows, dlogits is the sum over the windows of a row, in their order:
//
//	dscores [Items, Windows, Routes, N]      state [Items, Windows, Routes, Iters, 4]
//	indices, valid, dselected [Items, Windows, Routes, Slots]      dk [Items, Windows, Routes]      Items = Rows / Routes
//
// Each step of the iteration passes gradient to the entries below its bound -a_{t-1}, in proportion to their terms of
// its sum. The factors of the steps follow from State alone, so that one sweep over the logits computes dlogits:
//
//	w_i = dscore_i * score_i / e_Iters if logit_i <= -a_{Iters-1}, else 0      da_{Iters-1} = sum w
//	da_{t-1} = da_t * count_t / sum_t                                         for t = Iters-1 .. 1
//	dlogit_i = w_i - sum of da_t * exp((logit_i - top_t) / e_t) / sum_t       over t > 0 with logit_i <= -a_{t-1}
//	dk = sum of da_t * e_t / K                                                over t = 0 .. Iters-1
//
// The gradient is 0 for masked entries, and in segments without a valid entry or of which all entries are selected. A
// slot that CoorDescent gives score 0 because it is empty or names no valid entry has no effect. A list names an entry
// at most once; the gradient of an entry that it names more often is undefined.
//
// Three dispatches: sums of w of parts of segments, the factors of the steps, and the sweep. The order of summation
// depends on the device, on the lengths of segment and list, and on which gradients are given. State and Scratch start
// at multiples of 16 bytes, the mask at any byte, other ranges at multiples of 4.
//
// Shader: shaders/src/coor_descent_backward.comp. CPU reference: internal/ref.CoorDescentBackward.
type CoorDescentBackward struct {
	config  CoorDescentConfig
	kernels kernelCache
}

// CoorDescentBackwardArgs names the memory and the sizes. Fields that CoorDescentArgs has too have the values of the
// forward call.
type CoorDescentBackwardArgs struct {
	Logits  vk.Range // [Rows, N]
	Mask    vk.Range // [Rows / Routes, N], 0: masked; absent: no entry is masked
	State   vk.Range // [Rows, ceil(N / BlockSize), Iters, 4], or [Items, Windows, Routes, Iters, 4]; of the forward call
	DScores vk.Range // [Rows, N], or [Items, Windows, Routes, N], of which entries beyond a window are not read; absent: 0
	DLogits vk.Range // [Rows, N]; may be DScores without Windows and DSelected
	DK      vk.Range // [Rows, ceil(N / BlockSize)], or [Items, Windows, Routes]; absent: not wanted
	Scratch vk.Range // of CoorDescentBackwardScratch bytes
	Rows, N int
	Routes  int // consecutive rows that share a row of the mask; 0: 1

	// DSelected has the gradients of selected scores: Slots per segment. All absent, with Slots 0: none.
	Indices   vk.Range // [Rows, ceil(N / BlockSize), Slots], or [Items, Windows, Routes, Slots]; counted from the start of the row
	Valid     vk.Range // the same shape, 0: an empty slot; absent: every slot is valid
	DSelected vk.Range // the same shape
	Slots     int

	BlockSize           int // the length of a block; 0: N
	Windows, WindowSize int // windows of a row, whose window m has the first m * WindowSize entries; 0: blocks
	// K is the number of entries that the forward call selects per segment. It serves only DK: 0 without.
	K            float64
	PadLastBlock bool // see CoorDescentArgs; serves only DK
}

// coorDescentBackwardPush follows the addresses in the push constants of the sums and of the sweep.
type coorDescentBackwardPush struct {
	groups, n, blockSize, blocks, routes, slots, iters, parts, segments uint32
	e                                                                   float32
}

// coorDescentScanPush follows the addresses in the push constants of the scan.
type coorDescentScanPush struct {
	groups, iters, parts, blocks          uint32
	k, kLast, eInit, eps, decay, decayLow float32
}

var (
	_ = [1]struct{}{}[unsafe.Sizeof(coorDescentBackwardPush{})-40]
	_ = [1]struct{}{}[unsafe.Sizeof(coorDescentScanPush{})-40]
)

// NewCoorDescentBackward checks the schedule, which is that of the forward call. Record compiles kernels when it first
// needs them.
func NewCoorDescentBackward(dev *vk.Device, c CoorDescentConfig) (*CoorDescentBackward, error) {
	const op = "CoorDescentBackward"
	c, err := c.checked(op)
	if err != nil {
		return nil, err
	}
	if err := checkIterations(dev.Caps(), op, fmt.Sprintf("Iters %d", c.Iters), c.Iters); err != nil {
		return nil, err
	}
	return &CoorDescentBackward{config: c, kernels: kernelCache{dev: dev}}, nil
}

// coorDescentMostParts is the largest number of parts of a segment whose w are added separately.
func coorDescentMostParts(length int) int {
	return min(int(ceilDiv(uint64(length), coorDescentPartEntries)), coorDescentMaxParts)
}

// CoorDescentBackwardScratch is the size of the scratch memory in bytes, for rows of n entries in blocks of blockSize
// (0: n), or with a number of windows per row (0: none), and for a number of iterations.
func CoorDescentBackwardScratch(iters, rows, n, blockSize, windows int) uint64 {
	if iters < 1 || rows < 1 || n < 1 || blockSize < 0 || windows < 0 {
		return 0
	}
	a := CoorDescentArgs{N: n, BlockSize: blockSize, Windows: windows}
	perSegment := 16*uint64(iters) + 4*uint64(coorDescentMostParts(a.segmentLength()))
	return ceilDiv(uint64(rows)*uint64(a.segments())*perSegment, 16) * 16
}

// segmentArgs are the forward call's arguments that determine segments and K.
func (a CoorDescentBackwardArgs) segmentArgs() CoorDescentArgs {
	return CoorDescentArgs{
		Rows: a.Rows, N: a.N, Routes: a.Routes, BlockSize: a.BlockSize, Windows: a.Windows, WindowSize: a.WindowSize, K: a.K, PadLastBlock: a.PadLastBlock,
	}
}

// Record appends three dispatches to a command list.
func (c *CoorDescentBackward) Record(list *vk.CommandList, a CoorDescentBackwardArgs) error {
	const op = "CoorDescentBackward"
	if a.Routes == 0 {
		a.Routes = 1
	}
	if err := c.check(a); err != nil {
		return err
	}
	s := a.segmentArgs()
	segments, length := a.Rows*s.segments(), s.segmentLength()
	limits := limitsOfCaps(c.kernels.dev.Caps())
	threads, lanes := coorDescentSweepThreads(limits, a.Windows > 0)
	sum, scan, sweep, err := c.stages(limits, length, a.Windows > 0)
	if err != nil {
		return fmt.Errorf("pipelines: %s: %w", op, err)
	}
	push := coorDescentBackwardPush{
		n: uint32(a.N), blockSize: uint32(length), blocks: uint32(s.segments()), routes: uint32(a.Routes), slots: uint32(a.Slots),
		iters: uint32(c.config.Iters), segments: uint32(segments), e: float32(c.config.temperature(c.config.Iters)),
	}
	areas := segments // that a workgroup of the sweep belongs to one of
	if a.Windows > 0 {
		push.blockSize, areas = uint32(a.WindowSize), a.Rows
	}
	work := a.Slots // of the sum of a segment
	if !a.DScores.IsZero() {
		work = max(work, length)
	}
	parts := max(1, min(int(ceilDiv(uint64(work), coorDescentPartEntries)), coorDescentMostParts(length)))
	spans := int(ceilDiv(uint64(length), 4*uint64(threads)))
	if err := c.checkLoops(a, int(threads), int(lanes), parts); err != nil {
		return err
	}
	entries := float64(a.Rows) * s.entries()
	lists := float64(a.Indices.Size() + a.Valid.Size() + a.DSelected.Size())
	inputs := []vk.Access{
		vk.Read(a.Logits), vk.Read(a.Mask), vk.Read(a.DScores), {}, vk.Read(a.State), vk.Write(a.Scratch), vk.Read(a.Indices), vk.Read(a.Valid), vk.Read(a.DSelected),
	}
	dispatch := func(kernel *vk.Kernel, groups int, args []vk.Access, push func(groups uint32) []byte, flops, bytes float64) error {
		grid, err := workgroups(c.kernels.dev.Caps(), op, uint64(groups))
		if err != nil {
			return err
		}
		return list.Dispatch(vk.Dispatch{Kernel: kernel, Groups: grid, Args: args, Push: push(uint32(groups)), Flops: flops, Bytes: bytes})
	}
	part := func(parts int) func(uint32) []byte {
		return func(groups uint32) []byte {
			p := push
			p.groups, p.parts = groups, uint32(parts)
			return vk.Scalars(&p)
		}
	}
	sumBytes := lists + float64(a.DScores.Size())
	if !a.DScores.IsZero() {
		sumBytes += float64(a.Logits.Size() + a.Mask.Size())
	}
	const flops = 6 // of w: two differences, a scaling, an exponential, a product and a sum
	if err := dispatch(sum, segments*parts, inputs, part(parts), flops*float64(a.DScores.Size()/4+a.DSelected.Size()/4), sumBytes); err != nil {
		return err
	}
	if err := dispatch(scan, segments, []vk.Access{vk.Read(a.State), vk.ReadWrite(a.Scratch), vk.Write(a.DK)}, func(groups uint32) []byte {
		k, kLast := s.targets()
		decay := float32(c.config.EpsDecay)
		return vk.Scalars(&coorDescentScanPush{
			groups: groups, iters: push.iters, parts: uint32(parts), blocks: push.blocks, k: k, kLast: kLast,
			eInit: float32(c.config.temperature(0)), eps: float32(c.config.Eps), decay: decay, decayLow: float32(c.config.EpsDecay - float64(decay)),
		})
	}, 4*float64(segments*c.config.Iters), float64(2*a.State.Size()+a.DK.Size())); err != nil {
		return err
	}
	outputs := slices.Clone(inputs)
	outputs[3], outputs[4], outputs[5] = vk.Write(a.DLogits), vk.Access{}, vk.Read(a.Scratch)
	return dispatch(sweep, areas*spans, outputs, part(spans), coorDescentFlops*entries*float64(c.config.Iters),
		lists+float64(a.Logits.Size()+a.Mask.Size()+a.DScores.Size()+a.DLogits.Size()))
}

// temperature returns e_t.
func (c CoorDescentConfig) temperature(t int) float64 {
	e := max(c.EpsInit, c.Eps)
	for ; t > 0 && e > c.Eps; t-- {
		e = max(e*c.EpsDecay, c.Eps)
		if c.EpsDecay == 1 {
			break
		}
	}
	return e
}

// coorDescentBackwardThreads is the size of a workgroup of the sum and of the scan.
func coorDescentBackwardThreads(l deviceLimits, length int) uint32 {
	limit := min(l.MaxWorkgroupInvocations, l.MaxWorkgroupSize[0], 256)
	threads := uint32(min(64, limit))
	for 2*threads <= limit && 4*int(threads) < length {
		threads *= 2
	}
	return threads
}

// coorDescentSweepThreads is the size of a workgroup of the sweep: x invocations, each of 4 entries, for each of y segments that
// it works on at a time. There are many segments of an entry where they are windows, and few workgroups where there are few rows.
func coorDescentSweepThreads(l deviceLimits, windows bool) (x, y uint32) {
	x, y = min(l.MaxWorkgroupInvocations, l.MaxWorkgroupSize[0], 64), 1
	if windows {
		y = min(l.MaxWorkgroupInvocations/x, l.MaxWorkgroupSize[1], 4)
	}
	return x, y
}

// stages returns the kernels of the three dispatches.
func (c *CoorDescentBackward) stages(l deviceLimits, length int, windows bool) (sum, scan, sweep *vk.Kernel, err error) {
	kernel := func(stage string, spec map[uint32]uint32) (k *vk.Kernel) {
		if err == nil {
			name := "coor_descent_backward_" + stage
			k, err = c.kernels.get(name, name, false, spec)
		}
		return k
	}
	const size = shaders.CoorDescentBackwardLocalSizeX
	threads, prefixes := coorDescentBackwardThreads(l, length), specBool(windows)
	sum = kernel("sum", map[uint32]uint32{size: threads, shaders.CoorDescentEntriesPrefixSegments: prefixes})
	scan = kernel("scan", map[uint32]uint32{size: threads})
	x, y := coorDescentSweepThreads(l, windows)
	sweep = kernel("sweep", map[uint32]uint32{size: x, shaders.CoorDescentBackwardLocalSizeY: y, shaders.CoorDescentEntriesPrefixSegments: prefixes})
	return sum, scan, sweep, err
}

// check compares the arguments with the config. Routes is at least 1.
func (c *CoorDescentBackward) check(a CoorDescentBackwardArgs) error {
	const op = "CoorDescentBackward"
	s := a.segmentArgs()
	s.Slots = a.Slots
	if a.DK.IsZero() {
		if a.K != 0 || a.PadLastBlock {
			return fmt.Errorf("pipelines: %s: K is %g and PadLastBlock %v, want 0 and false without dk", op, a.K, a.PadLastBlock)
		}
		s.K = minCoorDescentK
	}
	if err := s.checkSizes(op); err != nil {
		return err
	}
	segments, scores := s.shapes()
	slots := slices.Concat(segments, []dim{{"Slots", a.Slots}})
	state := slices.Concat(segments, []dim{{"Iters", c.config.Iters}, {"Values", 4}})
	rows, n, items := dim{"Rows", a.Rows}, dim{"N", a.N}, dim{"Rows / Routes", a.Rows / a.Routes}
	if err := firstError(
		checkTensor(op, "logits", a.Logits, wordAlign, f32, rows, n),
		checkOptional(op, "mask", a.Mask, byteAlign, u8, items, n),
		checkTensor(op, "state", a.State, vec4Align, f32, state...),
		checkOptional(op, "dscores", a.DScores, wordAlign, f32, scores...),
		checkTensor(op, "dlogits", a.DLogits, wordAlign, f32, rows, n),
		checkOptional(op, "dk", a.DK, wordAlign, f32, segments...),
		checkOptional(op, "indices", a.Indices, wordAlign, i32, slots...),
		checkOptional(op, "valid", a.Valid, wordAlign, u32, slots...),
		checkOptional(op, "dselected", a.DSelected, wordAlign, f32, slots...),
		checkRange(op, "scratch", a.Scratch, vec4Align, CoorDescentBackwardScratch(c.config.Iters, a.Rows, a.N, a.BlockSize, a.Windows), "CoorDescentBackwardScratch"),
	); err != nil {
		return err
	}
	switch {
	case a.DSelected.IsZero() && a.DScores.IsZero():
		return fmt.Errorf("pipelines: %s: dscores and dselected are both missing, want at least one of them", op)
	case a.DSelected.IsZero() != (a.Slots == 0) || a.DSelected.IsZero() != a.Indices.IsZero() || a.DSelected.IsZero() && !a.Valid.IsZero():
		return fmt.Errorf("pipelines: %s: Slots is %d, indices has %d bytes, valid %d and dselected %d, want all, all but valid, or none",
			op, a.Slots, a.Indices.Size(), a.Valid.Size(), a.DSelected.Size())
	case a.DLogits == a.DScores && (!a.DSelected.IsZero() || a.Windows > 0):
		return fmt.Errorf("pipelines: %s: dscores and dlogits are the same range, want different ranges with dselected or windows", op)
	}
	return nil
}

// checkLoops checks the iterations of an invocation of the sweep, which has the most.
func (c *CoorDescentBackward) checkLoops(a CoorDescentBackwardArgs, threads, lanes, parts int) error {
	windows := max(a.Windows, 1)
	n := (windows/lanes + 1) * (c.config.Iters + a.Slots/threads + 3)
	return checkIterations(c.kernels.dev.Caps(), "CoorDescentBackward",
		fmt.Sprintf("%d windows with Iters %d and Slots %d", windows, c.config.Iters, a.Slots), max(n, parts))
}

// Close frees the kernels. It may be called again, and on nil.
func (c *CoorDescentBackward) Close() error {
	if c == nil {
		return nil
	}
	return c.kernels.close()
}
