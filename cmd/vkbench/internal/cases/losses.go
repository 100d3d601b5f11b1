package cases

import (
	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/scope"
	"github.com/colt5-vulkan/colt5/pipelines"
	"github.com/colt5-vulkan/colt5/vk"
)

// lossCases returns a case for every kernel of losses and of the gradients of a model's first and last layers, under the
// stem of the kernel's files.
func lossCases() []Case {
	return []Case{
		{"embed_backward", []string{"batch", "tokens", "vocabulary", "dim"}, [][]int{{16, 4096, 256, 512}, {1, 4096, 65536, 512}}, [][]int{{2, 1024, 256, 512}}, setupEmbedBackward},
	}
}

// setupEmbedBackward has tokens of all ids, evenly.
func setupEmbedBackward(b *Builder, size []int) (*Workload, error) {
	batch, n, v, c := size[0], size[1], size[2], size[3]
	e, err := pipelines.NewEmbedBackward(b.Dev, pipelines.EmbedBackwardConfig{C: c, V: v})
	e = scope.Keep(b.Scope, e, err)
	a := pipelines.EmbedBackwardArgs{IDs: b.indices(batch, v, n), Dy: b.normal(batch * n * c), DTable: b.alloc32(batch * v * c),
		Scratch: b.scratchMemory(pipelines.EmbedBackwardScratch(batch, n, v)), Items: batch, N: n}
	return b.kernel("embed_backward", func(list *vk.CommandList) error { return e.Record(list, a) }, b.floatOutput("dtable", a.DTable))
}
