package cases

import (
	"github.com/colt5-vulkan/colt5/internal/cli/scope"
	"github.com/colt5-vulkan/colt5/pipelines"
	"github.com/colt5-vulkan/colt5/vk"
)

// setupCopy copies with the gather kernel: the copy commands of some drivers reach only a fraction of the memory
// bandwidth.
func setupCopy(b *Builder, size []int) (*Workload, error) {
	const c = 1024
	rows := size[0] / (4 * c)
	g, err := pipelines.NewGather(b.Dev, pipelines.GatherConfig{C: c})
	g = scope.Keep(b.Scope, g, err)
	a := pipelines.GatherArgs{X: b.normal(rows * c), Indices: b.indices(1, rows, rows), Y: b.alloc32(rows * c), B: 1, N: rows, K: rows}
	return b.kernel("copy", func(list *vk.CommandList) error { return g.Record(list, a) }, b.floatOutput("y", a.Y))
}

func linearDims() []string { return []string{"rows", "in", "out"} }

func windowDims() []string { return []string{"batch", "routes", "tokens", "windows", "k"} }

// kernelCases returns a case for every kernel, under the stem of the kernel's files.
func kernelCases() []Case {
	rows, perBatch := []string{"rows", "entries", "k"}, []string{"batch", "tokens", "dim", "k"}
	long, short, sequence := [][]int{{2, 32768, 1024}, {1, 1048576, 1024}}, [][]int{{2, 32768, 1024}}, [][]int{{2, 32768, 512, 1024}}
	products := [][]int{{65536, 256, 512}, {65536, 512, 256}, {2048, 2048, 512}, {2048, 512, 2048}, {4096, 4096, 4096}}
	windows, smallWindows := [][]int{{2, 2, 8192, 64, 1024}}, [][]int{{1, 2, 2048, 16, 256}}
	return []Case{
		{"rmsnorm", []string{"rows", "dim"}, [][]int{{65536, 512}}, [][]int{{4096, 512}}, setupRMSNorm},
		{"layernorm", []string{"rows", "dim"}, [][]int{{65536, 512}}, [][]int{{4096, 512}}, setupLayerNorm},
		{"patch_embed", []string{"batch", "channels", "side", "patch"}, [][]int{{16, 3, 256, 32}}, [][]int{{4, 3, 256, 32}}, setupPatchEmbed},
		{"linear", linearDims(), products, [][]int{{2048, 256, 512}, {2048, 512, 256}}, setupLinear},
		{"router_logits", []string{"batch", "tokens", "dim", "routes"}, [][]int{{2, 32768, 512, 1}}, [][]int{{2, 4096, 512, 1}}, setupRouterLogits},
		{"coor_descent", rows, long, short, setupCoorDescent},
		{"coor_descent_windows", windowDims(), windows, smallWindows, setupCoorDescentWindows},
		{"select", rows, long, long, setupSelect},
		{"select_windows", windowDims(), windows, smallWindows, setupSelectWindows},
		{"gather", perBatch, sequence, [][]int{{2, 8192, 512, 1024}}, setupGather},
		{"cast", []string{"rows", "dim"}, [][]int{{2048, 2048}}, [][]int{{256, 512}}, setupCast},
		{"membership_mask", []string{"batch", "tokens", "k"}, [][]int{{2, 32768, 1024}}, [][]int{{2, 32768, 1024}}, setupMembershipMask},
		{"mean_pool", []string{"batch", "tokens", "dim"}, [][]int{{16, 4096, 512}}, [][]int{{2, 1024, 512}}, setupMeanPool},
		{"add", []string{"rows", "dim"}, [][]int{{65536, 512}}, [][]int{{4096, 512}}, setupAdd},
		{"copy_rows", []string{"rows", "dim"}, [][]int{{65536, 512}}, [][]int{{4096, 512}}, setupCopyRows},
		{"embed", []string{"rows", "vocabulary", "dim"}, [][]int{{65536, 256, 512}}, [][]int{{4096, 256, 512}}, setupEmbed},
		{"causal_select", []string{"batch", "tokens", "window", "k"}, [][]int{{2, 8192, 128, 32}}, [][]int{{2, 8192, 128, 32}}, setupCausalSelect},
		{"permute", []string{"channels", "pixels"}, [][]int{{32, 65536}}, [][]int{{32, 4096}}, setupPermute},
		{"routed_attention", []string{"batch", "queries", "keys", "heads", "dim head"}, [][]int{{2, 1024, 1024, 8, 64}}, [][]int{{1, 128, 128, 4, 64}}, setupRoutedAttention},
		{"window_attention", []string{"batch", "tokens", "heads", "dim head", "window"}, [][]int{{2, 32768, 8, 64, 64}}, [][]int{{1, 512, 4, 64, 64}}, setupWindowAttention},
		{"patch_attention", []string{"height", "width", "heads", "dim head", "patch"}, [][]int{{256, 256, 8, 64, 32}}, [][]int{{16, 16, 2, 64, 8}}, setupPatchAttention},
		{"scatter", perBatch, sequence, [][]int{{2, 8192, 512, 1024}}, setupScatter},
		{"rotary", []string{"rows", "heads", "dim head"}, [][]int{{65536, 8, 64}}, [][]int{{4096, 8, 64}}, setupRotary},
	}
}

