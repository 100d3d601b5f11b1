package cases

import (
	"github.com/colt5-vulkan/colt5/internal/cli/scope"
	"github.com/colt5-vulkan/colt5/pipelines"
	"github.com/colt5-vulkan/colt5/vk"
)

// backwardCases returns a case for every backward kernel, under the stem of the kernel's files.
func backwardCases() []Case {
	return []Case{
		{"coor_descent_backward", []string{"rows", "entries", "k"}, [][]int{{2, 32768, 1024}, {1, 1048576, 1024}}, [][]int{{2, 32768, 1024}}, setupCoorDescentBackward},
		{"window_attention_backward", []string{"batch", "tokens", "heads", "dim head", "window"}, [][]int{{2, 32768, 8, 64, 64}}, [][]int{{1, 256, 2, 64, 64}}, setupWindowAttentionBackward},
		{"routed_attention_backward", []string{"batch", "queries", "keys", "heads", "dim head"}, [][]int{{2, 1024, 1024, 8, 64}}, [][]int{{1, 64, 96, 2, 64}}, setupRoutedAttentionBackward},
		{"patch_attention_backward", []string{"height", "width", "heads", "dim head", "patch"}, [][]int{{256, 256, 8, 64, 32}}, [][]int{{16, 16, 2, 64, 8}}, setupPatchAttentionBackward},
		{"gelu_backward", []string{"rows", "dim"}, [][]int{{65536, 512}}, [][]int{{4096, 512}}, setupGELUBackward},
		{"linear_backward", []string{"batch", "rows", "in", "out"}, [][]int{{8, 4096, 512, 2048}}, [][]int{{1, 1024, 256, 512}}, setupLinearBackward},
		{"rmsnorm_backward", []string{"batch", "rows", "dim"}, [][]int{{8, 8192, 512}}, [][]int{{2, 1024, 512}}, setupRMSNormBackward},
		{"layernorm_backward", []string{"batch", "rows", "dim"}, [][]int{{8, 8192, 512}}, [][]int{{2, 1024, 512}}, setupLayerNormBackward},
		{"gather_backward", []string{"batch", "tokens", "dim", "k"}, [][]int{{8, 32768, 512, 8192}}, [][]int{{2, 4096, 512, 1024}}, setupGatherBackward},
		{"router_logits_backward", []string{"batch", "tokens", "dim", "routes"}, [][]int{{8, 32768, 512, 1}}, [][]int{{2, 2048, 512, 1}}, setupRouterLogitsBackward},
		{"column_sum", []string{"rows", "dim"}, [][]int{{65536, 512}, {8, 2097152}}, [][]int{{4096, 512}}, setupColumnSum},
		{"tree_sum", []string{"batch", "dim"}, [][]int{{8, 16777216}}, [][]int{{8, 262144}}, setupTreeSum},
	}
}

// runOnce runs what a workload needs of the forward pass.
func (b *Builder) runOnce(record func(*vk.CommandList) error) {
	if b.Err() != nil {
		return
	}
	list, err := b.Dev.NewCommandList(vk.CommandListConfig{Name: "forward"})
	if list = scope.Keep(b.Scope, list, err); list == nil {
		return
	}
	if err := record(list); err != nil {
		b.Fail(err)
		return
	}
	b.Fail(list.Run(b.Context()))
}

// setupCoorDescentBackward has gradients of the scores of the selected entries, as a router has.
func setupCoorDescentBackward(b *Builder, size []int) (*Workload, error) {
	rows, n, k := size[0], size[1], size[2]
	config := pipelines.CoorDescentConfig{Iters: 20, Eps: 0.03, EpsInit: 4, EpsDecay: 0.7}
	forward, err := pipelines.NewCoorDescent(b.Dev, config)
	forward = scope.Keep(b.Scope, forward, err)
	d, err := pipelines.NewCoorDescentBackward(b.Dev, config)
	d = scope.Keep(b.Scope, d, err)
	a := pipelines.CoorDescentBackwardArgs{
		Logits: b.normal(rows * n), State: b.alloc32(4 * rows * config.Iters), DLogits: b.alloc32(rows * n),
		Indices: b.indices(rows, n, k), DSelected: b.normal(rows * k), Slots: k,
		Scratch: b.scratchMemory(pipelines.CoorDescentBackwardScratch(config.Iters, rows, n, 0, 0)), Rows: rows, N: n,
	}
	f := pipelines.CoorDescentArgs{Logits: a.Logits, Scores: a.DLogits, State: a.State, Rows: rows, N: n, K: float64(k)}
	if bytes := pipelines.CoorDescentScratch(b.Dev.Caps(), rows, n, 0, 0); bytes > 0 {
		f.Scratch = b.alloc(bytes)
	}
	b.runOnce(func(list *vk.CommandList) error { return forward.Record(list, f) })
	return b.kernel("coor_descent_backward", func(list *vk.CommandList) error { return d.Record(list, a) }, b.floatOutput("dlogits", a.DLogits))
}

// setupGELUBackward also computes the GELU.
func setupGELUBackward(b *Builder, size []int) (*Workload, error) {
	n := size[0] * size[1]
	g, err := pipelines.NewGELUBackward(b.Dev, pipelines.GELUBackwardConfig{})
	g = scope.Keep(b.Scope, g, err)
	a := pipelines.GELUBackwardArgs{X: b.normal(n), Dy: b.normal(n), Dx: b.alloc32(n), Y: b.alloc32(n), N: n}
	return b.kernel("gelu_backward", func(list *vk.CommandList) error { return g.Record(list, a) }, b.floatOutput("dx", a.Dx), b.floatOutput("y", a.Y))
}

