package pipelines

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/internal/ref"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// routerCase is a problem whose first rows are zeros, tiny and large.
type routerCase struct {
	b, n, c, r, r2   int
	perItem, factors bool
	cosineScale      float64
}

func (rc routerCase) String() string {
	return fmt.Sprintf("B=%d N=%d C=%d R=%d R2=%d perItem=%t cosineScale=%g", rc.b, rc.n, rc.c, rc.r, rc.r2, rc.perItem, rc.cosineScale)
}

func (rc routerCase) config() RouterLogitsConfig {
	return RouterLogitsConfig{C: rc.c, R: rc.r, R2: rc.r2, CosineScale: rc.cosineScale}
}

func (rc routerCase) input() (x, tokens, tokens2 []float32) {
	sets := 1
	if rc.perItem {
		sets = rc.b
	}
	x, tokens, tokens2 = normal(1, rc.b*rc.n*rc.c), normal(2, sets*rc.r*rc.c), normal(3, sets*rc.r2*rc.c)
	for row, factor := range []float32{0, 1e-14, 1e3} {
		if rc.b*rc.n > row+1 {
			for i := range x[:rc.c] {
				x[row*rc.c+i] *= factor
			}
		}
	}
	return x, tokens, tokens2
}

// run records one dispatch. The buffers are named after the arguments, with a suffix.
func (rc routerCase) run(gpu *gputest.Harness, l *RouterLogits, suffix string) {
	x, tokens, tokens2 := rc.input()
	a := RouterLogitsArgs{
		X: gpu.In("x"+suffix, x), Tokens: gpu.In("tokens"+suffix, tokens), Logits: gpu.Out("logits"+suffix, 4*rc.b*rc.r*rc.n),
		B: rc.b, N: rc.n, TokensPerItem: rc.perItem,
	}
	if rc.r2 > 0 {
		a.Tokens2, a.Logits2 = gpu.In("tokens2"+suffix, tokens2), gpu.Out("logits2"+suffix, 4*rc.b*rc.r2*rc.n)
	}
	if rc.factors {
		a.Factors = gpu.Out("factors"+suffix, 4*rc.b*rc.n)
	}
	gpu.Run(func(list *vk.CommandList) error { return l.Record(list, a) })
}

// outputs returns the results of run.
func (rc routerCase) outputs(gpu *gputest.Harness, suffix string) []float32 {
	got := gpu.Float32("logits" + suffix)
	if rc.r2 > 0 {
		got = append(got, gpu.Float32("logits2"+suffix)...)
	}
	if rc.factors {
		got = append(got, gpu.Float32("factors"+suffix)...)
	}
	return got
}

// check compares the results of run with the reference.
func (rc routerCase) check(t *testing.T, gpu *gputest.Harness, suffix string) {
	t.Helper()
	x, tokens, tokens2 := rc.input()
	for _, set := range []struct {
		name   string
		r      int
		tokens []float32
	}{{"logits", rc.r, tokens}, {"logits2", rc.r2, tokens2}} {
		if set.r == 0 {
			continue
		}
		args := ref.RouterLogitsArgs{
			X: x, Tokens: set.tokens, B: rc.b, N: rc.n, C: rc.c, R: set.r, TokensPerItem: rc.perItem, CosineScale: rc.cosineScale,
		}
		want := ref.RouterLogits(args)
		err := ref.MaxErr(gpu.Float32(set.name+suffix), want).Within(ref.Bound(ref.RouterLogits32(args), want, 1e-6))
		assert.NoError(t, err, set.name)
	}
	if !rc.factors {
		return
	}
	// Factors span many powers of ten, so errors are relative to each.
	got, naive, ones := gpu.Float32("factors"+suffix), make([]float32, rc.b*rc.n), make([]float64, rc.b*rc.n)
	for row := range got {
		sum, sum32 := 0.0, float32(0)
		for _, v := range x[row*rc.c : (row+1)*rc.c] {
			sum += float64(v) * float64(v)
			sum32 += v * v
		}
		want := math.Sqrt(float64(rc.c)) / max(math.Sqrt(sum), 1e-12)
		naive32 := float32(math.Sqrt(float64(rc.c))) / max(float32(math.Sqrt(float64(sum32))), 1e-12)
		got[row], naive[row], ones[row] = float32(float64(got[row])/want), float32(float64(naive32)/want), 1
	}
	assert.NoError(t, ref.MaxErr(got, ones).Within(ref.Bound(naive, ones, 1e-6)))
}

