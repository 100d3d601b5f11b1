package pipelines

import (
	"fmt"
	"math"
	"unsafe"

	"github.com/colt5-vulkan/colt5/vk"
)

// RouterLogits scores every token against the routing tokens of one router, or of two, and gives RMSNorm's row factors on the way:
// x is read once for all of that (once for every 16 routing tokens, if there are more).
//
//	x [B, N, C] f32 in    tokens [R, C] f32 in, or [B, R, C]    tokens2 [R2, C] f32 in, or [B, R2, C]
//	logits [B, R, N] f32 out    logits2 [B, R2, N] f32 out    factors [B, N] f32 out, optional
//	logits[b, r, i] = x[b, i] . tokens[r]
//	cosine:           CosineScale * (x[b, i] / max(||x[b, i]||, 1e-12)) . (tokens[r] / max(||tokens[r]||, 1e-12))
//	factors[b, i]   = sqrt(C) / max(||x[b, i]||, 1e-12)
//
// The order of summation depends on C and the device alone.
//
// Shader: shaders/router_logits.comp. Reference: internal/ref.RouterLogits.
type RouterLogits struct {
	config        RouterLogitsConfig
	fullSubgroups bool // subgroups can be asked to be full
	lanes, rows   int  // threads that share a row; rows of a thread where there are many
	wideGroups    int  // workgroups from which on there are
	kernels       kernelCache
}

// RouterLogitsConfig is what is baked into the kernels.
type RouterLogitsConfig struct {
	C           int     // floats of a token
	R           int     // routing tokens
	R2          int     // routing tokens of a second router that reads the same x; 0: there is none
	CosineScale float64 // 0: dot product; otherwise cosine times this, the reference's default being 8
}

// RouterLogitsArgs is one dispatch. It reads X, Tokens and Tokens2, and writes the rest.
type RouterLogitsArgs struct {
	X       vk.Range // [B, N, C]
	Tokens  vk.Range // [R, C], with TokensPerItem [B, R, C]
	Tokens2 vk.Range // [R2, C], with TokensPerItem [B, R2, C]; absent if R2 is 0
	Logits  vk.Range // [B, R, N]
	Logits2 vk.Range // [B, R2, N]; absent if R2 is 0
	Factors vk.Range // [B, N]; absent: not wanted
	B, N    int

	TokensPerItem bool // every batch item has routing tokens of its own
}

type routerLogitsPush struct{ n, rows, tiles, groups uint32 }

const (
	_ = uint(16 - unsafe.Sizeof(routerLogitsPush{}))
	_ = uint(unsafe.Sizeof(routerLogitsPush{}) - 16)
)

const (
	routerThreads       = 256     // of a workgroup, as in the shader
	routerLanes         = 8       // threads that share a row: with vec4 loads they read 128 bytes at once
	routerRowsPerThread = 4       // rows that a thread works on at a time where there are many
	routerTokensPerPass = 16      // routing tokens of one pass over x; more would not fit the registers
	routerWideGroups    = 512     // workgroups of many rows a thread, from which on they are enough for the largest devices
	routerMaxTokens     = 1 << 16 // most routing tokens
)

// NewRouterLogits makes a router's logits for a device. Its kernels are compiled when they are first recorded.
func NewRouterLogits(dev *vk.Device, c RouterLogitsConfig) (*RouterLogits, error) {
	return newRouterLogits(dev, c, min(routerLanes, int(dev.Caps().SubgroupMin)), routerRowsPerThread)
}

// newRouterLogits also takes the threads that share a row, a power of two up to the subgroup size, and the rows of a thread where
// there are many. Results depend on the first of them.
func newRouterLogits(dev *vk.Device, c RouterLogitsConfig, lanes, rows int) (*RouterLogits, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	_, cols := rowVariant("router_logits", c.C)
	passes := (c.R + c.R2 + routerTokensPerPass - 1) / routerTokensPerPass
	if err := checkIterations(dev.Caps(), "RouterLogits", fmt.Sprintf("%d routing tokens of %d floats", c.R+c.R2, c.C), passes*(int(cols)/lanes+2)); err != nil {
		return nil, err
	}
	return &RouterLogits{config: c, fullSubgroups: dev.Caps().FullSubgroups, lanes: lanes, rows: rows, wideGroups: routerWideGroups, kernels: kernelCache{dev: dev}}, nil
}

// kernel is the kernel for many rows, wide, or the one for few.
func (l *RouterLogits) kernel(wide bool) (*vk.Kernel, error) {
	variant, cols := rowVariant("router_logits", l.config.C)
	name, rows := variant, l.rows
	if !wide {
		name, rows = variant+"_narrow", 1
	}
	// All passes but perhaps the last have as many tokens, so 17 go as 9 and 8.
	tokens := l.config.R + l.config.R2
	passes := (tokens + routerTokensPerPass - 1) / routerTokensPerPass
	return l.kernels.get(name, variant, l.fullSubgroups, map[uint32]uint32{0: cols, 1: uint32(l.lanes), 2: uint32(rows), 3: uint32(l.config.R),
		4: uint32(l.config.R2), 5: uint32((tokens + passes - 1) / passes), 6: math.Float32bits(float32(l.config.CosineScale))})
}

func (c RouterLogitsConfig) check() error {
	const op = "RouterLogits"
	if err := checkRowLength(op, c.C); err != nil {
		return err
	}
	if c.R < 1 || c.R2 < 0 || c.R > routerMaxTokens || c.R2 > routerMaxTokens {
		return fmt.Errorf("pipelines: %s: R is %d and R2 %d, want R in 1..%d and R2 in 0..%[4]d", op, c.R, c.R2, routerMaxTokens)
	}
	// Not zero and finite also as a float32.
	if s := float32(c.CosineScale); c.CosineScale != 0 && !(s > 0 && s <= math.MaxFloat32) {
		return fmt.Errorf("pipelines: %s: CosineScale is %g, want 0 or a positive float32", op, c.CosineScale)
	}
	return nil
}

// Record adds the dispatch to a tape.
func (l *RouterLogits) Record(t *vk.CommandList, a RouterLogitsArgs) error {
	if err := l.check(a); err != nil {
		return err
	}
	// Items matter only where each has its own tokens; else the batch is one long item, so that no workgroup ends early.
	items, rows := 1, a.B*a.N
	if a.TokensPerItem {
		items, rows = a.B, a.N
	}
	wide, each := true, routerThreads/l.lanes*l.rows
	if (rows+each-1)/each*items < l.wideGroups {
		wide, each = false, routerThreads/l.lanes
	}
	tiles := (rows + each - 1) / each
	grid, err := workgroups(t.Device().Caps(), "RouterLogits", uint64(tiles)*uint64(items))
	if err != nil {
		return err
	}
	kernel, err := l.kernel(wide)
	if err != nil {
		return fmt.Errorf("pipelines: RouterLogits: %w", err)
	}
	x, tokens := float64(a.B)*float64(a.N)*float64(l.config.C), float64(l.config.R+l.config.R2)
	return t.Dispatch(vk.Dispatch{
		Kernel: kernel,
		Groups: grid,
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
	if n.n >= 1<<30 {
		return fmt.Errorf("pipelines: %s: N is %d, want 1 to %d", op, n.n, 1<<30-1)
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

// Close frees the kernels.
func (l *RouterLogits) Close() error {
	if l == nil {
		return nil
	}
	return l.kernels.close()
}
