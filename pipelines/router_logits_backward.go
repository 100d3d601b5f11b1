package pipelines

import (
	"errors"
	"fmt"
	"math"
	"unsafe"

	"github.com/colt5-vulkan/colt5/shaders"
	"github.com/colt5-vulkan/colt5/vk"
)

// RouterLogitsBackward is the gradient of [RouterLogits] with one set of routing tokens: that of the tokens, which is
// added to dx, and that of the routing tokens for each item of a batch.
//
//	x [B, N, C] f32 in    tokens [R, C] f32 in, or [B, R, C]    dlogits [B, R, N] f32 in
//	dx [B, N, C] f32 in and out    dtokens [B, R, C] f32 out; with the config's AddTokens in and out
//	base [B, N, C] f32 in, optional: where the sum of dx begins, in place of dx
//	dot product: dx[b, i] += sum_r dlogits[b, r, i] * tokens[r]    dtokens[b, r] (+)= sum_i dlogits[b, r, i] * x[b, i]
//	cosine:      the same sums g with rows u = v / max(||v||, 1e-12) in place of both v, then
//	             dv (+)= CosineScale * (g - u * (u . g)) / max(||v||, 1e-12)
//
// u . g is left out where ||v|| is at most 1e-12. Rows have any length, but for what exceeds float32: gradients of rows
// longer than 1e38 may be 0. Sums over more than 256 tokens are added in blocks, as in ColumnSum. The order of
// summation depends on C, R and N alone. Ranges start at multiples of 4 bytes, but x, tokens, dx and base with Fused at
// multiples of 16.
//
// Shader: shaders/src/router_logits_backward.comp. CPU reference: internal/ref.RouterLogitsBackward.
type RouterLogitsBackward struct {
	config            RouterLogitsBackwardConfig
	invocationsPerRow uint32
	rowsPerGroup      uint64
	kernels           kernelCache
	blocks            *ColumnSum // adds the sums of blocks of tokens
}

// RouterLogitsBackwardConfig is fixed when the kernel is compiled.
type RouterLogitsBackwardConfig struct {
	C           int     // elements of a token
	R           int     // routing tokens
	CosineScale float64 // factor of the cosine, 8 in colt5-attention; 0: dot product
	AddTokens   bool    // add to dtokens
	StoreDX     bool    // with Fused: do not add to dx
}

// Fused reports whether all gradients are computed in one pass over x. Only then the sum of dx may begin elsewhere than in dx.
func (c RouterLogitsBackwardConfig) Fused() bool {
	const most = 4 // routing tokens, of which an invocation holds parts and sums
	return c.CosineScale == 0 && c.R >= 1 && c.R <= most && FusedNormBackward(c.C)
}

// RouterLogitsBackwardArgs names the memory and the sizes. Outputs overlap no other range.
type RouterLogitsBackwardArgs struct {
	X       vk.Range // [B, N, C]
	Tokens  vk.Range // [R, C], with TokensPerItem [B, R, C]
	DLogits vk.Range // [B, R, N]
	DX      vk.Range // [B, N, C]
	Base    vk.Range // [B, N, C]; absent: DX
	DTokens vk.Range // [B, R, C]
	Scratch vk.Range // of RouterLogitsBackwardScratch bytes; absent if that is 0
	B, N    int

	TokensPerItem bool // every batch item has its own routing tokens
}

// What follows the addresses: six for dx, four for the tokens. The sums have columnSumPush.
type (
	routerLogitsRowsPush   struct{ n, rows, tokenStride uint32 }
	routerLogitsTokensPush struct{ rows, tokenRows uint32 }
)

var (
	_ = [1]struct{}{}[unsafe.Sizeof(routerLogitsRowsPush{})-12]
	_ = [1]struct{}{}[unsafe.Sizeof(routerLogitsTokensPush{})-8]
)

// routerLogitsScratch is the size in bytes of each part of the scratch memory.
type routerLogitsScratch struct{ rowFactors, tokenFactors, sums, blocks uint64 }

