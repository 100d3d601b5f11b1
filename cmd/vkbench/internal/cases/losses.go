package cases

import (
	"github.com/colt5-vulkan/colt5/internal/cli/scope"
	"github.com/colt5-vulkan/colt5/pipelines"
	"github.com/colt5-vulkan/colt5/vk"
)

// lossCases returns a case for every kernel of losses and of the gradients of a model's first and last layers, under the
// stem of the kernel's files.
func lossCases() []Case {
	return []Case{
		{"cross_entropy", []string{"rows", "vocabulary"}, [][]int{{65536, 256}, {8192, 65536}}, [][]int{{4096, 256}}, setupCrossEntropy},
		{"mse", []string{"batch", "tokens", "dim"}, [][]int{{16, 4096, 512}}, [][]int{{2, 1024, 512}}, setupMSE},
		{"dropout", []string{"rows", "dim"}, [][]int{{65536, 512}}, [][]int{{4096, 512}}, setupDropout},
		{"embed_backward", []string{"batch", "tokens", "vocabulary", "dim"}, [][]int{{16, 4096, 256, 512}, {1, 4096, 65536, 512}}, [][]int{{2, 1024, 256, 512}}, setupEmbedBackward},
		{"mean_pool_backward", []string{"batch", "tokens", "dim"}, [][]int{{16, 4096, 512}}, [][]int{{2, 1024, 512}}, setupMeanPoolBackward},
		{"causal_select_backward", []string{"batch", "tokens", "window", "k"}, [][]int{{2, 8192, 128, 32}}, [][]int{{2, 8192, 128, 32}}, setupCausalSelectBackward},
	}
}

// setupEmbedBackward has tokens of all ids, evenly.
func setupEmbedBackward(b *Builder, size []int) (*Workload, error) {
	batch, n, v, c := size[0], size[1], size[2], size[3]
	e, err := pipelines.NewEmbedBackward(b.Dev, pipelines.EmbedBackwardConfig{C: c, V: v})
	e = scope.Keep(b.Scope, e, err)
	a := pipelines.EmbedBackwardArgs{IDs: b.indices(batch, v, n), DY: b.normal(batch * n * c), DTable: b.alloc32(batch * v * c),
		Scratch: b.scratchMemory(pipelines.EmbedBackwardScratch(batch, n, v)), Items: batch, N: n}
	return b.kernel("embed_backward", func(list *vk.CommandList) error { return e.Record(list, a) }, b.floatOutput("dtable", a.DTable))
}

func setupMeanPoolBackward(b *Builder, size []int) (*Workload, error) {
	batch, n, c := size[0], size[1], size[2]
	m, err := pipelines.NewMeanPoolBackward(b.Dev, pipelines.MeanPoolConfig{C: c})
	m = scope.Keep(b.Scope, m, err)
	a := pipelines.MeanPoolBackwardArgs{DY: b.normal(batch * c), DX: b.alloc32(batch * n * c), B: batch, N: n}
	dx := b.floatOutput("dx", a.DX)
	dx.constant = batch*c == 1
	return b.kernel("mean_pool_backward", func(list *vk.CommandList) error { return m.Record(list, a) }, dx)
}

// setupCausalSelectBackward has the first tokens of each window as its queries.
func setupCausalSelectBackward(b *Builder, size []int) (*Workload, error) {
	batch, n, window, k := size[0], size[1], size[2], size[3]
	s, err := pipelines.NewCausalSelectBackward(b.Dev, pipelines.CausalSelectConfig{})
	s = scope.Keep(b.Scope, s, err)
	windows := (n + window - 1) / window
	slots := batch * windows * k
	indices := b.upload(4*uint64(slots), func() []byte {
		list := make([]int32, slots)
		for i := range list {
			list[i] = int32(i/k%windows*window + i%k)
		}
		return vk.Bytes(list)
	})
	a := pipelines.CausalSelectBackwardArgs{Logits: b.normal(batch * n), Thresholds: b.normal(batch * windows), Indices: indices, QueryValid: b.normal(slots),
		DScores: b.normal(slots), DLogits: b.alloc32(batch * n), B: batch, N: n, Window: window, K: k}
	dlogits := b.floatOutput("dlogits", a.DLogits)
	dlogits.constant = window <= k // all 0
	return b.kernel("causal_select_backward", func(list *vk.CommandList) error { return s.Record(list, a) }, dlogits)
}

// setupCrossEntropy is one batch item, with the gradient.
func setupCrossEntropy(b *Builder, size []int) (*Workload, error) {
	rows, v := size[0], size[1]
	c, err := pipelines.NewCrossEntropy(b.Dev, pipelines.CrossEntropyConfig{V: v})
	c = scope.Keep(b.Scope, c, err)
	a := pipelines.CrossEntropyArgs{Logits: b.normal(rows * v), Labels: b.indices(1, v, rows), Losses: b.alloc32(rows), Sums: b.alloc32(2),
		DLogits: b.alloc32(rows * v), InvalidLabels: b.alloc32(1), Items: 1, N: rows}
	losses, dlogits := b.floatOutput("losses", a.Losses), b.floatOutput("dlogits", a.DLogits)
	losses.constant, dlogits.constant = v == 1 || rows == 1, v == 1 // losses of a single class are 0
	return b.kernel("cross_entropy", func(list *vk.CommandList) error { return c.Record(list, a) }, losses, dlogits)
}

func setupMSE(b *Builder, size []int) (*Workload, error) {
	batch, n := size[0], size[1]*size[2]
	m, err := pipelines.NewMSE(b.Dev, pipelines.MSEConfig{})
	m = scope.Keep(b.Scope, m, err)
	a := pipelines.MSEArgs{Y: b.normal(batch * n), Target: b.normal(batch * n), Losses: b.alloc32(batch), DY: b.alloc32(batch * n),
		Scratch: b.scratchMemory(pipelines.MSEScratch(batch, n)), Items: batch, N: n}
	losses := b.floatOutput("losses", a.Losses)
	losses.constant = batch == 1
	return b.kernel("mse", func(list *vk.CommandList) error { return m.Record(list, a) }, losses, b.floatOutput("dy", a.DY))
}

func setupDropout(b *Builder, size []int) (*Workload, error) {
	n := size[0] * size[1]
	d, err := pipelines.NewDropout(b.Dev, pipelines.DropoutConfig{})
	d = scope.Keep(b.Scope, d, err)
	state := b.upload(16, func() []byte { return vk.Bytes([]uint32{1, 2, 3, 0}) })
	a := pipelines.DropoutArgs{X: b.normal(n), Y: b.alloc32(n), State: state, Count: n, Rate: 0.1}
	y := b.floatOutput("y", a.Y)
	y.constant = n < 100 // all of a few elements may be dropped
	return b.kernel("dropout", func(list *vk.CommandList) error { return d.Record(list, a) }, y)
}
