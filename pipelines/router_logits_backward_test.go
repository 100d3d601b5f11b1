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

// logitsGradient is a gradient of router logits.
type logitsGradient struct {
	b, n, c, r         int
	cosine             float64
	perItem, addTokens bool
	dx                 string // where the sum of dx begins: "" in dx, "base" in another range, "store" at 0
}

// logitsData are the tensors of a gradient. Exponents scale the rows of x and tokens by powers of two.
type logitsData struct {
	x, tokens, dlogits, dx, dtokens []float32
	xExponents, tokenExponents      []int
}

func (g logitsGradient) tokenSets() int {
	if g.perItem {
		return g.b
	}
	return 1
}

func (g logitsGradient) data() logitsData {
	sets := g.tokenSets()
	return logitsData{
		normal(1, g.b*g.n*g.c), normal(2, sets*g.r*g.c), normal(3, g.b*g.r*g.n), normal(4, g.b*g.n*g.c), normal(5, g.b*g.r*g.c),
		make([]int, g.b*g.n), make([]int, sets*g.r),
	}
}

// exponentsOfTokens are those of the rows of dtokens.
func (g logitsGradient) exponentsOfTokens(d logitsData) []int {
	if g.perItem {
		return d.tokenExponents
	}
	return slices.Repeat(d.tokenExponents, g.b)
}

// run returns dx and dtokens. Rows of x and tokens are multiplied by powers of two, and their gradients divided by them.
func (g logitsGradient) run(t *testing.T, d logitsData) (dx, dtokens []float32) {
	gpu := gputest.New(t)
	config := RouterLogitsBackwardConfig{C: g.c, R: g.r, CosineScale: g.cosine, AddTokens: g.addTokens, StoreDX: g.dx == "store"}
	align := uint64(wordAlign)
	if config.Fused() {
		align = rowAlign(g.c)
	}
	l, err := NewRouterLogitsBackward(gpu.Dev, config)
	require.NoError(t, err)
	defer l.Close()
	tokenExponents := g.exponentsOfTokens(d)
	a := RouterLogitsBackwardArgs{
		X: inputAt(gpu, "x", scaleRows(d.x, d.xExponents, g.c, 1), align), DLogits: inputAt(gpu, "dlogits", d.dlogits, wordAlign),
		Tokens: inputAt(gpu, "tokens", scaleRows(d.tokens, d.tokenExponents, g.c, 1), align),
		B:      g.b, N: g.n, TokensPerItem: g.perItem,
	}
	switch base := scaleRows(d.dx, d.xExponents, g.c, -1); g.dx {
	case "":
		a.DX = gpu.InOut("dx", base)
	case "base":
		a.DX, a.Base = gpu.Out("dx", 4*len(base)), inputAt(gpu, "base", base, align)
	case "store":
		a.DX = gpu.Out("dx", 4*len(base))
	}
	if g.addTokens {
		a.DTokens = gpu.InOut("dtokens", scaleRows(d.dtokens, tokenExponents, g.c, -1))
	} else {
		a.DTokens = gpu.Out("dtokens", 4*len(d.dtokens))
	}
	if bytes := RouterLogitsBackwardScratch(config, g.b, g.n); bytes > 0 {
		a.Scratch = gpu.Out("scratch", int(bytes))
	}
	gpu.Run(func(list *vk.CommandList) error { return l.Record(list, a) })
	steps, names := 2, gpu.StepNames()
	if g.n > 256 {
		steps++
	}
	if g.cosine != 0 {
		steps += 2
	}
	if config.Fused() {
		assert.Equal(t, "router_logits_backward_fused", names[0])
	} else {
		assert.Len(t, names, steps)
	}
	return scaleRows(gpu.Float32("dx"), d.xExponents, g.c, 1), scaleRows(gpu.Float32("dtokens"), tokenExponents, g.c, 1)
}

// logitsReference returns both gradients in a precision.
func logitsReference[T ref.Float](g logitsGradient, d logitsData, backward func(ref.RouterLogitsArgs, []float32) (dx, dtokens []T)) (dx, dtokens []T) {
	for b := range g.b {
		a := ref.RouterLogitsArgs{X: d.x[b*g.n*g.c:][:g.n*g.c], Tokens: d.tokens, B: 1, N: g.n, C: g.c, R: g.r, CosineScale: g.cosine}
		if g.perItem {
			a.Tokens = d.tokens[b*g.r*g.c:][:g.r*g.c]
		}
		itemDX, itemDTokens := backward(a, d.dlogits[b*g.r*g.n:][:g.r*g.n])
		dx, dtokens = append(dx, itemDX...), append(dtokens, itemDTokens...)
	}
	for i, v := range d.dx {
		if g.dx != "store" {
			dx[i] += T(v)
		}
	}
	for i, v := range d.dtokens {
		if g.addTokens {
			dtokens[i] += T(v)
		}
	}
	return dx, dtokens
}