func setupRMSNorm(b *Builder, size []int) (*Workload, error) {
	rows, c := size[0], size[1]
	n, err := pipelines.NewRMSNorm(b.Dev, pipelines.RMSNormConfig{C: c})
	n = scope.Keep(b.Scope, n, err)
	a := pipelines.RMSNormArgs{X: b.normal(rows * c), Gamma: b.normal(c), Y: b.alloc32(rows * c), Rows: rows}
	return b.kernel("rmsnorm", func(list *vk.CommandList) error { return n.Record(list, a) }, b.floatOutput("y", a.Y))
}

func setupLayerNorm(b *Builder, size []int) (*Workload, error) {
	rows, c := size[0], size[1]
	n, err := pipelines.NewLayerNorm(b.Dev, pipelines.LayerNormConfig{C: c})
	n = scope.Keep(b.Scope, n, err)
	a := pipelines.LayerNormArgs{X: b.normal(rows * c), Weight: b.normal(c), Bias: b.normal(c), Y: b.alloc32(rows * c), Rows: rows}
	y := b.floatOutput("y", a.Y)
	y.constant = c == 1 // only the bias is left
	return b.kernel("layernorm", func(list *vk.CommandList) error { return n.Record(list, a) }, y)
}

func setupPatchEmbed(b *Builder, size []int) (*Workload, error) {
	batch, c, side, patch := size[0], size[1], size[2], size[3]
	e, err := pipelines.NewPatchEmbed(b.Dev, pipelines.PatchEmbedConfig{
		Channels: c, Height: side, Width: side, PatchHeight: patch, PatchWidth: patch})
	e = scope.Keep(b.Scope, e, err)
	image, row := batch*c*side*side, patch*patch*c
	a := pipelines.PatchEmbedArgs{X: b.normal(image), Weight: b.normal(row), Bias: b.normal(row), Y: b.alloc32(image), B: batch}
	return b.kernel("patch_embed", func(list *vk.CommandList) error { return e.Record(list, a) }, b.floatOutput("y", a.Y))
}

// setupLinear is a product without fused operations. x and y have the precision of the product.
func setupLinear(b *Builder, size []int) (*Workload, error) {
	rows, in, out, p := size[0], size[1], size[2], b.Precision
	l, err := pipelines.NewLinear(b.Dev, pipelines.LinearConfig{In: in, Out: out, Precision: p, X16: p != pipelines.F32, Y16: p != pipelines.F32})
	l = scope.Keep(b.Scope, l, err)
	a := pipelines.LinearArgs{X: b.operand(rows * in), Y: b.output(rows * out), Batch: 1, Rows: rows}
	if p == pipelines.F32 {
		a.W = b.normal(in * out)
	} else {
		a.W = b.matrix16(out, in, p.Columns(in))
	}
	return b.kernel("linear", func(list *vk.CommandList) error { return l.Record(list, a) }, b.productOutput(a, in, out))
}

func setupRouterLogits(b *Builder, size []int) (*Workload, error) {
	batch, n, c, r := size[0], size[1], size[2], size[3]
	l, err := pipelines.NewRouterLogits(b.Dev, pipelines.RouterLogitsConfig{C: c, R: r})
	l = scope.Keep(b.Scope, l, err)
	a := pipelines.RouterLogitsArgs{X: b.normal(batch * n * c), Tokens: b.normal(r * c), Logits: b.alloc32(batch * r * n), B: batch, N: n}
	return b.kernel("router_logits", func(list *vk.CommandList) error { return l.Record(list, a) }, b.floatOutput("logits", a.Logits))
}