func TestRouterLogits(t *testing.T) {
	for _, rc := range []routerCase{
		{b: 1, n: 1, c: 1, r: 1, factors: true},
		{b: 1, n: 5, c: 3, r: 2, cosineScale: 8},
		{b: 2, n: 31, c: 4, r: 1, factors: true},
		{b: 3, n: 17, c: 29, r: 3, r2: 2, perItem: true, factors: true},
		{b: 2, n: 32, c: 32, r: 1, r2: 1, factors: true},
		{b: 2, n: 33, c: 36, r: 4, cosineScale: 8, factors: true},
		{b: 1, n: 127, c: 28, r: 2, perItem: true, cosineScale: 2.5},
		{b: 3, n: 128, c: 60, r: 1, r2: 3, cosineScale: 8, factors: true},
		{b: 2, n: 129, c: 512, r: 1, r2: 2, factors: true},
		{b: 1, n: 37, c: 511, r: 5},
		{b: 1, n: 9, c: 2052, r: 2, cosineScale: 8},
		{b: 2, n: 40, c: 20, r: 16, perItem: true},
		{b: 2, n: 40, c: 20, r: 9, r2: 8, factors: true, cosineScale: 8}, // two passes, of 9 and 8 routing tokens
		{b: 1, n: 21, c: 33, r: 40, r2: 1, perItem: true},
		{b: 2, n: 70000, c: 4, r: 2, factors: true}, // enough rows to select the wide kernel
		{b: 700, n: 3, c: 8, r: 1, perItem: true},
		{b: 65600, n: 1, c: 3, r: 1, perItem: true}, // more workgroups than many devices allow in x
	} {
		if testing.Short() && rc.c != 29 && rc.r != 9 {
			continue // CPU drivers compile each for 2 s
		}
		t.Run(rc.String(), func(t *testing.T) {
			gpu := gputest.New(t)
			l, err := NewRouterLogits(gpu.Dev, rc.config())
			require.NoError(t, err)
			defer l.Close()
			rc.run(gpu, l, "")
			rc.check(t, gpu, "")
			stem := "router_logits"
			if rc.cosineScale != 0 {
				stem += "_cosine"
			}
			stem, _ = rowVariant(stem, rc.c)
			names := []string{stem + "_narrow", stem}
			if rc.b*rc.n == 140000 || rc.perItem && rc.b >= routerWideGroups {
				names[0], names[1] = names[1], names[0]
				l.wideGroups = math.MaxInt
			} else {
				l.wideGroups = 1
			}
			assert.Equal(t, names[:1], gpu.StepNames())
			got := rc.outputs(gpu, "")

			if testing.Short() && rc.cosineScale != 0 {
				return
			}

			// The other kernel has the same order of summation, so it gives the same bits.
			rc.run(gpu, l, " other")
			assert.Equal(t, names[1:], gpu.StepNames())
			assert.True(t, slices.Equal(got, rc.outputs(gpu, " other")))
		})
	}
}

// All numbers of lanes per row and rows per lane that a device may use.
func TestRouterLogitsTilings(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 2 s")
	}
	dev := gputest.Device(t)
	for lanes := 1; lanes <= min(int(dev.Caps().SubgroupMin), 32); lanes *= 2 {
		for _, rows := range []int{2, 3, 8} {
			if testing.Short() && rows != 3 {
				continue
			}
			for _, rc := range []routerCase{
				{b: 2, n: 45, c: 44, r: 2, r2: 1, factors: true},
				{b: 2, n: 300, c: 23, r: 2, perItem: true, cosineScale: 8},
			} {
				t.Run(fmt.Sprintf("lanes=%d rows=%d %v", lanes, rows, rc), func(t *testing.T) {
					gpu := gputest.New(t)
					l, err := newRouterLogits(gpu.Dev, rc.config(), lanes, rows)
					require.NoError(t, err)
					defer l.Close()
					l.wideGroups = 1
					rc.run(gpu, l, "")
					rc.check(t, gpu, "")
				})
			}
		}
	}
}