func (g logitsGradient) test(t *testing.T, d logitsData) {
	dx, dtokens := g.run(t, d)
	wantDX, wantDTokens := logitsReference(g, d, ref.RouterLogitsBackward)
	naiveDX, naiveDTokens := logitsReference(g, d, ref.RouterLogitsBackward32)
	assert.NoError(t, ref.MaxErr(dx, wantDX).Within(ref.Bound(naiveDX, wantDX, 1e-6)), "dx")
	assert.NoError(t, ref.MaxErr(dtokens, wantDTokens).Within(ref.Bound(naiveDTokens, wantDTokens, 1e-6)), "dtokens")
}

func TestRouterLogitsBackward(t *testing.T) {
	for _, g := range []logitsGradient{
		{2, 257, 100, 2, 0, false, true, "store"}, {2, 70, 520, 4, 0, true, true, "base"}, {1, 3, 12, 3, 0, false, false, "store"}, {1, 5000, 8, 1, 0, false, false, "base"},
		{1, 2, 4096, 1, 0, false, true, "store"}, {1, 30, 16, 5, 0, false, true, ""},
		{1, 1, 1, 1, 0, false, false, ""}, {2, 3, 4, 2, 0, true, true, ""}, {1, 7, 31, 3, 0, false, true, ""}, {3, 33, 32, 1, 0, false, false, ""},
		{1, 256, 65, 5, 0, true, false, ""}, {2, 257, 100, 2, 0, false, true, ""}, {1, 700, 512, 1, 0, false, false, ""}, {1, 3, 4099, 2, 0, true, false, ""},
		{1, 1, 1, 1, 8, false, false, ""}, {2, 3, 4, 2, 8, true, true, ""}, {1, 7, 31, 3, 0.5, false, true, ""}, {3, 33, 32, 1, 8, false, false, ""},
		{1, 256, 65, 5, 8, true, false, ""}, {2, 257, 100, 2, 8, false, true, ""}, {1, 700, 512, 1, 8, false, false, ""}, {1, 3, 4099, 2, 8, true, false, ""}, {1, 20, 12, 33, 8, false, true, ""},
	} {
		if testing.Short() && g.n != 257 && g.n != 20 {
			continue // CPU drivers compile up to five kernels for each
		}
		t.Run(fmt.Sprintf("%+v", g), func(t *testing.T) { g.test(t, g.data()) })
	}
}

// Gradients of cosines do not depend on the lengths of x and tokens, but for their scale.
func TestRouterLogitsBackwardLengths(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles kernels for 1 s on CPU drivers")
	}
	for _, g := range []logitsGradient{{2, 40, 6, 9, 8, true, false, ""}, {1, 40, 130, 3, 8, false, true, ""}} {
		d := g.data()
		for i := range d.xExponents {
			d.xExponents[i] = []int{0, 62, 80, 100, -20, -35, 0, 70}[i%8]
		}
		for i := range d.tokenExponents {
			d.tokenExponents[i] = []int{70, 0, 100, -35, 62}[i%5]
		}
		g.test(t, d)
	}
	// A row shorter than 1e-12 is divided by the constant 1e-12.
	g := logitsGradient{b: 1, n: 3, c: 2, r: 1, cosine: 8}
	d := g.data()
	copy(d.x, []float32{0, 0, 3e-13, -4e-13})
	clear(d.dx)
	copy(d.tokens, []float32{3, 4})
	dx, _ := g.run(t, d)
	for i, v := range dx[:4] {
		assert.InEpsilon(t, 8e12*[]float64{0.6, 0.8}[i%2]*float64(d.dlogits[i/2]), v, 1e-6)
	}
	copy(d.x, []float32{5, 0, 0, 2, 0, 0})
	copy(d.tokens, []float32{3e-13, -4e-13})
	_, dtokens := g.run(t, d)
	for i, v := range dtokens {
		assert.InEpsilon(t, 8e12*float64(d.dlogits[i]), v, 1e-6)
	}
}