// setupCoorDescent runs the schedule of a router: 20 iterations, eps from 4 to 0.03.
func setupCoorDescent(b *Builder, size []int) (*Workload, error) {
	rows, n, k := size[0], size[1], size[2]
	d, err := pipelines.NewCoorDescent(b.Dev, pipelines.CoorDescentConfig{Iters: 20, Eps: 0.03, EpsInit: 4, EpsDecay: 0.7})
	if d = scope.Keep(b.Scope, d, err); d == nil {
		return nil, b.Err()
	}
	a := pipelines.CoorDescentArgs{Logits: b.normal(rows * n), Scores: b.alloc32(rows * n),
		Scratch: b.scratchMemory(pipelines.CoorDescentScratch(b.Dev.Caps(), rows, n, 0, 0)), Rows: rows, N: n, K: float64(k)}
	return b.kernel("coor_descent", func(list *vk.CommandList) error { return d.Record(list, a) }, b.floatOutput("scores", a.Scores))
}

func setupSelect(b *Builder, size []int) (*Workload, error) {
	rows, n, k := size[0], size[1], size[2]
	x, err := pipelines.NewSelect(b.Dev, pipelines.SelectConfig{})
	if x = scope.Keep(b.Scope, x, err); x == nil {
		return nil, b.Err()
	}
	a := pipelines.SelectArgs{Logits: b.normal(rows * n), Indices: b.alloc32(rows * k), Valid: b.alloc32(rows * k),
		Scratch: b.scratchMemory(pipelines.SelectScratch(b.Dev.Caps(), pipelines.SelectConfig{}, rows, n, k, 0, 0)), Rows: rows, N: n, K: k}
	return b.kernel("select", func(list *vk.CommandList) error { return x.Record(list, a) }, b.indexOutput("indices", a.Indices, k, n))
}

// setupSelectWindows selects keys and values for each window of a causal module from the tokens before the window.
func setupSelectWindows(b *Builder, size []int) (*Workload, error) {
	items, routes, n, windows, k := size[0], size[1], size[2], size[3], size[4]
	x, err := pipelines.NewSelect(b.Dev, pipelines.SelectConfig{})
	x = scope.Keep(b.Scope, x, err)
	rows, slots := items*routes, items*windows*routes*k
	a := pipelines.SelectArgs{Logits: b.normal(rows * n), Indices: b.alloc32(slots), Valid: b.alloc32(slots), Values: b.alloc32(slots),
		Scratch: b.scratchMemory(pipelines.SelectScratch(b.Dev.Caps(), pipelines.SelectConfig{}, rows, n, k, 0, windows)),
		Rows:    rows, N: n, K: k, Routes: routes, Windows: windows, WindowSize: (n + windows - 1) / windows}
	return b.kernel("select_windows", func(list *vk.CommandList) error { return x.Record(list, a) }, b.floatOutput("values", a.Values))
}

// setupCoorDescentWindows computes the soft scores of the entries selected for such windows.
func setupCoorDescentWindows(b *Builder, size []int) (*Workload, error) {
	items, routes, n, windows, k := size[0], size[1], size[2], size[3], size[4]
	d, err := pipelines.NewCoorDescent(b.Dev, pipelines.CoorDescentConfig{Iters: 20, Eps: 0.03, EpsInit: 4, EpsDecay: 0.7})
	d = scope.Keep(b.Scope, d, err)
	rows, slots := items*routes, items*windows*routes*k
	a := pipelines.CoorDescentArgs{Logits: b.normal(rows * n), Indices: b.indices(items*windows*routes, n, k), SelectedScores: b.alloc32(slots), Slots: k,
		Scratch: b.scratchMemory(pipelines.CoorDescentScratch(b.Dev.Caps(), rows, n, 0, windows)),
		Rows:    rows, N: n, Routes: routes, Windows: windows, WindowSize: (n + windows - 1) / windows, K: float64(k)}
	return b.kernel("coor_descent_windows", func(list *vk.CommandList) error { return d.Record(list, a) }, b.floatOutput("selected scores", a.SelectedScores))
}

func setupGather(b *Builder, size []int) (*Workload, error) {
	batch, n, c, k := size[0], size[1], size[2], size[3]
	g, err := pipelines.NewGather(b.Dev, pipelines.GatherConfig{C: c})
	g = scope.Keep(b.Scope, g, err)
	a := pipelines.GatherArgs{X: b.normal(batch * n * c), Indices: b.indices(batch, n, k), Score: b.normal(batch * k),
		Y: b.alloc32(batch * k * c), B: batch, N: n, K: k}
	return b.kernel("gather", func(list *vk.CommandList) error { return g.Record(list, a) }, b.floatOutput("y", a.Y))
}

