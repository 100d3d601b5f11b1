package colt5_test

import (
	"context"
	"fmt"

	"github.com/colt5-vulkan/colt5/colt5"
	"github.com/colt5-vulkan/colt5/vk"
)

// The two largest entries of each row, and their soft scores, which carry the gradient in training.
func ExampleTopK() {
	if err := largestEntries(context.Background()); err != nil {
		fmt.Println(err)
	}
	// Output:
	// row 0: entry 1 is 0.90, soft score 1.00
	// row 0: entry 3 is 0.70, soft score 1.00
	// row 1: entry 2 is 0.55, soft score 1.00
	// row 1: entry 0 is 0.50, soft score 0.63
}

func largestEntries(ctx context.Context) error {
	dev, err := vk.Open(vk.Options{})
	if err != nil {
		return err
	}
	defer dev.Close()

	config := colt5.Default[colt5.TopKConfig]()
	config.K = 2
	topK, err := colt5.NewTopK(dev, config)
	if err != nil {
		return err
	}
	defer topK.Close()

	x, err := colt5.FromSlice(ctx, dev, []float32{0.3, 0.9, 0.1, 0.7, 0.5, 0.45, 0.55, 0.4}, 2, 4)
	if err != nil {
		return err
	}
	defer x.Close()
	values, err := colt5.NewTensor(dev, colt5.F32, 2, config.K)
	if err != nil {
		return err
	}
	defer values.Close()
	indices, err := colt5.NewTensor(dev, colt5.I32, 2, config.K)
	if err != nil {
		return err
	}
	defer indices.Close()
	soft, err := colt5.NewTensor(dev, colt5.F32, 2, config.K)
	if err != nil {
		return err
	}
	defer soft.Close()

	out := colt5.TopKResult{Values: values, Indices: indices, CoorDescentValues: soft}
	if err := topK.Forward(ctx, out, x, colt5.TopKOptions{}); err != nil {
		return err
	}
	v, err := values.Float32(ctx)
	if err != nil {
		return err
	}
	i, err := indices.Int32(ctx)
	if err != nil {
		return err
	}
	s, err := soft.Float32(ctx)
	if err != nil {
		return err
	}
	for n := range v {
		fmt.Printf("row %d: entry %d is %.2f, soft score %.2f\n", n/config.K, i[n], v[n], s[n])
	}
	return nil
}
