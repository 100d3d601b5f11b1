package main

import (
	"github.com/colt5-vulkan/colt5/pipelines"
	"github.com/colt5-vulkan/colt5/vk"
)

func linearDims() []string { return []string{"rows", "in", "out"} }
func windowDims() []string { return []string{"items", "routes", "tokens", "windows", "k"} }

// roomCases has a case for every room, under the room's stem.
func roomCases() []benchCase {
	rows, chosen := []string{"rows", "entries", "k"}, []string{"batch", "tokens", "dim", "k"}
	long, short, sequence := [][]int{{2, 32768, 1024}, {1, 1048576, 1024}}, [][]int{{2, 32768, 1024}}, [][]int{{2, 32768, 512, 1024}}
	products := [][]int{{65536, 256, 512}, {65536, 512, 256}, {2048, 2048, 512}, {2048, 512, 2048}, {4096, 4096, 4096}}
	windows, smallWindows := [][]int{{2, 2, 8192, 64, 1024}}, [][]int{{1, 2, 2048, 16, 256}}
	return []benchCase{
		{"rmsnorm", []string{"rows", "dim"}, [][]int{{65536, 512}}, [][]int{{4096, 512}}, setupRMSNorm},
		{"layernorm", []string{"rows", "dim"}, [][]int{{65536, 512}}, [][]int{{4096, 512}}, setupLayerNorm},
		{"patch_embed", []string{"batch", "channels", "side", "patch"}, [][]int{{16, 3, 256, 32}}, [][]int{{4, 3, 256, 32}}, setupPatchEmbed},
		{"linear", linearDims(), products, [][]int{{2048, 256, 512}, {2048, 512, 256}}, setupLinear},
		{"router_logits", []string{"batch", "tokens", "dim", "routes"}, [][]int{{2, 32768, 512, 1}}, [][]int{{2, 4096, 512, 1}}, setupRouterLogits},
		{"coor_descent", rows, long, short, setupCoorDescent},
		{"coor_descent_windows", windowDims(), windows, smallWindows, setupCoorDescentWindows},
		{"select", rows, long, long, setupSelect},
		{"select_windows", windowDims(), windows, smallWindows, setupSelectWindows},
		{"gather", chosen, sequence, [][]int{{2, 8192, 512, 1024}}, setupGather},
		{"cast", []string{"rows", "dim"}, [][]int{{2048, 2048}}, [][]int{{256, 512}}, setupCast},
		{"membership_mask", []string{"batch", "tokens", "k"}, [][]int{{2, 32768, 1024}}, [][]int{{2, 32768, 1024}}, setupMark},
		{"mean_pool", []string{"batch", "tokens", "dim"}, [][]int{{16, 4096, 512}}, [][]int{{2, 1024, 512}}, setupMeanPool},
		{"embed", []string{"rows", "vocabulary", "dim"}, [][]int{{65536, 256, 512}}, [][]int{{4096, 256, 512}}, setupEmbed},
		{"causal_select", []string{"batch", "tokens", "window", "k"}, [][]int{{2, 8192, 128, 32}}, [][]int{{2, 8192, 128, 32}}, setupCausalSelect},
		{"permute", []string{"channels", "pixels"}, [][]int{{32, 65536}}, [][]int{{32, 4096}}, setupPermute},
		{"routed_attention", []string{"batch", "queries", "keys", "heads", "dim head"}, [][]int{{2, 1024, 1024, 8, 64}}, [][]int{{1, 128, 128, 4, 64}}, setupRoutedAttention},
		{"window_attention", []string{"batch", "tokens", "heads", "dim head", "window"}, [][]int{{2, 32768, 8, 64, 64}}, [][]int{{1, 512, 4, 64, 64}}, setupWindowAttention},
		{"patch_attention", []string{"height", "width", "heads", "dim head", "patch"}, [][]int{{256, 256, 8, 64, 32}}, [][]int{{16, 16, 2, 64, 8}}, setupPatchAttention},
		{"scatter", chosen, sequence, [][]int{{2, 8192, 512, 1024}}, setupScatter},
		{"rotary", []string{"rows", "heads", "dim head"}, [][]int{{65536, 8, 64}}, [][]int{{4096, 8, 64}}, setupRotary},
	}
}