// Passes over x have as many routing tokens as fit the registers, and about as many each.
func TestRouterLogitsTokensPerPass(t *testing.T) {
	ownLimits(t)
	for name, l := range chipLimits() {
		few := l.registersIn(routerThreads) <= defaultRegisters
		for tokens, want := range map[int]uint64{1: 1, 15: 15, 17: 9, 32: 16} {
			assert.Equal(t, want, RouterLogitsConfig{R: tokens}.tokensPerPass(l), "%s, %d tokens", name, tokens)
		}
		want := uint64(16)
		if few {
			want = 8 // two passes
		}
		assert.Equal(t, want, RouterLogitsConfig{R: 15, R2: 1, CosineScale: 8}.tokensPerPass(l), name)
	}
}

// A logit depends only on its token and its routing token: not on the batch, other rows, other routing tokens or
// factors.
func TestRouterLogitsBits(t *testing.T) {
	gpu := gputest.New(t)
	const b, n, c, r = 2, 50, 100, 3
	x, tokens := normal(1, b*n*c), normal(2, r*c)
	all, err := NewRouterLogits(gpu.Dev, RouterLogitsConfig{C: c, R: r})
	require.NoError(t, err)
	defer all.Close()
	one, err := NewRouterLogits(gpu.Dev, RouterLogitsConfig{C: c, R: 1})
	require.NoError(t, err)
	defer one.Close()
	a := RouterLogitsArgs{
		X: gpu.In("x", x), Tokens: gpu.In("tokens", tokens), Logits: gpu.Out("all", 4*b*r*n), Factors: gpu.Out("factors", 4*b*n), B: b, N: n,
	}
	const item, row, token = 1, 7, 2
	flatRow := item*n + row
	alone := RouterLogitsArgs{
		X: a.X.Slice(4*c*uint64(flatRow), 4*c), Tokens: gpu.In("token", tokens[token*c:]), Logits: gpu.Out("one", 4), B: 1, N: 1,
	}
	gpu.Run(func(list *vk.CommandList) error { return firstError(all.Record(list, a), one.Record(list, alone)) })
	assert.Equal(t, gpu.Float32("all")[(item*r+token)*n+row], gpu.Float32("one")[0])
}

func TestRouterLogitsAtOffset(t *testing.T) {
	const b, n, r, r2 = 2, 13, 2, 1
	for _, c := range []int{1, 30, 32} {
		gpu, offset := gputest.New(t), rowAlign(c)
		x, tokens, tokens2 := normal(1, b*n*c), normal(2, r*c), normal(3, r2*c)
		l, err := NewRouterLogits(gpu.Dev, RouterLogitsConfig{C: c, R: r, R2: r2})
		require.NoError(t, err)
		defer l.Close()
		a := RouterLogitsArgs{
			X: inputAt(gpu, "x", x, offset), Tokens: inputAt(gpu, "tokens", tokens, offset), Tokens2: inputAt(gpu, "tokens2", tokens2, offset),
			Logits: outputAt(gpu, "logits", b*r*n, wordAlign), Logits2: outputAt(gpu, "logits2", b*r2*n, wordAlign),
			Factors: outputAt(gpu, "factors", b*n, wordAlign), B: b, N: n,
		}
		gpu.Run(func(list *vk.CommandList) error { return l.Record(list, a) })
		for _, set := range []struct {
			name   string
			r      int
			tokens []float32
		}{{"logits", r, tokens}, {"logits2", r2, tokens2}} {
			args := ref.RouterLogitsArgs{X: x, Tokens: set.tokens, B: b, N: n, C: c, R: set.r}
			want := ref.RouterLogits(args)
			assert.NoError(t, ref.MaxErr(outputFrom(t, gpu, set.name, wordAlign), want).Within(ref.Bound(ref.RouterLogits32(args), want, 1e-6)), set.name)
		}
	}
}

