package pipelines

import (
	"fmt"
	"maps"
	"reflect"
	"slices"

	"github.com/colt5-vulkan/colt5/internal/peak"
	"github.com/colt5-vulkan/colt5/vk"
)

// compileKernels adds the configs of each kernel that TestCompiles compiles: all SPIR-V variants, each value of the
// specialisation constants that selects code, and the sizes that need the most registers.
var compileKernels = []func(*compiler){
	compileNorms, compileLinear, compileLinearBackward, compileRouterLogits, compileRouterLogitsBackward, compileCoorDescent, compileSelect,
	compileSlots, compileAttentions, compileRotary, compileEmbedPool, compileLosses, compileOptimizer, compilePeak,
}

// selectedByDevice are the SPIR-V variants that some devices never select although they support them.
var selectedByDevice = []string{
	"linear", "linear_preactivation", "patch_attention", "routed_attention", "window_attention",
	"patch_attention_lowreg", "routed_attention_lowreg", "window_attention_lowreg",
	"peak_f16_f32", "peak_bf16_f32", "peak_lowreg_f16_f32", "peak_lowreg_bf16_f32",
	"linear_backward_matrix_f16", "linear_backward_matrix_bf16", "linear_backward_matrix_lowreg_f16", "linear_backward_matrix_lowreg_bf16",
	"linear_matrix_f16", "linear_matrix_bf16", "linear_matrix_lowreg_f16", "linear_matrix_lowreg_bf16",
	"linear_matrix_f16_preactivation", "linear_matrix_bf16_preactivation", "linear_matrix_lowreg_f16_preactivation", "linear_matrix_lowreg_bf16_preactivation",
	"patch_attention_f16", "patch_attention_bf16", "patch_attention_lowreg_f16", "patch_attention_lowreg_bf16",
	"routed_attention_f16", "routed_attention_bf16", "routed_attention_lowreg_f16", "routed_attention_lowreg_bf16",
	"window_attention_f16", "window_attention_bf16", "window_attention_lowreg_f16", "window_attention_lowreg_bf16",
	"patch_attention_backward_keys_f16", "patch_attention_backward_keys_bf16", "patch_attention_backward_queries_f16", "patch_attention_backward_queries_bf16",
	"patch_attention_backward_keys_lowreg_f16", "patch_attention_backward_keys_lowreg_bf16", "patch_attention_backward_queries_lowreg_f16", "patch_attention_backward_queries_lowreg_bf16",
	"routed_attention_backward_keys_f16", "routed_attention_backward_keys_bf16", "routed_attention_backward_queries_f16", "routed_attention_backward_queries_bf16",
	"routed_attention_backward_merged_keys_f16", "routed_attention_backward_merged_keys_bf16", "routed_attention_backward_merged_queries_f16", "routed_attention_backward_merged_queries_bf16",
	"routed_attention_backward_keys_lowreg_f16", "routed_attention_backward_keys_lowreg_bf16", "routed_attention_backward_queries_lowreg_f16", "routed_attention_backward_queries_lowreg_bf16",
	"window_attention_backward_keys_f16", "window_attention_backward_keys_bf16", "window_attention_backward_queries_f16", "window_attention_backward_queries_bf16",
	"window_attention_backward_keys_lowreg_f16", "window_attention_backward_keys_lowreg_bf16", "window_attention_backward_queries_lowreg_f16", "window_attention_backward_queries_lowreg_bf16",
}

// supported returns the precisions of matrix products on the device.
func supported(caps vk.Caps) []DType {
	return slices.DeleteFunc([]DType{F32, F16, BF16}, func(p DType) bool { return p.Supported(caps) != nil })
}

