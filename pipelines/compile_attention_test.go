package pipelines

import (
	"github.com/colt5-vulkan/colt5/vk"
)

func compileAttentions(c *compiler) {
	for _, p := range supported(c.caps) {
		for _, d := range c.sizes(128, 1, 30, 32, 33, 64, 80, 96, 127) { // 1 to 4 slices, multiples of 4 and not
			if p == F32 || d%2 == 0 {
				compileAttention(c, p, d)
			}
		}
	}
}

func compileAttention(c *compiler, p DType, d int) {
	windows := flags(c, WindowAttentionConfig{Heads: 8, DimHead: d, Window: 128, Precision: p})
	for i := range windows {
		windows[i].Causal = windows[i].Causal || windows[i].Exact
	}
	compile(c, NewWindowAttention, func(w *WindowAttention) ([]*vk.Kernel, error) { return w.kernels.compile() }, distinct(windows...)...)
	compile(c, NewWindowAttentionBackward, func(w *WindowAttentionBackward) ([]*vk.Kernel, error) { return w.kernels.compile() }, distinct(windows...)...)
	compile(c, NewPatchAttention, func(a *PatchAttention) ([]*vk.Kernel, error) { return a.kernels.compile() },
		PatchAttentionConfig{Heads: 8, DimHead: d, Patch: 16, Precision: p})
	compile(c, NewPatchAttentionBackward, func(a *PatchAttentionBackward) ([]*vk.Kernel, error) { return a.kernels.compile() },
		PatchAttentionConfig{Heads: 8, DimHead: d, Patch: 16, Precision: p})
	for _, keys := range []KeySource{KeySourceOwn, KeySourceIndexed, KeySourcePrefix} {
		configs := flags(c, RoutedAttentionConfig{Heads: 8, DimHead: d, Routes: 1, KeySource: keys, Precision: p})
		if d != 64 && d != 128 { // no bool set, and all
			configs = configs[:2]
		}
		for i := range configs {
			if keys == KeySourcePrefix {
				configs[i].ScoreKeys, configs[i].ScoreValues = false, false
			}
		}
		compile(c, NewRoutedAttention, func(r *RoutedAttention) ([]*vk.Kernel, error) { return r.kernels.compile() }, distinct(configs...)...)
		compile(c, NewRoutedAttentionBackward, func(r *RoutedAttentionBackward) ([]*vk.Kernel, error) { return r.compile() }, distinct(configs...)...)
	}
}

// compile returns the kernels for few queries and for many.
func (k *attentionKernels) compile() ([]*vk.Kernel, error) {
	return each(func(queries int) (*vk.Kernel, error) {
		t, err := k.tile("", attentionWork{queries: queries, keys: 1024})
		if err != nil {
			return nil, err
		}
		return k.kernel(t)
	}, 32, 1024)
}

func (r *RoutedAttentionBackward) compile() ([]*vk.Kernel, error) {
	list, err := r.kernels.compile()
	if err != nil {
		return nil, err
	}
	if r.merged != nil {
		merged, err := r.merged.compileMerged()
		if err != nil {
			return nil, err
		}
		list = append(list, merged...)
	}
	small, err := each(r.smallKernel, "table", "merge", "sum", "scores")
	return append(list, small...), err
}

// compileMerged returns the kernels for sets of lists of 8, 32 and 64 queries.
func (k *attentionBackwardKernels) compileMerged() ([]*vk.Kernel, error) {
	return each(func(queries int) (*vk.Kernel, error) {
		stage, rows, others := "queries", mergedLists*queries, 4096
		if queries < 0 {
			stage, rows, others = "keys", 1024, -queries
		}
		t, err := k.tile(stage, rows, others)
		if err != nil {
			return nil, err
		}
		return k.kernel(k.variant(stage, t))
	}, 8, 32, -32, -64)
}

// compile returns the kernels of both stages for few rows and for many.
func (k *attentionBackwardKernels) compile() ([]*vk.Kernel, error) {
	return each(func(rows int) (*vk.Kernel, error) {
		stage := "queries"
		if rows < 0 {
			stage, rows = "keys", -rows
		}
		t, err := k.tile(stage, rows, max(rows, 64))
		if err != nil {
			return nil, err
		}
		return k.kernel(k.variant(stage, t))
	}, 32, 128, 1024, -32, -1024)
}