func TestRouterLogitsBadInput(t *testing.T) {
	gpu := gputest.New(t)
	for _, test := range []struct {
		want   string
		config RouterLogitsConfig
	}{
		{"C is 0, want 1 to", RouterLogitsConfig{R: 1}},
		{"C is 1073741824, want 1 to", RouterLogitsConfig{C: 1 << 30, R: 1}},
		{"R is 0 and R2 0, want R in 1..65536 and R2 in 0..65536", RouterLogitsConfig{C: 4}},
		{"R is 65537 and R2 0, want", RouterLogitsConfig{C: 4, R: 65537}},
		{"R is 1 and R2 -1, want", RouterLogitsConfig{C: 4, R: 1, R2: -1}},
		{"CosineScale is -8, want", RouterLogitsConfig{C: 4, R: 1, CosineScale: -8}},
		{"CosineScale is NaN, want", RouterLogitsConfig{C: 4, R: 1, CosineScale: math.NaN()}},
		{"CosineScale is 1e+300, want", RouterLogitsConfig{C: 4, R: 1, CosineScale: 1e300}},
		{"CosineScale is 1e-300, want", RouterLogitsConfig{C: 4, R: 1, CosineScale: 1e-300}},
	} {
		_, err := NewRouterLogits(gpu.Dev, test.config)
		assert.ErrorContains(t, err, "pipelines: RouterLogits: "+test.want)
	}
	const b, n, c, r, r2 = 2, 5, 8, 3, 1
	l, err := NewRouterLogits(gpu.Dev, RouterLogitsConfig{C: c, R: r, R2: r2})
	require.NoError(t, err)
	defer l.Close()
	big := gpu.In("big", make([]float32, 400))
	good := RouterLogitsArgs{
		X: gpu.In("x", normal(1, b*n*c)), Tokens: gpu.In("tokens", normal(2, r*c)), Tokens2: gpu.In("tokens2", normal(2, r2*c)),
		Logits: gpu.Out("logits", 4*b*r*n), Logits2: gpu.Out("logits2", 4*b*r2*n), B: b, N: n,
	}
	assertRejected(t, gpu, good, l.Record, []badArgs[RouterLogitsArgs]{
		{"B is 0, want 1", func(a *RouterLogitsArgs) { a.B = 0 }},
		{"N is 0, want 1", func(a *RouterLogitsArgs) { a.N = 0 }},
		{"B*N is 4294967296, want 1", func(a *RouterLogitsArgs) { a.B, a.N = 1<<16, 1<<16 }},
		{"B*R is 3221225472, want 1", func(a *RouterLogitsArgs) { a.B, a.N = 1<<30, 1 }},
		{"N is 1073741824, want 1 to 1073741823", func(a *RouterLogitsArgs) { a.B, a.N = 1, 1<<30 }},
		{"x is missing, want [B 2, N 5, C 8] f32, 320 bytes", func(a *RouterLogitsArgs) { a.X = vk.Range{} }},
		{"x has 1600 bytes, want", func(a *RouterLogitsArgs) { a.X = big }},
		{"x starts at byte 264 of its buffer, want a multiple of 16", func(a *RouterLogitsArgs) { a.X = big.Slice(8, 320) }},
		{"tokens is missing, want [R 3, C 8] f32, 96 bytes", func(a *RouterLogitsArgs) { a.Tokens = vk.Range{} }},
		{"tokens has 96 bytes, want [B 2, R 3, C 8] f32, 192 bytes", func(a *RouterLogitsArgs) { a.TokensPerItem = true }},
		{"tokens2 is missing, want [R2 1, C 8] f32, 32 bytes", func(a *RouterLogitsArgs) { a.Tokens2 = vk.Range{} }},
		{"tokens2 has 1600 bytes, want", func(a *RouterLogitsArgs) { a.Tokens2 = big }},
		{"logits is missing, want [B 2, R 3, N 5] f32, 120 bytes", func(a *RouterLogitsArgs) { a.Logits = vk.Range{} }},
		{"logits has 1600 bytes, want", func(a *RouterLogitsArgs) { a.Logits = big }},
		{"logits2 is missing, want [B 2, R2 1, N 5] f32, 40 bytes", func(a *RouterLogitsArgs) { a.Logits2 = vk.Range{} }},
		{"logits2 has 1600 bytes, want", func(a *RouterLogitsArgs) { a.Logits2 = big }},
		{"factors has 1600 bytes, want [B 2, N 5] f32, 40 bytes", func(a *RouterLogitsArgs) { a.Factors = big }},
	})
	single, err := NewRouterLogits(gpu.Dev, RouterLogitsConfig{C: c, R: r})
	require.NoError(t, err)
	defer single.Close()
	assertRejected(t, gpu, good, single.Record, []badArgs[RouterLogitsArgs]{
		{"tokens2 has 32 bytes and logits2 40, want neither", func(a *RouterLogitsArgs) {}},
		{"tokens2 has 0 bytes and logits2 40, want neither", func(a *RouterLogitsArgs) { a.Tokens2 = vk.Range{} }},
	})
	require.NoError(t, l.Close())
	require.NoError(t, l.Close())
	require.NoError(t, (*RouterLogits)(nil).Close())
	assertRejected(t, gpu, good, l.Record, []badArgs[RouterLogitsArgs]{{"closed", func(*RouterLogitsArgs) {}}})
}