// setupScatter adds rows to a copy of Base.
func setupScatter(b *Builder, size []int) (*Workload, error) {
	batch, n, c, k := size[0], size[1], size[2], size[3]
	x, err := pipelines.NewScatter(b.Dev, pipelines.ScatterConfig{C: c, Add: true})
	x = scope.Keep(b.Scope, x, err)
	a := pipelines.ScatterArgs{Value: b.normal(batch * k * c), Indices: b.indices(batch, n, k), Score: b.normal(batch * k),
		Base: b.normal(batch * n * c), Y: b.alloc32(batch * n * c), B: batch, N: n, K: k}
	return b.kernel("scatter", func(list *vk.CommandList) error { return x.Record(list, a) }, b.floatOutput("y", a.Y))
}

func setupCast(b *Builder, size []int) (*Workload, error) {
	rows, c := size[0], size[1]
	const p = pipelines.F16
	b.Precision = p
	m, err := pipelines.NewCast(b.Dev, pipelines.CastConfig{C: c, Precision: p})
	m = scope.Keep(b.Scope, m, err)
	a := pipelines.CastArgs{X: b.normal(rows * c), Y: b.alloc(uint64(rows * p.Columns(c) * p.Size())), Rows: rows}
	return b.kernel("cast", func(list *vk.CommandList) error { return m.Record(list, a) }, b.precisionOutput("y", a.Y))
}

func setupMembershipMask(b *Builder, size []int) (*Workload, error) {
	batch, n, k := size[0], size[1], size[2]
	m, err := pipelines.NewMembershipMask(b.Dev, pipelines.MembershipMaskConfig{})
	m = scope.Keep(b.Scope, m, err)
	a := pipelines.MembershipMaskArgs{Indices: b.indices(batch, n, k), Valid: b.normal(batch * k), Y: b.alloc32(batch * n), B: batch, N: n, K: k}
	y := b.floatOutput("y", a.Y)
	y.constant = true // all 1 if every token is selected
	return b.kernel("membership_mask", func(list *vk.CommandList) error { return m.Record(list, a) }, y)
}

func setupMeanPool(b *Builder, size []int) (*Workload, error) {
	batch, n, c := size[0], size[1], size[2]
	m, err := pipelines.NewMeanPool(b.Dev, pipelines.MeanPoolConfig{C: c})
	m = scope.Keep(b.Scope, m, err)
	a := pipelines.MeanPoolArgs{X: b.normal(batch * n * c), Y: b.alloc32(batch * c), B: batch, N: n}
	return b.kernel("mean_pool", func(list *vk.CommandList) error { return m.Record(list, a) }, b.floatOutput("y", a.Y))
}

func setupAdd(b *Builder, size []int) (*Workload, error) {
	n := size[0] * size[1]
	m, err := pipelines.NewAdd(b.Dev, pipelines.AddConfig{})
	m = scope.Keep(b.Scope, m, err)
	a := pipelines.AddArgs{A: b.normal(n), B: b.normal(n), Y: b.alloc32(n), N: n}
	return b.kernel("add", func(list *vk.CommandList) error { return m.Record(list, a) }, b.floatOutput("y", a.Y))
}

// setupCopyRows copies the first half of each row.
func setupCopyRows(b *Builder, size []int) (*Workload, error) {
	rows, c := size[0], size[1]
	m, err := pipelines.NewCopyRows(b.Dev, pipelines.CopyRowsConfig{})
	m = scope.Keep(b.Scope, m, err)
	width := max(c/2, 1)
	a := pipelines.CopyRowsArgs{X: b.normal(rows * c), Y: b.alloc32(rows * width), Rows: rows, Width: width, XPitch: c, YPitch: width}
	a.X = a.X.Slice(0, pipelines.CopyRowsBytes(rows, width, c))
	return b.kernel("copy_rows", func(list *vk.CommandList) error { return m.Record(list, a) }, b.floatOutput("y", a.Y))
}

func setupEmbed(b *Builder, size []int) (*Workload, error) {
	rows, v, c := size[0], size[1], size[2]
	e, err := pipelines.NewEmbed(b.Dev, pipelines.EmbedConfig{C: c, V: v})
	e = scope.Keep(b.Scope, e, err)
	a := pipelines.EmbedArgs{IDs: b.indices(1, v, rows), Table: b.normal(v * c), Y: b.alloc32(rows * c), InvalidIDs: b.alloc32(1), Rows: rows}
	return b.kernel("embed", func(list *vk.CommandList) error { return e.Record(list, a) }, b.floatOutput("y", a.Y))
}