func (c RouterLogitsBackwardConfig) scratch(b, n int) (s routerLogitsScratch) {
	if b < 1 || n < 1 || c.R < 1 {
		return s
	}
	if c.Fused() {
		_, blocks := normBackwardBlocks(n, c.C)
		s.blocks = 4*uint64(b)*uint64(c.R)*blocks*uint64(c.C) + ColumnSumScratch(b*c.R, int(blocks), c.C)
		return s
	}
	s.blocks = ColumnSumScratch(b*c.R, n, c.C)
	if c.CosineScale != 0 {
		tokens := uint64(b) * uint64(c.R)
		s.rowFactors, s.tokenFactors, s.sums = 8*uint64(b)*uint64(n), 8*tokens, 4*tokens*uint64(c.C)
	}
	return s
}

func (s routerLogitsScratch) total() uint64 { return s.rowFactors + s.tokenFactors + s.sums + s.blocks }

// RouterLogitsBackwardScratch is the size of the scratch memory in bytes: the sums of blocks of tokens, and for cosines
// the factors of rows and the gradients of normalised routing tokens.
func RouterLogitsBackwardScratch(c RouterLogitsBackwardConfig, b, n int) uint64 {
	return c.scratch(b, n).total()
}

// NewRouterLogitsBackward checks the config. Record compiles kernels when it first needs them.
func NewRouterLogitsBackward(dev *vk.Device, c RouterLogitsBackwardConfig) (*RouterLogitsBackward, error) {
	const op = "RouterLogitsBackward"
	if err := checkRowLength(op, c.C); err != nil {
		return nil, err
	}
	if c.R < 1 || c.R > routerMaxTokens {
		return nil, fmt.Errorf("pipelines: %s: R is %d, want 1 to %d", op, c.R, routerMaxTokens)
	}
	if err := checkCosineScale(op, c.CosineScale); err != nil {
		return nil, err
	}
	invocationsPerRow, rows := normInvocationsPerRow(c.C, 64)
	passes := 1
	if c.CosineScale != 0 {
		passes = 3 // two for the sums, one to write dx
	}
	if c.StoreDX && !c.Fused() {
		return nil, fmt.Errorf("pipelines: %s: StoreDX is true, want false with C %d, R %d and CosineScale %v: see Fused", op, c.C, c.R, c.CosineScale)
	}
	iterations := passes * (c.C/int(invocationsPerRow) + 1) * (c.R + 1)
	if err := checkIterations(dev.Caps(), op, fmt.Sprintf("%d routing tokens of %d floats", c.R, c.C), iterations); err != nil {
		return nil, err
	}
	// With cosines, the sums are not yet the gradient.
	blocks, err := NewColumnSum(dev, ColumnSumConfig{C: c.C, Add: c.AddTokens && c.CosineScale == 0})
	if err != nil {
		return nil, err
	}
	return &RouterLogitsBackward{c, invocationsPerRow, uint64(rows), kernelCache{dev: dev}, blocks}, nil
}

// Record appends two dispatches to a command list; unless Fused one more with more than 256 tokens, and two more for cosines.
func (l *RouterLogitsBackward) Record(list *vk.CommandList, a RouterLogitsBackwardArgs) error {
	if err := l.check(a); err != nil {
		return err
	}
	if l.config.Fused() {
		return l.recordFused(list, a)
	}
	sizes := l.config.scratch(a.B, a.N)
	part := func(offset, size uint64) vk.Range {
		if size == 0 {
			return vk.Range{}
		}
		return a.Scratch.Slice(offset, size)
	}
	rowFactors, tokenFactors := part(0, sizes.rowFactors), part(sizes.rowFactors, sizes.tokenFactors)
	sums, blocks := part(sizes.rowFactors+sizes.tokenFactors, sizes.sums), part(sizes.total()-sizes.blocks, sizes.blocks)
	if l.config.CosineScale == 0 {
		return firstError(
			l.recordRows(list, a, rowFactors, tokenFactors),
			l.recordSums(list, a, rowFactors, blocks, a.DTokens, l.config.AddTokens),
		)
	}
	rows, tokenRows := a.B*l.config.R, l.config.R
	if a.TokensPerItem {
		tokenRows = rows
	}
	// Factors of tokens that all items share need no more of the memory.
	tokenFactors = tokenFactors.Slice(0, 8*uint64(tokenRows))
	return firstError(
		l.recordTokens(list, a, vk.Range{}, vk.Range{}, tokenFactors, tokenRows, tokenRows),
		l.recordRows(list, a, rowFactors, tokenFactors),
		l.recordSums(list, a, rowFactors, blocks, sums, false),
		l.recordTokens(list, a, sums, a.DTokens, vk.Range{}, rows, tokenRows),
	)
}

