package colt5_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/colt5-vulkan/colt5/colt5"
	"github.com/colt5-vulkan/colt5/safetensors"
	"github.com/colt5-vulkan/colt5/vk"
)

// Load one router of a saved layer, whose file has more than the router's weights.
func ExampleCoordinateDescentRouter_LoadFrom() {
	ctx := context.Background()
	dev, err := vk.Open(vk.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer dev.Close()
	config := colt5.Default[colt5.ConditionalRoutedFeedForwardConfig]()
	config.Dim, config.NumHeavyTokens = 16, 4
	ff, err := colt5.NewConditionalRoutedFeedForward(ctx, dev, config)
	if err != nil {
		log.Fatal(err)
	}
	defer ff.Close()
	dir, err := os.MkdirTemp("", "colt5")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "ff.safetensors")
	if err := ff.Save(ctx, path); err != nil {
		log.Fatal(err)
	}

	routerConfig := colt5.Default[colt5.RouterConfig]()
	routerConfig.Dim = 16
	router, err := colt5.NewCoordinateDescentRouter(ctx, dev, routerConfig)
	if err != nil {
		log.Fatal(err)
	}
	defer router.Close()
	f, err := safetensors.Open(path) // or OpenFS, or NewReader
	if err != nil {
		log.Fatal(err)
	}
	defer f.Close()
	if err := router.LoadFrom(ctx, f, safetensors.LoadOptions{Prefix: "router."}); err != nil {
		log.Fatal(err)
	}
	fmt.Println(len(f.Names()), "tensors in the file, loaded:")
	for _, p := range router.Parameters() {
		fmt.Println(p.Name, p.Tensor)
	}
	// Output:
	// 11 tensors in the file, loaded:
	// routing_token f32[1 16]
}
