package pipelines

import (
	"fmt"
	"math"
	"unsafe"

	"github.com/colt5-vulkan/colt5/shaders"
	"github.com/colt5-vulkan/colt5/vk"
)

// RouterLogits is the product of every token with the routing tokens of one or two routers. It can also write RMSNorm's
// row factors. It reads x once per 16 routing tokens.
//
//	x [B, N, C] f32 in    tokens [R, C] f32 in, or [B, R, C]    tokens2 [R2, C] f32 in, or [B, R2, C]
//	logits [B, R, N] f32 out    logits2 [B, R2, N] f32 out    factors [B, N] f32 out, optional
//	logits[b, r, i] = x[b, i] . tokens[r]
//	cosine:           CosineScale * (x[b, i] / max(||x[b, i]||, 1e-12)) . (tokens[r] / max(||tokens[r]||, 1e-12))
//	factors[b, i]   = sqrt(C) / max(||x[b, i]||, 1e-12)
//
// The order of summation depends on C and the device alone.
//
// Lengths of any size are allowed for a cosine, as long as the product of both is below 4e37. Factors without cosines are
// right for rows of lengths below 1.8e19, whose sum of squares is finite. Of tokens with one nonzero
// element in the same place the cosine is exactly 1 or -1.
//
// Shader: shaders/src/router_logits.comp. CPU reference: internal/ref.RouterLogits.
type RouterLogits struct {
	config        RouterLogitsConfig
	lanes         int    // invocations that share a row
	rows          int    // rows per lane of the wide kernel; the narrow kernel has one
	tokensPerPass uint64 // routing tokens per pass over x
	wideGroups    int    // least number of workgroups for which the wide kernel is used
	kernels       kernelCache
}

// RouterLogitsConfig is fixed when the kernel is compiled.
type RouterLogitsConfig struct {
	C           int     // elements of a token
	R           int     // routing tokens
	R2          int     // routing tokens of a second router with the same x; 0: one router
	CosineScale float64 // factor of the cosine, 8 in colt5-attention; 0: dot product
}

// RouterLogitsArgs names the memory and the sizes of one dispatch.
type RouterLogitsArgs struct {
	X       vk.Range // [B, N, C]
	Tokens  vk.Range // [R, C], with TokensPerItem [B, R, C]
	Tokens2 vk.Range // [R2, C], with TokensPerItem [B, R2, C]; absent if R2 is 0
	Logits  vk.Range // [B, R, N]
	Logits2 vk.Range // [B, R2, N]; absent if R2 is 0
	Factors vk.Range // [B, N], for callers: no kernel of this package reads them; absent: not wanted
	B, N    int

	TokensPerItem bool // every batch item has its own routing tokens
}

type routerLogitsPush struct{ n, rows, tiles, groups uint32 }

var _ = [1]struct{}{}[unsafe.Sizeof(routerLogitsPush{})-16]

const (
	routerThreads       = 256     // invocations of a workgroup, as in the shader
	routerLanes         = 8       // invocations that share a row: with vec4 loads they read 128 bytes at once
	routerRowsPerLane   = 4       // of the wide kernel
	routerTokensPerPass = 16      // routing tokens per pass over x; more would spill registers
	routerWideGroups    = 512     // workgroups of the wide kernel that fill the largest devices
	routerMaxTokens     = 1 << 16 // routing tokens
)

// NewRouterLogits checks the config. Record compiles the kernels when it first needs them.
func NewRouterLogits(dev *vk.Device, c RouterLogitsConfig) (*RouterLogits, error) {
	return newRouterLogits(dev, c, min(routerLanes, int(dev.Caps().SubgroupMin)), routerRowsPerLane)
}

// newRouterLogits takes the number of lanes per row, a power of two up to the subgroup size, and the rows per lane of
// the wide kernel. The order of summation depends on lanes.
func newRouterLogits(dev *vk.Device, c RouterLogitsConfig, lanes, rows int) (*RouterLogits, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	_, cols := rowVariant("router_logits", c.C)
	tokensPerPass := c.tokensPerPass(limitsOf(dev))
	passes := int(ceilDiv(uint64(c.R+c.R2), tokensPerPass))
	iterations := passes * (int(cols)/lanes + 2)
	if c.CosineScale != 0 { // where sums of squares overflow
		iterations += passes * (rows + int(tokensPerPass)) * (c.C/4 + 1)
	}
	if err := checkIterations(dev.Caps(), "RouterLogits", fmt.Sprintf("%d routing tokens of %d floats", c.R+c.R2, c.C), iterations); err != nil {
		return nil, err
	}
	return &RouterLogits{config: c, lanes: lanes, tokensPerPass: tokensPerPass, rows: rows, wideGroups: routerWideGroups, kernels: kernelCache{dev: dev}}, nil
}

// tokensPerPass is the number of routing tokens per pass over x. They are divided evenly among the fewest passes: 17 are 9
// and 8.
func (c RouterLogitsConfig) tokensPerPass(l deviceLimits) uint64 {
	most := uint64(routerTokensPerPass)
	if c.CosineScale != 0 && l.registersIn(routerThreads) <= defaultRegisters {
		most-- // Apple's compiler spills 4 of 128 registers
	}
	return evenShare(uint64(c.R+c.R2), most)
}