func setupLinearBackward(b *Builder, size []int) (*Workload, error) {
	batch, rows, in, out, is16 := size[0], size[1], size[2], size[3], b.Precision != pipelines.F32
	c := pipelines.LinearBackwardConfig{In: in, Out: out, Precision: b.Precision, X16: is16, DY16: is16}
	l, err := pipelines.NewLinearBackward(b.Dev, c)
	l = scope.Keep(b.Scope, l, err)
	a := pipelines.LinearBackwardArgs{
		DY: b.operand(batch * rows * out), X: b.operand(batch * rows * in), DW: b.alloc32(batch * in * out),
		Scratch: b.scratchMemory(pipelines.LinearBackwardScratch(c, batch, rows)), Batch: batch, Rows: rows,
	}
	return b.kernel("linear_backward", func(list *vk.CommandList) error { return l.Record(list, a) }, b.floatOutput("dw", a.DW))
}

func setupRMSNormBackward(b *Builder, size []int) (*Workload, error) {
	items, rows, c := size[0], size[1], size[2]
	n, err := pipelines.NewRMSNormBackward(b.Dev, pipelines.RMSNormBackwardConfig{C: c, Add: true})
	n = scope.Keep(b.Scope, n, err)
	a := pipelines.RMSNormBackwardArgs{
		X: b.normal(items * rows * c), Gamma: b.normal(c), DY: b.normal(items * rows * c), DX: b.normal(items * rows * c), DGamma: b.alloc32(items * c),
		Scratch: b.scratchMemory(pipelines.RMSNormBackwardScratch(items, rows, c)), Items: items, Rows: rows,
	}
	return b.kernel("rmsnorm_backward", func(list *vk.CommandList) error { return n.Record(list, a) }, b.floatOutput("dgamma", a.DGamma))
}

func setupLayerNormBackward(b *Builder, size []int) (*Workload, error) {
	items, rows, c := size[0], size[1], size[2]
	n, err := pipelines.NewLayerNormBackward(b.Dev, pipelines.LayerNormBackwardConfig{C: c, Add: true})
	n = scope.Keep(b.Scope, n, err)
	a := pipelines.LayerNormBackwardArgs{
		X: b.normal(items * rows * c), Weight: b.normal(c), DY: b.normal(items * rows * c), DX: b.normal(items * rows * c),
		DWeight: b.alloc32(items * c), DBias: b.alloc32(items * c),
		Scratch: b.scratchMemory(pipelines.LayerNormBackwardScratch(items, rows, c)), Items: items, Rows: rows,
	}
	return b.kernel("layernorm_backward", func(list *vk.CommandList) error { return n.Record(list, a) },
		b.floatOutput("dweight", a.DWeight), b.floatOutput("dbias", a.DBias))
}

func setupGatherBackward(b *Builder, size []int) (*Workload, error) {
	items, n, c, k := size[0], size[1], size[2], size[3]
	g, err := pipelines.NewGatherBackward(b.Dev, pipelines.GatherBackwardConfig{C: c})
	g = scope.Keep(b.Scope, g, err)
	a := pipelines.GatherBackwardArgs{
		X: b.normal(items * n * c), Indices: b.indices(items, n, k), DY: b.normal(items * k * c), DScore: b.alloc32(items * k), B: items, N: n, K: k,
	}
	return b.kernel("gather_backward", func(list *vk.CommandList) error { return g.Record(list, a) }, b.floatOutput("dscore", a.DScore))
}

// setupRouterLogitsBackward has dot products, as routers have by default.
func setupRouterLogitsBackward(b *Builder, size []int) (*Workload, error) {
	items, n, c, r := size[0], size[1], size[2], size[3]
	config := pipelines.RouterLogitsBackwardConfig{C: c, R: r}
	l, err := pipelines.NewRouterLogitsBackward(b.Dev, config)
	l = scope.Keep(b.Scope, l, err)
	a := pipelines.RouterLogitsBackwardArgs{
		X: b.normal(items * n * c), Tokens: b.normal(r * c), DLogits: b.normal(items * r * n), DX: b.normal(items * n * c), DTokens: b.alloc32(items * r * c),
		Scratch: b.scratchMemory(pipelines.RouterLogitsBackwardScratch(config, items, n)), B: items, N: n,
	}
	return b.kernel("router_logits_backward", func(list *vk.CommandList) error { return l.Record(list, a) }, b.floatOutput("dtokens", a.DTokens))
}

func setupColumnSum(b *Builder, size []int) (*Workload, error) {
	rows, c := size[0], size[1]
	s, err := pipelines.NewColumnSum(b.Dev, pipelines.ColumnSumConfig{C: c})
	s = scope.Keep(b.Scope, s, err)
	a := pipelines.ColumnSumArgs{X: b.normal(rows * c), Y: b.alloc32(c), Scratch: b.scratchMemory(pipelines.ColumnSumScratch(1, rows, c)), Rows: rows}
	return b.kernel("column_sum", func(list *vk.CommandList) error { return s.Record(list, a) }, b.floatOutput("y", a.Y))
}

// setupTreeSum adds the gradients of a parameter over a batch.
func setupTreeSum(b *Builder, size []int) (*Workload, error) {
	items, c := size[0], size[1]
	s, err := pipelines.NewTreeSum(b.Dev, pipelines.TreeSumConfig{})
	s = scope.Keep(b.Scope, s, err)
	a := pipelines.TreeSumArgs{X: b.normal(items * c), Y: b.alloc32(c), Scratch: b.scratchMemory(pipelines.TreeSumScratch(items, c)), Items: items, C: c}
	return b.kernel("tree_sum", func(list *vk.CommandList) error { return s.Record(list, a) }, b.floatOutput("y", a.Y))
}