func (l *RouterLogitsBackward) check(a RouterLogitsBackwardArgs) error {
	const op = "RouterLogitsBackward"
	b, n, c, r := dim{"B", a.B}, dim{"N", a.N}, dim{"C", l.config.C}, dim{"R", l.config.R}
	if err := checkPositive(op, b, n, dim{"B*N", b.n * n.n}, dim{"B*R", b.n * r.n}); err != nil {
		return err
	}
	if n.n > maxRowLength {
		return fmt.Errorf("pipelines: %s: N is %d, want 1 to %d", op, n.n, maxRowLength)
	}
	tokens := []dim{r, c}
	if a.TokensPerItem {
		tokens = []dim{b, r, c}
	}
	// The sizes of all grids are checked before the first dispatch is recorded.
	caps, sums := l.kernels.dev.Caps(), newColumnSumPush(b.n*r.n, n.n)
	if uint64(b.n)*uint64(r.n)*uint64(sums.blocks) > math.MaxInt32 {
		return fmt.Errorf("pipelines: %s: B*R is %d and N %d, want at most %d blocks of 256 tokens or more",
			op, b.n*r.n, n.n, math.MaxInt32)
	}
	_, err := workgroups(caps, op, ceilDiv(uint64(b.n)*uint64(max(n.n, r.n)), l.rowsPerGroup))
	_, sumsErr := sums.groups(caps, op, c.n)
	align := uint64(wordAlign)
	if l.config.Fused() {
		align = rowAlign(c.n)
		_, sumsErr = workgroups(caps, op, uint64(newNormBlocksPush(b.n, n.n, c.n).allBlocks))
	} else if !a.Base.IsZero() {
		return fmt.Errorf("pipelines: %s: base has %d bytes, want none: see RouterLogitsBackwardConfig.Fused", op, a.Base.Size())
	}
	if l.config.StoreDX && !a.Base.IsZero() {
		return fmt.Errorf("pipelines: %s: base has %d bytes, want none with StoreDX", op, a.Base.Size())
	}
	return firstError(err, sumsErr,
		checkTensor(op, "x", a.X, align, f32, b, n, c),
		checkTensor(op, "tokens", a.Tokens, align, f32, tokens...),
		checkTensor(op, "dlogits", a.DLogits, wordAlign, f32, b, r, n),
		checkTensor(op, "dx", a.DX, align, f32, b, n, c),
		checkOptional(op, "base", a.Base, align, f32, b, n, c),
		checkTensor(op, "dtokens", a.DTokens, wordAlign, f32, b, r, c),
		checkScratch(op, a.Scratch, RouterLogitsBackwardScratch(l.config, a.B, a.N), "RouterLogitsBackwardScratch"),
	)
}

// routerLogitsFusedPush follows the six addresses in the push constants of the fused kernel.
type routerLogitsFusedPush struct {
	tokenStride, rows uint32
	blocks            normBlocksPush
}

var _ = [1]struct{}{}[unsafe.Sizeof(routerLogitsFusedPush{})-20]