// kernel returns the wide kernel, for many rows, or the narrow one.
func (l *RouterLogits) kernel(wide bool) (*vk.Kernel, error) {
	stem := "router_logits"
	if l.config.CosineScale != 0 {
		stem = "router_logits_cosine"
	}
	variant, cols := rowVariant(stem, l.config.C)
	name, rows := variant, l.rows
	if !wide {
		name, rows = variant+"_narrow", 1
	}
	v := fullSubgroups(l.kernels.dev, name, variant, routerThreads, map[uint32]uint32{
		shaders.RouterLogitsColumns:        cols,
		shaders.RouterLogitsLanesPerRow:    uint32(l.lanes),
		shaders.RouterLogitsRowsPerLane:    uint32(rows),
		shaders.RouterLogitsRoutingTokens:  uint32(l.config.R),
		shaders.RouterLogitsRoutingTokens2: uint32(l.config.R2),
		shaders.RouterLogitsTokensPerPass:  uint32(l.tokensPerPass),
		shaders.RouterLogitsCosineScale:    math.Float32bits(float32(l.config.CosineScale)),
	})
	return l.kernels.kernel(v)
}

func (c RouterLogitsConfig) check() error {
	const op = "RouterLogits"
	if err := checkRowLength(op, c.C); err != nil {
		return err
	}
	if c.R < 1 || c.R2 < 0 || c.R > routerMaxTokens || c.R2 > routerMaxTokens {
		return fmt.Errorf("pipelines: %s: R is %d and R2 %d, want R in 1..%d and R2 in 0..%[4]d", op, c.R, c.R2, routerMaxTokens)
	}
	return checkCosineScale(op, c.CosineScale)
}

// checkCosineScale checks that the factor of a cosine is 0, or finite and not 0 as a float32.
func checkCosineScale(op string, scale float64) error {
	if s := float32(scale); scale != 0 && !(s > 0 && s <= math.MaxFloat32) {
		return fmt.Errorf("pipelines: %s: CosineScale is %g, want 0 or a positive float32", op, scale)
	}
	return nil
}

// Record appends one dispatch to a command list.
func (l *RouterLogits) Record(list *vk.CommandList, a RouterLogitsArgs) error {
	if err := l.check(a); err != nil {
		return err
	}
	// Items matter only with TokensPerItem. Else the batch is one long item, so that only the last workgroup is partly
	// idle.
	items, rows := 1, a.B*a.N
	if a.TokensPerItem {
		items, rows = a.B, a.N
	}
	wide, rowsPerGroup := true, routerThreads/l.lanes*l.rows
	if (rows+rowsPerGroup-1)/rowsPerGroup*items < l.wideGroups {
		wide, rowsPerGroup = false, routerThreads/l.lanes
	}
	tiles := (rows + rowsPerGroup - 1) / rowsPerGroup
	groups, err := workgroups(list.Device().Caps(), "RouterLogits", uint64(tiles)*uint64(items))
	if err != nil {
		return err
	}
	kernel, err := l.kernel(wide)
	if err != nil {
		return fmt.Errorf("pipelines: RouterLogits: %w", err)
	}
	x, tokens := float64(a.B)*float64(a.N)*float64(l.config.C), float64(l.config.R+l.config.R2)
	return list.Dispatch(vk.Dispatch{
		Kernel: kernel,
		Groups: groups,
		Args: []vk.Access{vk.Read(a.X), vk.Read(a.Tokens), vk.Read(a.Tokens2),
			vk.Write(a.Logits), vk.Write(a.Logits2), vk.Write(a.Factors)},
		Push:  vk.Scalars(&routerLogitsPush{uint32(a.N), uint32(rows), uint32(tiles), uint32(tiles * items)}),
		Flops: 2 * x * (tokens + 1),
		Bytes: float64(a.X.Size() + a.Tokens.Size() + a.Tokens2.Size() + a.Logits.Size() + a.Logits2.Size() + a.Factors.Size()),
	})
}

func (l *RouterLogits) check(a RouterLogitsArgs) error {
	const op = "RouterLogits"
	b, n, c, r, r2 := dim{"B", a.B}, dim{"N", a.N}, dim{"C", l.config.C}, dim{"R", l.config.R}, dim{"R2", l.config.R2}
	if err := checkPositive(op, b, n, dim{"B*N", b.n * n.n}, dim{"B*R", b.n * r.n}, dim{"B*(R2+1)", b.n * (r2.n + 1)}); err != nil {
		return err
	}
	if n.n > maxRowLength {
		return fmt.Errorf("pipelines: %s: N is %d, want 1 to %d", op, n.n, maxRowLength)
	}
	set, set2 := []dim{r, c}, []dim{r2, c}
	if a.TokensPerItem {
		set, set2 = []dim{b, r, c}, []dim{b, r2, c}
	}
	if err := firstError(
		checkTensor(op, "x", a.X, rowAlign(c.n), f32, b, n, c),
		checkTensor(op, "tokens", a.Tokens, rowAlign(c.n), f32, set...),
		checkTensor(op, "logits", a.Logits, wordAlign, f32, b, r, n),
		checkOptional(op, "factors", a.Factors, wordAlign, f32, b, n),
	); err != nil {
		return err
	}
	if r2.n > 0 {
		return firstError(
			checkTensor(op, "tokens2", a.Tokens2, rowAlign(c.n), f32, set2...),
			checkTensor(op, "logits2", a.Logits2, wordAlign, f32, b, r2, n),
		)
	}
	if !a.Tokens2.IsZero() || !a.Logits2.IsZero() {
		return fmt.Errorf("pipelines: %s: tokens2 has %d bytes and logits2 %d, want neither: R2 is 0",
			op, a.Tokens2.Size(), a.Logits2.Size())
	}
	return nil
}

// Close frees the kernels. It may be called again, and on nil.
func (l *RouterLogits) Close() error {
	if l == nil {
		return nil
	}
	return l.kernels.close()
}
