package verify

import (
	"context"
	"fmt"

	"github.com/colt5-vulkan/colt5/colt5"
	"github.com/colt5-vulkan/colt5/internal/cli/scope"
	"github.com/colt5-vulkan/colt5/internal/golden"
	"github.com/colt5-vulkan/colt5/vk"
)

// setupPlain is the setup of modules without routers, whose y has the shape of x.
func setupPlain[C any, M routedModule](create func(context.Context, *vk.Device, C) (M, error),
	forward func(ctx context.Context, m M, y, x, mask *colt5.Tensor) error) setupFunc {
	return func(s *scope.Scope, c *golden.Case) (*instance, error) {
		var config C
		if err := decode(c, &config, &struct{}{}); err != nil {
			return nil, err
		}
		m, err := create(s.Context(), s.Dev, config)
		m = scope.Keep(s, m, err)
		x, mask := optionalInput(s, c, "x"), optionalInput(s, c, "mask")
		y := like(s, x)
		if s.Err() != nil {
			return nil, nil
		}
		if x == nil {
			return nil, fmt.Errorf("in.x is missing")
		}
		if err := load(s.Context(), m.Parameters(), c); err != nil {
			return nil, err
		}
		return &instance{
			tensors: tensors{inputs(map[string]*colt5.Tensor{"x": x, "mask": mask}), map[string]*colt5.Tensor{"y": y}}, parameters: m.Parameters(),
			forward: func(ctx context.Context, t tensors, _ *[]colt5.RoutingRecord) error {
				return forward(ctx, m, t.outputs["y"], t.inputs["x"], t.inputs["mask"])
			},
			compare: func(got values, found *comparison) error { return compareOutputs(c, got, found) },
		}, nil
	}
}

func forwardLocalMHA(ctx context.Context, m *colt5.LocalMHA, y, x, mask *colt5.Tensor) error {
	return m.Forward(ctx, y, x, colt5.LocalMHAOptions{Mask: mask})
}

func forwardPlainFeedForward(ctx context.Context, m *colt5.FeedForward, y, x, _ *colt5.Tensor) error {
	return m.Forward(ctx, y, x, colt5.CallOptions{})
}

func forwardRMSNorm(ctx context.Context, m *colt5.RMSNorm, y, x, _ *colt5.Tensor) error {
	return m.Forward(ctx, y, x, colt5.CallOptions{})
}