// The bits of an item do not depend on the batch or on its position.
func TestRouterLogitsBackwardBits(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles kernels for 1 s on CPU drivers")
	}
	for _, cosine := range []float64{0, 8} {
		g := logitsGradient{b: 3, n: 270, c: 21, r: 2, cosine: cosine}
		d := g.data()
		for _, s := range [][]float32{d.x, d.dx, d.dlogits} {
			n := len(s) / 3
			copy(s[2*n:], s[n:2*n])
		}
		dx, dtokens := g.run(t, d)
		one, n, c := g, len(dx)/3, len(dtokens)/3
		one.b = 1
		oneDX, oneDTokens := one.run(t, logitsData{d.x[n : 2*n], d.tokens, d.dlogits[g.r*g.n:][:g.r*g.n], d.dx[n : 2*n], d.dtokens[:c], d.xExponents[:g.n], d.tokenExponents})
		for item := 1; item < 3; item++ {
			assert.Equal(t, oneDX, dx[item*n:][:n])
			assert.Equal(t, oneDTokens, dtokens[item*c:][:c])
		}
	}
}

func TestRouterLogitsBackwardBadInput(t *testing.T) {
	gpu := gputest.New(t)
	for want, c := range map[string]RouterLogitsBackwardConfig{
		"C is 0, want 1": {R: 1}, "R is 0, want 1": {C: 1}, "R is 65537, want 1 to 65536": {C: 1, R: 65537},
		"CosineScale is -1, want 0 or a positive float32": {C: 1, R: 1, CosineScale: -1}, "CosineScale is NaN": {C: 1, R: 1, CosineScale: math.NaN()},
	} {
		_, err := NewRouterLogitsBackward(gpu.Dev, c)
		assert.ErrorContains(t, err, want)
	}
	l, err := NewRouterLogitsBackward(gpu.Dev, RouterLogitsBackwardConfig{C: 4, R: 2, CosineScale: 8})
	require.NoError(t, err)
	x, tokens, dx, dtokens := gpu.In("x", normal(1, 24)), gpu.In("tokens", normal(2, 8)), gpu.Out("dx", 96), gpu.Out("dtokens", 64)
	good := RouterLogitsBackwardArgs{X: x, Tokens: tokens, DLogits: gpu.In("dlogits", normal(3, 12)), DX: dx, DTokens: dtokens, Scratch: gpu.Out("scratch", 144), B: 2, N: 3}
	assertRejected(t, gpu, good, l.Record, []badArgs[RouterLogitsBackwardArgs]{
		{"B is 0, want 1", func(a *RouterLogitsBackwardArgs) { a.B = 0 }},
		{"N is 0, want 1", func(a *RouterLogitsBackwardArgs) { a.N = 0 }},
		{"x has 96 bytes, want [B 2, N 2, C 4] f32, 64 bytes", func(a *RouterLogitsBackwardArgs) { a.N = 2 }},
		{"tokens has 32 bytes, want [B 2, R 2, C 4] f32, 64 bytes", func(a *RouterLogitsBackwardArgs) { a.TokensPerItem = true }},
		{"dlogits is missing, want [B 2, R 2, N 3] f32, 48 bytes", func(a *RouterLogitsBackwardArgs) { a.DLogits = vk.Range{} }},
		{"dx has 92 bytes", func(a *RouterLogitsBackwardArgs) { a.DX = dx.Slice(0, 92) }},
		{"dtokens has 32 bytes, want [B 2, R 2, C 4] f32, 64 bytes", func(a *RouterLogitsBackwardArgs) { a.DTokens = dtokens.Slice(0, 32) }},
		{"scratch is missing, want RouterLogitsBackwardScratch, 144 bytes", func(a *RouterLogitsBackwardArgs) { a.Scratch = vk.Range{} }},
	})
	require.NoError(t, l.Close())
	require.NoError(t, l.Close())

	l, err = NewRouterLogitsBackward(gpu.Dev, RouterLogitsBackwardConfig{C: 1, R: 30000})
	require.NoError(t, err)
	defer l.Close()
	assertRecordError(t, gpu, "B*R is 30000000 and N 70000, want at most 2147483647 blocks", func(list *vk.CommandList) error {
		return l.Record(list, RouterLogitsBackwardArgs{B: 1000, N: 70000})
	})
}
