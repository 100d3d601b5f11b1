package route

import (
	"context"
	"errors"
	"fmt"

	"github.com/colt5-vulkan/colt5/colt5"
	"github.com/colt5-vulkan/colt5/vk"
)

// routerOf creates a router that selects the same tokens as a feedforward: with its options and its routing token.
func routerOf(ctx context.Context, dev *vk.Device, f *colt5.ConditionalRoutedFeedForward) (*colt5.CoordinateDescentRouter, error) {
	config := f.Config()
	r, err := colt5.NewCoordinateDescentRouter(ctx, dev, colt5.RouterConfig{
		Dim: config.Dim, NumRoutingTokens: 1, StraightThrough: config.RouterStraightThrough, RouterSettings: config.Router,
	})
	if err != nil {
		return nil, err
	}
	if err := copyToken(ctx, r.Parameters(), f.Parameters()); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

// copyToken copies the routing token of a feedforward to a router.
func copyToken(ctx context.Context, to, from []colt5.Parameter) error {
	for _, p := range from {
		if p.Name == "router.routing_token" && len(to) == 1 {
			token, err := p.Tensor.Float32(ctx)
			if err != nil {
				return err
			}
			return to[0].Tensor.Write(ctx, token)
		}
	}
	return fmt.Errorf("the feedforward has no routing token")
}
