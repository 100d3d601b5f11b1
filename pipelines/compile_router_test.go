package pipelines

import (
	"github.com/colt5-vulkan/colt5/vk"
)

func compileRouterLogits(c *compiler) {
	for tokens := 1; tokens <= routerTokensPerPass+1; tokens++ {
		if c.short && tokens%4 != 0 {
			continue
		}
		for _, n := range []int{512, 510} {
			compile(c, NewRouterLogits, func(r *RouterLogits) ([]*vk.Kernel, error) { return each(r.kernel, true, false) },
				RouterLogitsConfig{C: n, R: tokens}, RouterLogitsConfig{C: n, R: tokens, CosineScale: 8}, RouterLogitsConfig{C: n, R: 1, R2: tokens})
		}
	}
}

func compileRouterLogitsBackward(c *compiler) {
	for _, n := range []int{7, 512} {
		for _, cosine := range []float64{0, 8} {
			compile(c, NewRouterLogitsBackward, func(r *RouterLogitsBackward) (list []*vk.Kernel, err error) {
				if r.config.Fused() {
					k, err := r.fusedKernel()
					return []*vk.Kernel{k}, err
				}
				for _, name := range []string{"router_logits_backward", "router_logits_backward_sums", "router_logits_backward_tokens"} {
					for _, add := range []bool{false, true} {
						k, err := r.kernel(name, add)
						if err != nil {
							return nil, err
						}
						list = append(list, k)
					}
				}
				return distinct(list...), nil
			}, RouterLogitsBackwardConfig{C: n, R: 1, CosineScale: cosine}, RouterLogitsBackwardConfig{C: n, R: 4, CosineScale: cosine}, RouterLogitsBackwardConfig{C: n, R: 16, CosineScale: cosine})
		}
	}
}