func compileNorms(c *compiler) {
	for _, n := range []int{1, 7, 64, 100, 512, 514, 4096} { // 4 to 64 invocations per row
		for _, y := range []DType{F32, F16, BF16} {
			if y.checkNormed("", n) != nil {
				continue
			}
			compile(c, NewRMSNorm, func(r *RMSNorm) ([]*vk.Kernel, error) { return one(r.kernel()) },
				RMSNormConfig{C: n, Y: y}, RMSNormConfig{C: n, Y: y, Gather: true})
			compile(c, NewLayerNorm, func(r *LayerNorm) ([]*vk.Kernel, error) { return one(r.kernel, nil) },
				LayerNormConfig{C: n, Y: y}, LayerNormConfig{C: n, Y: y, Add: true})
		}
		compile(c, NewLayerNormBackward, func(r *LayerNormBackward) ([]*vk.Kernel, error) {
			if FusedNormBackward(r.config.C) {
				return one(r.fusedKernel())
			}
			rows, err := one(r.rowKernel())
			if err != nil {
				return nil, err
			}
			sums, err := each(r.sumKernel, false, true)
			return append(rows, sums...), err
		}, LayerNormBackwardConfig{C: n}, LayerNormBackwardConfig{C: n, Add: true})
		compile(c, NewRMSNormBackward, func(r *RMSNormBackward) ([]*vk.Kernel, error) {
			if FusedNormBackward(r.config.C) {
				return one(r.fusedKernel())
			}
			rows, err := one(r.rowKernel())
			if err != nil {
				return nil, err
			}
			sums, err := each(r.sumKernel, false, true)
			return append(rows, sums...), err
		}, RMSNormBackwardConfig{C: n}, RMSNormBackwardConfig{C: n, Add: true}, RMSNormBackwardConfig{C: n, Gather: true})
		if FusedNormBackward(n) {
			for _, dy := range []DType{F16, BF16} {
				compile(c, NewLayerNormBackward, func(r *LayerNormBackward) ([]*vk.Kernel, error) { return one(r.fusedKernel()) },
					LayerNormBackwardConfig{C: n, DY: dy}, LayerNormBackwardConfig{C: n, Add: true, DY: dy})
				compile(c, NewRMSNormBackward, func(r *RMSNormBackward) ([]*vk.Kernel, error) { return one(r.fusedKernel()) },
					RMSNormBackwardConfig{C: n, DY: dy}, RMSNormBackwardConfig{C: n, Gather: true, DY: dy})
			}
		}
	}
}

func compileLinear(c *compiler) {
	for _, p := range supported(c.caps) {
		for _, in := range c.sizes(512, 500, 510) { // a multiple of the tile, a multiple of 4 only, neither
			configs := flags(c, LinearConfig{In: in, Out: 512, Precision: p})
			for i := range configs {
				l := &configs[i]
				l.Bias, l.GELU = l.Bias || l.SkipBias, l.GELU || l.Preactivation
				l.X16, l.Y16, l.TransposedW = l.X16 && p != F32 && !l.Norm, l.Y16 && p != F32, l.TransposedW && p != F32
			}
			if p != F32 {
				configs = append(configs, LinearConfig{In: in, Out: 512, Precision: p, X16: true, Split: 4},
					LinearConfig{In: in, Out: 512, Precision: p, Split: 4, Y16: true, GELU: true, Score: true})
			} else { // RADV of Mesa 26.1.6 crashed on a product with one column
				for _, t := range linearTiles[:2] {
					if !t.fitsFloat(limitsOfCaps(c.caps)) {
						continue
					}
					configs = append(configs, LinearConfig{In: in, Out: 1, Tile: t.name()}, LinearConfig{In: in, Out: 1, Tile: t.name(), Norm: true})
				}
			}
			compile(c, NewLinear, linearKernels, distinct(configs...)...)
		}
	}
	// The kernel that adds the parts of a split product needs no cooperative matrices.
	compile(c, func(dev *vk.Device, c LinearConfig) (*Linear, error) {
		return &Linear{config: c, kernels: kernelCache{dev: dev}}, nil
	},
		func(l *Linear) ([]*vk.Kernel, error) { return one(l.sumKernel(linearSize{})) },
		LinearConfig{In: 512, Out: 512, Precision: F16, Split: 4}, LinearConfig{In: 512, Out: 510, Precision: BF16, Split: 4, Y16: true, GELU: true, Bias: true},
		LinearConfig{In: 512, Out: 512, Precision: F16, Split: 4, Y16: true, GELU: true, Preactivation: true})
	for _, p := range []DType{F16, BF16} {
		compile(c, NewCast, func(r *Cast) ([]*vk.Kernel, error) { return one(r.kernel()) }, CastConfig{C: 512, Precision: p}, CastConfig{C: 511, Precision: p})
	}
}