func setupRMSNorm(s *benchStage, size []int) (*workload, error) {
	rows, c := size[0], size[1]
	n, err := pipelines.NewRMSNorm(s.dev, pipelines.RMSNormConfig{C: c})
	n = keep(s.stage, n, err)
	a := pipelines.RMSNormArgs{X: s.normals(rows * c), Gamma: s.normals(c), Y: s.floats(rows * c), Rows: rows}
	return s.room("rmsnorm", func(t *vk.CommandList) error { return n.Record(t, a) }, s.floatResult("y", a.Y))
}

func setupLayerNorm(s *benchStage, size []int) (*workload, error) {
	rows, c := size[0], size[1]
	n, err := pipelines.NewLayerNorm(s.dev, pipelines.LayerNormConfig{C: c})
	n = keep(s.stage, n, err)
	a := pipelines.LayerNormArgs{X: s.normals(rows * c), Weight: s.normals(c), Bias: s.normals(c), Y: s.floats(rows * c), Rows: rows}
	y := s.floatResult("y", a.Y)
	y.flat = c == 1 // the bias alone
	return s.room("layernorm", func(t *vk.CommandList) error { return n.Record(t, a) }, y)
}

func setupPatchEmbed(s *benchStage, size []int) (*workload, error) {
	b, c, side, patch := size[0], size[1], size[2], size[3]
	e, err := pipelines.NewPatchEmbed(s.dev, pipelines.PatchEmbedConfig{
		Channels: c, Height: side, Width: side, PatchHeight: patch, PatchWidth: patch})
	e = keep(s.stage, e, err)
	image, row := b*c*side*side, patch*patch*c
	a := pipelines.PatchEmbedArgs{X: s.normals(image), Weight: s.normals(row), Bias: s.normals(row), Y: s.floats(image), B: b}
	return s.room("patch_embed", func(t *vk.CommandList) error { return e.Record(t, a) }, s.floatResult("y", a.Y))
}

// setupLinear is the bare product, without anything fused. In 16 bits x and y have them too.
func setupLinear(s *benchStage, size []int) (*workload, error) {
	rows, in, out, p := size[0], size[1], size[2], s.precision
	l, err := pipelines.NewLinear(s.dev, pipelines.LinearConfig{In: in, Out: out, Precision: p, X16: p != pipelines.F32, Y16: p != pipelines.F32})
	l = keep(s.stage, l, err)
	a := pipelines.LinearArgs{X: s.operand(rows * in), Y: s.output(rows * out), Batch: 1, Rows: rows}
	if p == pipelines.F32 {
		a.W = s.normals(in * out)
	} else {
		a.W = s.matrix(out, in, p.Columns(in))
	}
	return s.room("linear", func(t *vk.CommandList) error { return l.Record(t, a) }, s.productResult(a, in, out))
}

func setupRouterLogits(s *benchStage, size []int) (*workload, error) {
	b, n, c, r := size[0], size[1], size[2], size[3]
	l, err := pipelines.NewRouterLogits(s.dev, pipelines.RouterLogitsConfig{C: c, R: r})
	l = keep(s.stage, l, err)
	a := pipelines.RouterLogitsArgs{X: s.normals(b * n * c), Tokens: s.normals(r * c), Logits: s.floats(b * r * n), B: b, N: n}
	return s.room("router_logits", func(t *vk.CommandList) error { return l.Record(t, a) }, s.floatResult("logits", a.Logits))
}

