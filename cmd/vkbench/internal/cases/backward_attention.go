package cases

import (
	"github.com/colt5-vulkan/colt5/internal/cli/scope"
	"github.com/colt5-vulkan/colt5/pipelines"
	"github.com/colt5-vulkan/colt5/vk"
)

func setupWindowAttentionBackward(b *Builder, size []int) (*Workload, error) {
	batch, n, h, d := size[0], size[1], size[2], size[3]
	config := pipelines.WindowAttentionConfig{Heads: h, DimHead: d, Window: size[4]}
	w, err := pipelines.NewWindowAttentionBackward(b.Dev, config)
	w = scope.Keep(b.Scope, w, err)
	values := batch * n * h * d
	a := pipelines.WindowAttentionBackwardArgs{
		QKV: b.normal(3 * values), DY: b.normal(values), DQKV: b.alloc32(3 * values),
		Scratch: b.scratchMemory(pipelines.WindowAttentionBackwardScratch(config, batch, n)), Items: batch, N: n,
	}
	return b.kernel("window_attention_backward", func(list *vk.CommandList) error { return w.Record(list, a) }, b.floatOutput("dqkv", a.DQKV))
}