func compileLinearBackward(c *compiler) {
	for _, in := range c.sizes(512, 510, 1) {
		for _, p := range supported(c.caps) {
			configs := []LinearBackwardConfig{{In: in, Out: 512, Precision: p}, {In: in, Out: 510, Precision: p}, {In: in, Out: 1, Precision: p}}
			if p != F32 && in%8 == 0 {
				configs = append(configs, LinearBackwardConfig{In: in, Out: 512, Precision: p, X16: true, DY16: true},
					LinearBackwardConfig{In: in, Out: 510, Precision: p, X16: true}, LinearBackwardConfig{In: in, Out: 512, Precision: p, DY16: true})
			}
			compile(c, NewLinearBackward, linearBackwardKernels, configs...)
		}
	}
}

// linearBackwardKernels returns the kernels that are selected for few rows and for many, whole loop iterations and not.
func linearBackwardKernels(l *LinearBackward) (list []*vk.Kernel, err error) {
	l.gpuKernel = true
	for _, rows := range []int{1, 64, 1000, 16384, 16384 + 1} {
		for _, batch := range []int{1, 64} {
			for _, add := range []bool{false, true} {
				v, err := l.variant(LinearBackwardArgs{Batch: batch, Rows: rows}, add)
				if err != nil {
					return nil, err
				}
				k, err := l.kernels.kernel(v.kernelVariant)
				if err != nil {
					return nil, err
				}
				list = append(list, k)
			}
		}
	}
	return distinct(list...), nil
}

// linearKernels returns the kernels that are selected for products of few rows to many.
func linearKernels(l *Linear) ([]*vk.Kernel, error) {
	type tileSize struct {
		tile int
		size linearSize
	}
	var list []tileSize
	for slots := uint64(1); slots <= 1<<20; slots *= 4 {
		for _, dense := range []bool{false, true} {
			size := linearSize{slots, dense && !l.config.Gather, dense && !l.config.Scatter, l.config.TransposedW}
			tile := l.selectTile(size)
			for _, size.rows = range []uint64{0, 1} { // a multiple of the tile, and not
				list = append(list, tileSize{tile, size})
			}
		}
	}
	return each(func(t tileSize) (*vk.Kernel, error) {
		tile, err := l.withoutSpills(l.tiles()[t.tile], t.size)
		if err != nil {
			return nil, err
		}
		return l.kernel(tile, t.size)
	}, distinct(list...)...)
}

func compileCoorDescent(c *compiler) {
	plans := map[[2]coorDescentPlan]int{}
	for length := 1; length <= 1<<16; length++ {
		var key [2]coorDescentPlan
		n := copy(key[:], coorDescentPlans(limitsOfCaps(c.caps), length))
		for i := range key {
			key[i].parts, key[i].span = 0, 0 // the kernel is the same
		}
		plans[key] = n
	}
	for key, n := range plans {
		compile(c, NewCoorDescent, func(r *CoorDescent) (list []*vk.Kernel, err error) {
			for _, o := range []coorDescentOptions{{}, {state: true}, {windows: true}, {state: true, windows: true}, {rowK: true}} {
				_, k, err := r.kernel(key[:n], o)
				if err != nil {
					return nil, err
				}
				list = append(list, k)
			}
			return list, nil
		}, CoorDescentConfig{Iters: 20, Eps: 0.1})
	}
	compile(c, NewCoorDescentBackward, func(r *CoorDescentBackward) (list []*vk.Kernel, err error) {
		for _, length := range []int{1, 512, 1024} { // all sizes of workgroups
			for _, windows := range []bool{false, true} {
				sum, scan, sweep, err := r.stages(limitsOfCaps(c.caps), length, windows)
				if err != nil {
					return nil, err
				}
				list = append(list, sum, scan, sweep)
			}
		}
		return list, nil
	}, CoorDescentConfig{Iters: 20, Eps: 0.1})
}

func compileSelect(c *compiler) {
	limits := newSelectLimits(c.caps)
	for _, sorted := range []bool{false, true} {
		compile(c, NewSelect, func(s *Select) ([]*vk.Kernel, error) {
			for n := 1; n < 1<<26; n = n*3/2 + 1 {
				for k := 1; k <= n; k *= 4 {
					p := newSelectPlan(limits, sorted, selectSizes{rows: 1, n: n, k: k})
					for _, name := range p.kernels() {
						for i := range 4 {
							if _, err := s.kernel(name, p, i&1 != 0, i&2 != 0); err != nil {
								return nil, err
							}
						}
					}
				}
			}
			return slices.Collect(maps.Values(s.kernels.compiled)), nil
		}, SelectConfig{Sorted: sorted})
	}
	compile(c, NewCausalSelect, func(s *CausalSelect) ([]*vk.Kernel, error) { return one(s.kernel, nil) }, CausalSelectConfig{})
	compile(c, NewCausalSelectBackward, func(s *CausalSelectBackward) ([]*vk.Kernel, error) { return one(s.kernel, nil) }, CausalSelectConfig{})
}