// setupCoorDescent is the descent of a router: 20 iterations, eps from 4 to 0.03.
func setupCoorDescent(s *benchStage, size []int) (*workload, error) {
	rows, n, k := size[0], size[1], size[2]
	d, err := pipelines.NewCoorDescent(s.dev, pipelines.CoorDescentConfig{Iters: 20, Eps: 0.03, EpsInit: 4, EpsDecay: 0.7})
	if d = keep(s.stage, d, err); d == nil {
		return nil, s.err
	}
	a := pipelines.CoorDescentArgs{Logits: s.normals(rows * n), Scores: s.floats(rows * n),
		Scratch: s.temporary(pipelines.CoorDescentScratch(s.dev.Caps(), rows, n, 0, 0)), Rows: rows, N: n, K: float64(k)}
	return s.room("coor_descent", func(t *vk.CommandList) error { return d.Record(t, a) }, s.floatResult("scores", a.Scores))
}

func setupSelect(s *benchStage, size []int) (*workload, error) {
	rows, n, k := size[0], size[1], size[2]
	x, err := pipelines.NewSelect(s.dev, pipelines.SelectConfig{})
	if x = keep(s.stage, x, err); x == nil {
		return nil, s.err
	}
	a := pipelines.SelectArgs{Logits: s.normals(rows * n), Indices: s.floats(rows * k), Valid: s.floats(rows * k),
		Scratch: s.temporary(pipelines.SelectScratch(s.dev.Caps(), pipelines.SelectConfig{}, rows, n, k, 0, 0)), Rows: rows, N: n, K: k}
	return s.room("select", func(t *vk.CommandList) error { return x.Record(t, a) }, s.indexResult("indices", a.Indices, k, n))
}

// setupSelectWindows is what a router of keys and values chooses for each window of a causal module: from the tokens before it.
func setupSelectWindows(s *benchStage, size []int) (*workload, error) {
	items, routes, n, windows, k := size[0], size[1], size[2], size[3], size[4]
	x, err := pipelines.NewSelect(s.dev, pipelines.SelectConfig{})
	x = keep(s.stage, x, err)
	rows, slots := items*routes, items*windows*routes*k
	a := pipelines.SelectArgs{Logits: s.normals(rows * n), Indices: s.floats(slots), Valid: s.floats(slots), Values: s.floats(slots),
		Scratch: s.temporary(pipelines.SelectScratch(s.dev.Caps(), pipelines.SelectConfig{}, rows, n, k, 0, windows)),
		Rows:    rows, N: n, K: k, Routes: routes, Windows: windows, Prefix: (n + windows - 1) / windows}
	return s.room("select_windows", func(t *vk.CommandList) error { return x.Record(t, a) }, s.floatResult("values", a.Values))
}

// setupCoorDescentWindows scores what such windows chose.
func setupCoorDescentWindows(s *benchStage, size []int) (*workload, error) {
	items, routes, n, windows, k := size[0], size[1], size[2], size[3], size[4]
	d, err := pipelines.NewCoorDescent(s.dev, pipelines.CoorDescentConfig{Iters: 20, Eps: 0.03, EpsInit: 4, EpsDecay: 0.7})
	d = keep(s.stage, d, err)
	rows, slots := items*routes, items*windows*routes*k
	a := pipelines.CoorDescentArgs{Logits: s.normals(rows * n), Indices: s.choice(items*windows*routes, n, k), SelectedScores: s.floats(slots), Slots: k,
		Scratch: s.temporary(pipelines.CoorDescentScratch(s.dev.Caps(), rows, n, 0, windows)),
		Rows:    rows, N: n, Routes: routes, Windows: windows, Prefix: (n + windows - 1) / windows, K: float64(k)}
	return s.room("coor_descent_windows", func(t *vk.CommandList) error { return d.Record(t, a) }, s.floatResult("chosen", a.SelectedScores))
}