// setupCausalSelect uses random values in place of the largest values of each window.
func setupCausalSelect(b *Builder, size []int) (*Workload, error) {
	batch, n, window, k := size[0], size[1], size[2], size[3]
	c, err := pipelines.NewCausalSelect(b.Dev, pipelines.CausalSelectConfig{})
	c = scope.Keep(b.Scope, c, err)
	slots := batch * ((n + window - 1) / window) * k
	a := pipelines.CausalSelectArgs{Logits: b.normal(batch * n), Values: b.normal(slots), Valid: b.normal(slots), Indices: b.alloc32(slots),
		QueryValid: b.alloc32(slots), Thresholds: b.alloc32(slots / k), B: batch, N: n, Window: window, K: k}
	return b.kernel("causal_select", func(list *vk.CommandList) error { return c.Record(list, a) }, b.floatOutput("thresholds", a.Thresholds))
}

// setupPermute moves the channels to the last dimension.
func setupPermute(b *Builder, size []int) (*Workload, error) {
	c, n := size[0], size[1]
	m, err := pipelines.NewPermute(b.Dev, pipelines.PermuteConfig{})
	m = scope.Keep(b.Scope, m, err)
	a := pipelines.PermuteArgs{X: b.normal(c * n), Y: b.alloc32(c * n), Shape: []int{n, c}, Strides: []int{1, n}}
	return b.kernel("permute", func(list *vk.CommandList) error { return m.Record(list, a) }, b.floatOutput("y", a.Y))
}

func setupRoutedAttention(b *Builder, size []int) (*Workload, error) {
	batch, queries, keys, h, d := size[0], size[1], size[2], size[3], size[4]
	r, err := pipelines.NewRoutedAttention(b.Dev, pipelines.RoutedAttentionConfig{Heads: h, DimHead: d, Routes: 1, Precision: b.Precision})
	r = scope.Keep(b.Scope, r, err)
	a := pipelines.RoutedAttentionArgs{Q: b.operand(batch * queries * h * d), KV: b.operand(2 * batch * keys * h * d), Null: b.normal(2 * h * d),
		Y: b.output(batch * queries * h * d), Lists: batch, Queries: queries, KeysPerList: keys}
	return b.kernel("routed_attention", func(list *vk.CommandList) error { return r.Record(list, a) }, b.precisionOutput("y", a.Y))
}

// setupRotary writes to another tensor than x, so that all runs have the same input.
func setupRotary(b *Builder, size []int) (*Workload, error) {
	rows, heads, d := size[0], size[1], size[2]
	r, err := pipelines.NewRotary(b.Dev, pipelines.RotaryConfig{Heads: heads, DimHead: d})
	r = scope.Keep(b.Scope, r, err)
	a := pipelines.RotaryArgs{X: b.normal(rows * heads * d), Y: b.alloc32(rows * heads * d),
		Table: b.upload(4*uint64(pipelines.RotaryTableLen(rows, d)), func() []byte { return vk.Bytes(pipelines.RotaryTable(rows, d)) }), Lists: 1, Rows: rows}
	return b.kernel("rotary", func(list *vk.CommandList) error { return r.Record(list, a) }, b.floatOutput("y", a.Y))
}

func setupWindowAttention(b *Builder, size []int) (*Workload, error) {
	batch, n, h, d, window := size[0], size[1], size[2], size[3], size[4]
	w, err := pipelines.NewWindowAttention(b.Dev, pipelines.WindowAttentionConfig{Heads: h, DimHead: d, Window: window, Precision: b.Precision})
	w = scope.Keep(b.Scope, w, err)
	a := pipelines.WindowAttentionArgs{QKV: b.operand(3 * batch * n * h * d), Y: b.output(batch * n * h * d), Items: batch, N: n}
	return b.kernel("window_attention", func(list *vk.CommandList) error { return w.Record(list, a) }, b.precisionOutput("y", a.Y))
}

func setupPatchAttention(b *Builder, size []int) (*Workload, error) {
	height, width, h, d, p := size[0], size[1], size[2], size[3], size[4]
	x, err := pipelines.NewPatchAttention(b.Dev, pipelines.PatchAttentionConfig{Heads: h, DimHead: d, Patch: p, Precision: b.Precision})
	x = scope.Keep(b.Scope, x, err)
	a := pipelines.PatchAttentionArgs{QKV: b.operand(height * width * 3 * h * d), Y: b.output(height * width * h * d), Height: height, Width: width}
	return b.kernel("patch_attention", func(list *vk.CommandList) error { return x.Record(list, a) }, b.precisionOutput("y", a.Y))
}