// kernels are the kernels of a plan.
func (p selectPlan) kernels() []string {
	list := []string{"select_digit", "select_compact"}
	switch {
	case p.sampled:
		list = []string{"select_sample", "select_gather", "select_rank"}
	case p.direct:
		list = []string{"select"}
	}
	if p.sortRuns > 0 {
		list = append(list, "select_sort")
	}
	if p.merges > 0 {
		list = append(list, "select_merge")
	}
	return list
}

func compileSlots(c *compiler) {
	for _, n := range []int{512, 510} {
		compile(c, NewGather, func(g *Gather) ([]*vk.Kernel, error) { return one(g.kernel()) }, GatherConfig{C: n})
		compile(c, NewGatherBackward, func(g *GatherBackward) ([]*vk.Kernel, error) { return one(g.kernel()) },
			GatherBackwardConfig{C: n}, GatherBackwardConfig{C: n, Add: true})
		compile(c, NewScatter, func(s *Scatter) ([]*vk.Kernel, error) { return each(s.kernel, false, true) },
			ScatterConfig{C: n}, ScatterConfig{C: n, Add: true})
	}
	compile(c, NewMembershipMask, func(m *MembershipMask) ([]*vk.Kernel, error) { return one(m.kernel, nil) }, MembershipMaskConfig{})
}

func compileRotary(c *compiler) {
	for _, d := range []int{2, 30, 32, 64, 128} {
		compile(c, NewRotary, func(r *Rotary) ([]*vk.Kernel, error) { return one(r.kernel, nil) },
			RotaryConfig{Heads: 1, DimHead: d}, RotaryConfig{Heads: 8, DimHead: d}, RotaryConfig{Heads: 8, DimHead: d, Stride: 16 * d, HeadStride: 2 * d})
	}
}

// compileEmbedPool adds the kernels at the start and the end of a model.
func compileEmbedPool(c *compiler) {
	for _, n := range []int{512, 510} {
		compile(c, NewEmbed, func(e *Embed) ([]*vk.Kernel, error) { return one(e.kernel, nil) }, flags(c, EmbedConfig{C: n, V: 256})...)
		compile(c, NewMeanPool, func(m *MeanPool) ([]*vk.Kernel, error) { return one(m.kernel, nil) }, MeanPoolConfig{C: n}, MeanPoolConfig{C: n, Masked: true})
	}
	for _, n := range []int{512, 510} {
		compile(c, NewEmbedBackward, func(e *EmbedBackward) ([]*vk.Kernel, error) { return []*vk.Kernel{e.sort, e.sum}, nil },
			flags(c, EmbedBackwardConfig{C: n, V: 256})...)
		compile(c, NewMeanPoolBackward, func(m *MeanPoolBackward) ([]*vk.Kernel, error) { return one(m.kernel, nil) },
			MeanPoolConfig{C: n}, MeanPoolConfig{C: n, Masked: true})
	}
	compile(c, NewPatchEmbed, func(e *PatchEmbed) ([]*vk.Kernel, error) { return one(e.kernel, nil) },
		PatchEmbedConfig{Channels: 3, Height: 256, Width: 256, PatchHeight: 32, PatchWidth: 32},
		PatchEmbedConfig{Channels: 1, Height: 6, Width: 10, PatchHeight: 3, PatchWidth: 2})
	compile(c, NewAdd, func(a *Add) ([]*vk.Kernel, error) { return one(a.kernel, nil) }, AddConfig{})
	compile(c, NewGELUBackward, func(g *GELUBackward) ([]*vk.Kernel, error) { return one(g.kernel, nil) },
		GELUBackwardConfig{}, GELUBackwardConfig{F16}, GELUBackwardConfig{BF16})
	compile(c, NewTreeSum, func(s *TreeSum) ([]*vk.Kernel, error) { return one(s.kernel, nil) }, TreeSumConfig{})
	compile(c, NewColumnSum, func(s *ColumnSum) ([]*vk.Kernel, error) {
		return each(func(i int) (*vk.Kernel, error) {
			if vec4 := i&2 != 0 && s.config.C%4 == 0; i < 4 {
				return s.kernel(s.config.X, i&1 != 0, vec4)
			} else {
				return s.fewKernel(s.config.X, i+8*(i&1), i&1 != 0, vec4)
			}
		}, 0, 1, 2, 3, 4, 5, 6, 7)
	}, ColumnSumConfig{C: 510}, ColumnSumConfig{C: 512}, ColumnSumConfig{C: 512, X: F16}, ColumnSumConfig{C: 510, X: BF16})
	compile(c, NewCopyRows, func(m *CopyRows) ([]*vk.Kernel, error) { return one(m.kernel, nil) }, CopyRowsConfig{})
	compile(c, NewPermute, func(p *Permute) ([]*vk.Kernel, error) { return one(p.kernel, nil) },
		PermuteConfig{}, PermuteConfig{Bytes: true}, PermuteConfig{Bytes: true, Truth: true})
}