func setupGather(s *benchStage, size []int) (*workload, error) {
	b, n, c, k := size[0], size[1], size[2], size[3]
	g, err := pipelines.NewGather(s.dev, pipelines.GatherConfig{C: c})
	g = keep(s.stage, g, err)
	a := pipelines.GatherArgs{X: s.normals(b * n * c), Indices: s.choice(b, n, k), Score: s.normals(b * k),
		Y: s.floats(b * k * c), B: b, N: n, K: k}
	return s.room("gather", func(t *vk.CommandList) error { return g.Record(t, a) }, s.floatResult("y", a.Y))
}

// setupScatter adds rows to a copy of base.
func setupScatter(s *benchStage, size []int) (*workload, error) {
	b, n, c, k := size[0], size[1], size[2], size[3]
	x, err := pipelines.NewScatter(s.dev, pipelines.ScatterConfig{C: c, Add: true})
	x = keep(s.stage, x, err)
	a := pipelines.ScatterArgs{Value: s.normals(b * k * c), Indices: s.choice(b, n, k), Score: s.normals(b * k),
		Base: s.normals(b * n * c), Y: s.floats(b * n * c), B: b, N: n, K: k}
	return s.room("scatter", func(t *vk.CommandList) error { return x.Record(t, a) }, s.floatResult("y", a.Y))
}

func setupCast(s *benchStage, size []int) (*workload, error) {
	rows, c := size[0], size[1]
	const p = pipelines.F16
	s.precision = p
	m, err := pipelines.NewCast(s.dev, pipelines.CastConfig{C: c, Precision: p})
	m = keep(s.stage, m, err)
	a := pipelines.CastArgs{X: s.normals(rows * c), Y: s.memory(uint64(rows * p.Columns(c) * p.Size())), Rows: rows}
	return s.room("cast", func(t *vk.CommandList) error { return m.Record(t, a) }, s.precisionResult("y", a.Y))
}

func setupMark(s *benchStage, size []int) (*workload, error) {
	b, n, k := size[0], size[1], size[2]
	m, err := pipelines.NewMembershipMask(s.dev, pipelines.MembershipMaskConfig{})
	m = keep(s.stage, m, err)
	a := pipelines.MembershipMaskArgs{Indices: s.choice(b, n, k), Valid: s.normals(b * k), Y: s.floats(b * n), B: b, N: n, K: k}
	y := s.floatResult("y", a.Y)
	y.flat = true // where all are chosen, all are 1
	return s.room("membership_mask", func(t *vk.CommandList) error { return m.Record(t, a) }, y)
}

func setupMeanPool(s *benchStage, size []int) (*workload, error) {
	b, n, c := size[0], size[1], size[2]
	m, err := pipelines.NewMeanPool(s.dev, pipelines.MeanPoolConfig{C: c})
	m = keep(s.stage, m, err)
	a := pipelines.MeanPoolArgs{X: s.normals(b * n * c), Y: s.floats(b * c), B: b, N: n}
	return s.room("mean_pool", func(t *vk.CommandList) error { return m.Record(t, a) }, s.floatResult("y", a.Y))
}

func setupEmbed(s *benchStage, size []int) (*workload, error) {
	rows, v, c := size[0], size[1], size[2]
	e, err := pipelines.NewEmbed(s.dev, pipelines.EmbedConfig{C: c, V: v})
	e = keep(s.stage, e, err)
	a := pipelines.EmbedArgs{IDs: s.choice(1, v, rows), Table: s.normals(v * c), Y: s.floats(rows * c), InvalidIDs: s.floats(1), Rows: rows}
	return s.room("embed", func(t *vk.CommandList) error { return e.Record(t, a) }, s.floatResult("y", a.Y))
}

// setupCausalSelect chooses by values that stand for what the windows' largest are.
func setupCausalSelect(s *benchStage, size []int) (*workload, error) {
	b, n, window, k := size[0], size[1], size[2], size[3]
	c, err := pipelines.NewCausalSelect(s.dev, pipelines.CausalSelectConfig{})
	c = keep(s.stage, c, err)
	slots := b * ((n + window - 1) / window) * k
	a := pipelines.CausalSelectArgs{Logits: s.normals(b * n), Values: s.normals(slots), Valid: s.normals(slots), Indices: s.floats(slots),
		QueryValid: s.floats(slots), Thresholds: s.floats(slots / k), B: b, N: n, Window: window, K: k}
	return s.room("causal_select", func(t *vk.CommandList) error { return c.Record(t, a) }, s.floatResult("thresholds", a.Thresholds))
}

