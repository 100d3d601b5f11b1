package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/colt5-vulkan/colt5/colt5"
	"github.com/colt5-vulkan/colt5/vk"
)

// routerOf makes a router that chooses as a feedforward does: with its options and its routing token.
func routerOf(dev *vk.Device, f *colt5.ConditionalRoutedFeedForward) (*colt5.CoordinateDescentRouter, error) {
	config := f.Config()
	r, err := colt5.NewCoordinateDescentRouter(context.TODO(), dev, colt5.RouterConfig{
		Dim: config.Dim, NumRoutingTokens: 1, StraightThrough: config.RouterStraightThrough, RouterOptions: config.Router,
	})
	if err != nil {
		return nil, err
	}
	if err := copyToken(r.Parameters(), f.Parameters()); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

func copyToken(to, from []colt5.Parameter) error {
	for _, p := range from {
		if p.Name == "router.routing_token" && len(to) == 1 {
			token, err := p.Tensor.Float32(context.TODO())
			if err != nil {
				return err
			}
			return to[0].Tensor.Write(context.TODO(), token)
		}
	}
	return fmt.Errorf("the feedforward has no routing token")
}