func compileOptimizer(c *compiler) {
	compile(c, NewGradientNorm, func(g *GradientNorm) ([]*vk.Kernel, error) { return []*vk.Kernel{g.blocks, g.sum}, nil }, GradientNormConfig{})
	compile(c, NewOptimizerState, func(o *OptimizerState) ([]*vk.Kernel, error) { return one(o.kernel, nil) }, OptimizerStateConfig{})
	compile(c, NewAdamW, func(w *AdamW) ([]*vk.Kernel, error) { return one(w.kernel, nil) }, AdamWConfig{Eps: 1e-8})
}

// compileLosses adds the losses, and what only training has besides.
func compileLosses(c *compiler) {
	for _, v := range c.sizes(256, 2, 31, 65536) { // 4 to 256 invocations per row
		compile(c, NewCrossEntropy, func(e *CrossEntropy) ([]*vk.Kernel, error) { return []*vk.Kernel{e.rows, e.sums}, nil }, CrossEntropyConfig{V: v})
	}
	compile(c, NewDropout, func(d *Dropout) ([]*vk.Kernel, error) { return one(d.kernel, nil) }, DropoutConfig{})
	compile(c, NewMSE, func(m *MSE) ([]*vk.Kernel, error) { return []*vk.Kernel{m.blocks, m.sum}, nil }, MSEConfig{})
}

// flags returns a config with none of its bools set, with all, with each alone, and with all but each. In short mode it
// returns the first two.
func flags[C comparable](c *compiler, config C) []C {
	set := func(on func(field int) bool) C {
		changed := config
		v := reflect.ValueOf(&changed).Elem()
		for i := range v.NumField() {
			if v.Field(i).Kind() == reflect.Bool {
				v.Field(i).SetBool(on(i))
			}
		}
		return changed
	}
	list := []C{set(func(int) bool { return false }), set(func(int) bool { return true })}
	if c.short {
		return list
	}
	for i := range reflect.TypeFor[C]().NumField() {
		if reflect.TypeFor[C]().Field(i).Type.Kind() == reflect.Bool {
			list = append(list, set(func(field int) bool { return field == i }), set(func(field int) bool { return field != i }))
		}
	}
	return distinct(list...)
}

// sizes returns all sizes, or in short mode the first and the last one.
func (c *compiler) sizes(all ...int) []int {
	if c.short {
		return []int{all[0], all[len(all)-1]}
	}
	return all
}

// distinct returns a list without duplicates.
func distinct[T comparable](list ...T) (unique []T) {
	for _, v := range list {
		if !slices.Contains(unique, v) {
			unique = append(unique, v)
		}
	}
	return unique
}

func compilePeak(c *compiler) {
	for _, s := range c.caps.MatrixShapes {
		operand, sum, err := peak.Types(s)
		if name := fmt.Sprintf("peak_%s_%s %dx%dx%d", operand, sum, s.M, s.N, s.K); err == nil && c.only.MatchString(name) {
			compile(c, peak.New, func(p *peak.Pipeline) ([]*vk.Kernel, error) { return one(p.Kernel()) }, s)
		}
	}
}
