package cases

import (
	"github.com/colt5-vulkan/colt5/internal/cli/scope"
	"github.com/colt5-vulkan/colt5/pipelines"
	"github.com/colt5-vulkan/colt5/vk"
)

func setupWindowAttentionBackward(b *Builder, size []int) (*Workload, error) {
	batch, n, h, d := size[0], size[1], size[2], size[3]
	config := pipelines.WindowAttentionConfig{Heads: h, DimHead: d, Window: size[4], Precision: b.Precision}
	w, err := pipelines.NewWindowAttentionBackward(b.Dev, config)
	w = scope.Keep(b.Scope, w, err)
	values := batch * n * h * d
	a := pipelines.WindowAttentionBackwardArgs{
		QKV: b.operand(3 * values), Y: b.operand(values), DY: b.operand(values), DQKV: b.output(3 * values),
		Scratch: b.scratchMemory(pipelines.WindowAttentionBackwardScratch(config, batch, n)), Items: batch, N: n,
	}
	return b.kernel("window_attention_backward", func(list *vk.CommandList) error { return w.Record(list, a) }, b.precisionOutput("dqkv", a.DQKV))
}

// setupRoutedAttentionBackward has keys and values by index, with scores.
func setupRoutedAttentionBackward(b *Builder, size []int) (*Workload, error) {
	batch, queries, keys, h, d := size[0], size[1], size[2], size[3], size[4]
	config := pipelines.RoutedAttentionConfig{Heads: h, DimHead: d, Routes: 1, KeySource: pipelines.KeySourceIndexed, ScoreValues: true, Precision: b.Precision}
	r, err := pipelines.NewRoutedAttentionBackward(b.Dev, config)
	r = scope.Keep(b.Scope, r, err)
	rows := 4 * keys
	a := pipelines.RoutedAttentionBackwardArgs{
		Q: b.operand(batch * queries * h * d), KV: b.operand(2 * batch * rows * h * d), Indices: b.indices(batch, rows, keys), KeyScores: b.normal(batch * keys),
		Null: b.normal(2 * h * d), Y: b.operand(batch * queries * h * d), DY: b.operand(batch * queries * h * d), DQ: b.output(batch * queries * h * d), DKV: b.output(2 * batch * rows * h * d),
		DNull: b.alloc32(2 * batch * h * d), DKeyScores: b.alloc32(batch * keys), Lists: batch, Queries: queries, KeysPerList: keys, KVRows: rows,
	}
	a.Scratch = b.scratchMemory(pipelines.RoutedAttentionBackwardScratch(config, a))
	return b.kernel("routed_attention_backward", func(list *vk.CommandList) error { return r.Record(list, a) },
		b.precisionOutput("dq", a.DQ), b.precisionOutput("dkv", a.DKV), b.floatOutput("dnull", a.DNull), b.floatOutput("dkey_scores", a.DKeyScores))
}

func setupPatchAttentionBackward(b *Builder, size []int) (*Workload, error) {
	height, width, h, d := size[0], size[1], size[2], size[3]
	config := pipelines.PatchAttentionConfig{Heads: h, DimHead: d, Patch: size[4], Precision: b.Precision}
	p, err := pipelines.NewPatchAttentionBackward(b.Dev, config)
	p = scope.Keep(b.Scope, p, err)
	values := height * width * h * d
	a := pipelines.PatchAttentionBackwardArgs{
		QKV: b.operand(3 * values), Y: b.operand(values), DY: b.operand(values), DQKV: b.output(3 * values),
		Scratch: b.scratchMemory(pipelines.PatchAttentionBackwardScratch(config, height, width)), Height: height, Width: width,
	}
	return b.kernel("patch_attention_backward", func(list *vk.CommandList) error { return p.Record(list, a) }, b.precisionOutput("dqkv", a.DQKV))
}