// recordFused appends the fused kernel, and the sum of its blocks.
func (l *RouterLogitsBackward) recordFused(list *vk.CommandList, a RouterLogitsBackwardArgs) error {
	const op = "RouterLogitsBackward"
	c, items := l.config, a.B*l.config.R
	push := routerLogitsFusedPush{rows: uint32(a.N), blocks: newNormBlocksPush(a.B, a.N, c.C)}
	if a.TokensPerItem {
		push.tokenStride = uint32(c.R)
	}
	groups, err := workgroups(list.Device().Caps(), op, uint64(push.blocks.allBlocks))
	if err != nil {
		return err
	}
	kernel, err := l.fusedKernel()
	if err != nil {
		return fmt.Errorf("pipelines: %s: %w", op, err)
	}
	size := 4 * uint64(items) * uint64(push.blocks.blocks) * uint64(c.C)
	sums, rest := a.Scratch.Slice(0, size), vk.Range{}
	if a.Scratch.Size() > size {
		rest = a.Scratch.Slice(size, a.Scratch.Size()-size)
	}
	dx, base := dxAccess(a.DX, a.Base, !c.StoreDX)
	err = list.Dispatch(vk.Dispatch{
		Kernel: kernel, Groups: groups, Push: vk.Scalars(&push),
		Args:  []vk.Access{vk.Read(a.X), vk.Read(a.Tokens), vk.Read(a.DLogits), dx, base, vk.Write(sums)},
		Flops: 4 * float64(a.X.Size()/4) * float64(c.R),
		Bytes: float64(a.X.Size()+a.Tokens.Size()+a.DLogits.Size()) + accesses(!c.StoreDX)*float64(a.DX.Size()) + float64(sums.Size()),
	})
	if err != nil {
		return err
	}
	return l.blocks.Record(list, ColumnSumArgs{X: sums, Y: a.DTokens, Scratch: rest, Batch: items, Rows: int(push.blocks.blocks)})
}

// fusedKernel returns the kernel of all gradients.
func (l *RouterLogitsBackward) fusedKernel() (*vk.Kernel, error) {
	perRow, rows := fusedNormInvocations(l.config.C)
	return l.kernels.get("router_logits_backward_fused", "router_logits_backward_fused", false, map[uint32]uint32{
		shaders.RowNormInvocationsPerRow:          perRow,
		shaders.RowNormRowsPerWorkgroup:           rows,
		shaders.NormBackwardChannels:              uint32(l.config.C),
		shaders.NormBackwardAddDx:                 specBool(!l.config.StoreDX),
		shaders.RouterLogitsBackwardRoutingTokens: uint32(l.config.R),
	})
}

// recordRows adds the dispatch of dx.
func (l *RouterLogitsBackward) recordRows(list *vk.CommandList, a RouterLogitsBackwardArgs, rowFactors, tokenFactors vk.Range) error {
	push := routerLogitsRowsPush{n: uint32(a.N), rows: uint32(a.B * a.N)}
	if a.TokensPerItem {
		push.tokenStride = uint32(l.config.R)
	}
	d := vk.Dispatch{
		Args: []vk.Access{vk.Read(a.X), vk.Read(a.Tokens), vk.Read(a.DLogits), vk.ReadWrite(a.DX), vk.Write(rowFactors),
			vk.Read(tokenFactors)},
		Push: vk.Scalars(&push), Flops: 2 * float64(a.DX.Size()/4) * float64(l.config.R),
		Bytes: float64(a.Tokens.Size() + a.DLogits.Size() + 2*a.DX.Size() + rowFactors.Size()),
	}
	if l.config.CosineScale == 0 {
		d.Args[0] = vk.Access{} // not read
	} else {
		d.Flops, d.Bytes = 2*d.Flops, d.Bytes+float64(a.X.Size())
	}
	return l.dispatchRows(list, "router_logits_backward", a.B*a.N, d)
}