// setupPermute brings the channels of pixels together.
func setupPermute(s *benchStage, size []int) (*workload, error) {
	c, n := size[0], size[1]
	m, err := pipelines.NewPermute(s.dev, pipelines.PermuteConfig{})
	m = keep(s.stage, m, err)
	a := pipelines.PermuteArgs{X: s.normals(c * n), Y: s.floats(c * n), Shape: []int{n, c}, Strides: []int{1, n}}
	return s.room("permute", func(t *vk.CommandList) error { return m.Record(t, a) }, s.floatResult("y", a.Y))
}

func setupRoutedAttention(s *benchStage, size []int) (*workload, error) {
	b, queries, keys, h, d := size[0], size[1], size[2], size[3], size[4]
	r, err := pipelines.NewRoutedAttention(s.dev, pipelines.RoutedAttentionConfig{Heads: h, DimHead: d, Routes: 1, Precision: s.precision})
	r = keep(s.stage, r, err)
	a := pipelines.RoutedAttentionArgs{Q: s.operand(b * queries * h * d), KV: s.operand(2 * b * keys * h * d), Null: s.normals(2 * h * d),
		Y: s.output(b * queries * h * d), Lists: b, Queries: queries, Keys: keys}
	return s.room("routed_attention", func(t *vk.CommandList) error { return r.Record(t, a) }, s.precisionResult("y", a.Y))
}

// setupRotary leaves x as it is, so that every run finds the same.
func setupRotary(s *benchStage, size []int) (*workload, error) {
	rows, heads, d := size[0], size[1], size[2]
	r, err := pipelines.NewRotary(s.dev, pipelines.RotaryConfig{Heads: heads, DimHead: d})
	r = keep(s.stage, r, err)
	a := pipelines.RotaryArgs{X: s.normals(rows * heads * d), Y: s.floats(rows * heads * d),
		Table: s.upload(4*uint64(pipelines.RotaryTableLen(rows, d)), func() []byte { return vk.Bytes(pipelines.RotaryTable(rows, d)) }), Lists: 1, Rows: rows}
	return s.room("rotary", func(t *vk.CommandList) error { return r.Record(t, a) }, s.floatResult("y", a.Y))
}

func setupWindowAttention(s *benchStage, size []int) (*workload, error) {
	b, n, h, d, window := size[0], size[1], size[2], size[3], size[4]
	w, err := pipelines.NewWindowAttention(s.dev, pipelines.WindowAttentionConfig{Heads: h, DimHead: d, Window: window, Precision: s.precision})
	w = keep(s.stage, w, err)
	a := pipelines.WindowAttentionArgs{QKV: s.operand(3 * b * n * h * d), Y: s.output(b * n * h * d), Items: b, N: n}
	return s.room("window_attention", func(t *vk.CommandList) error { return w.Record(t, a) }, s.precisionResult("y", a.Y))
}

func setupPatchAttention(s *benchStage, size []int) (*workload, error) {
	height, width, h, d, p := size[0], size[1], size[2], size[3], size[4]
	x, err := pipelines.NewPatchAttention(s.dev, pipelines.PatchAttentionConfig{Heads: h, DimHead: d, Patch: p, Precision: s.precision})
	x = keep(s.stage, x, err)
	a := pipelines.PatchAttentionArgs{QKV: s.operand(height * width * 3 * h * d), Y: s.output(height * width * h * d), Height: height, Width: width}
	return s.room("patch_attention", func(t *vk.CommandList) error { return x.Record(t, a) }, s.precisionResult("y", a.Y))
}