// recordSums adds the dispatch of the sums over tokens, and one that adds the blocks if there are several.
func (l *RouterLogitsBackward) recordSums(list *vk.CommandList, a RouterLogitsBackwardArgs, rowFactors, blocks, y vk.Range,
	add bool) error {
	const op = "RouterLogitsBackward"
	items := a.B * l.config.R
	push, sum := newColumnSumPush(items, a.N), y
	if push.blocks > 1 {
		sum, add = blocks, false
	}
	groups, err := push.groups(list.Device().Caps(), op, l.config.C)
	if err != nil {
		return err
	}
	kernel, err := l.kernel("router_logits_backward_sums", add)
	if err != nil {
		return err
	}
	err = list.Dispatch(vk.Dispatch{
		Kernel: kernel, Groups: groups, Push: vk.Scalars(&push),
		Args:  []vk.Access{vk.Read(a.X), vk.Read(a.DLogits), writeAccess(sum, add), vk.Read(rowFactors)},
		Flops: 2 * float64(a.X.Size()/4) * float64(l.config.R),
		Bytes: float64(a.X.Size()+a.DLogits.Size()) + accesses(add)*float64(sum.Size()),
	})
	if err != nil || push.blocks == 1 {
		return err
	}
	return l.blocks.Record(list, ColumnSumArgs{X: sum, Y: y, Batch: items, Rows: int(push.blocks)})
}

// recordTokens adds the dispatch that writes the factors of the routing tokens, or the one that converts sums into
// dtokens.
func (l *RouterLogitsBackward) recordTokens(list *vk.CommandList, a RouterLogitsBackwardArgs, sums, dtokens, factors vk.Range,
	rows, tokenRows int) error {
	return l.dispatchRows(list, "router_logits_backward_tokens", rows, vk.Dispatch{
		Args:  []vk.Access{vk.Read(a.Tokens), vk.Read(sums), writeAccess(dtokens, l.config.AddTokens), vk.Write(factors)},
		Push:  vk.Scalars(&routerLogitsTokensPush{uint32(rows), uint32(tokenRows)}),
		Flops: 8 * float64(a.Tokens.Size()/4),
		Bytes: float64(a.Tokens.Size()+sums.Size()+factors.Size()) + accesses(l.config.AddTokens)*float64(dtokens.Size()),
	})
}

// dispatchRows adds a dispatch whose workgroups compute rows.
func (l *RouterLogitsBackward) dispatchRows(list *vk.CommandList, name string, rows int, d vk.Dispatch) (err error) {
	if d.Groups, err = workgroups(list.Device().Caps(), "RouterLogitsBackward", ceilDiv(uint64(rows), l.rowsPerGroup)); err != nil {
		return err
	}
	if d.Kernel, err = l.kernel(name, l.config.AddTokens); err != nil {
		return err
	}
	return list.Dispatch(d)
}

// kernel returns the kernel of a variant, which adds to its results if it can.
func (l *RouterLogitsBackward) kernel(name string, add bool) (*vk.Kernel, error) {
	spec := map[uint32]uint32{
		shaders.ColumnSumChannels:               uint32(l.config.C),
		shaders.RouterLogitsBackwardCosineScale: math.Float32bits(float32(l.config.CosineScale)),
	}
	if name != "router_logits_backward_tokens" {
		spec[shaders.RouterLogitsBackwardRoutingTokens] = uint32(l.config.R)
	}
	switch name {
	case "router_logits_backward_sums":
		spec[shaders.ColumnSumAddSum] = specBool(add)
	case "router_logits_backward_tokens":
		spec[shaders.RouterLogitsBackwardAddTokens] = specBool(add)
	}
	if name != "router_logits_backward_sums" {
		spec[shaders.RowNormInvocationsPerRow], spec[shaders.RowNormRowsPerWorkgroup] = l.invocationsPerRow, uint32(l.rowsPerGroup)
	}
	kernel, err := l.kernels.get(name, name, false, spec)
	if err != nil {
		return nil, fmt.Errorf("pipelines: RouterLogitsBackward: %w", err)
	}
	return kernel, nil
}

// Close frees the kernels. It may be called again, and on nil.
func (l *RouterLogitsBackward) Close() error {
	if l == nil {
		return nil
	}
	return errors.Join(l.kernels.close(), l.blocks.Close())
}
