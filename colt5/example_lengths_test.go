package colt5_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/colt5-vulkan/colt5/colt5"
	"github.com/colt5-vulkan/colt5/vk"
)

// Documents of different lengths share a call: they are padded to a common length, and a mask tells the real tokens from
// the padding. The vectors of the real tokens are those that each document has in a call of its own, apart from rounding.
//
// Lengths are rounded up to buckets, so that a few plans serve all lengths. Prepare makes these plans, and compiles the
// kernels, before the first document arrives.
func ExampleEncoder_lengths() {
	if err := encodeBatches(context.Background()); err != nil {
		fmt.Println(err)
	}
	// Output:
	// documents of 100 and 85 bytes in a call of 104
	// documents of 61 and 3 bytes in a call of 64
	// all vectors are those of calls of their own: true
}

// bucket rounds a length up to one of eight per power of two: 64, 72, 80, .. 128, 144, ..
func bucket(n int) int {
	step := 1
	for n > 16*step {
		step *= 2
	}
	return (n + step - 1) / step * step
}

func encodeBatches(ctx context.Context) error {
	dev, err := vk.Open(vk.Options{})
	if err != nil {
		return err
	}
	defer dev.Close()
	config := colt5.Default[colt5.EncoderConfig]()
	config.Depth, config.NumTokens, config.Dim = 1, 256, 32
	config.LightHeads, config.LightDimHead, config.LightWindowSize = 2, 16, 16
	config.HeavyHeads, config.HeavyDimHead = 4, 16
	config.NumHeavyAttnTokensQ, config.NumHeavyAttnTokensKV, config.NumHeavyFFTokens = 16, 16, 16
	encoder, err := colt5.NewEncoder(ctx, dev, config) // encoder.Load reads trained weights
	if err != nil {
		return err
	}
	defer encoder.Close()
	if err := encoder.LimitPlans(ctx, colt5.PlanLimits{Count: 100}); err != nil { // the default is 64
		return err
	}
	for _, n := range []int{bucket(61), bucket(100)} {
		if err := encodePadded(ctx, encoder, make([][]byte, 2), n, nil); err != nil { // prepares
			return err
		}
	}

	text := strings.Repeat("It was the best of times, it was the worst of times. ", 2)
	same := true
	for _, documents := range [][][]byte{{[]byte(text[:100]), []byte(text[5:90])}, {[]byte(text[:61]), []byte("no!")}} {
		n := bucket(len(documents[0])) // the longest is first
		fmt.Printf("documents of %d and %d bytes in a call of %d\n", len(documents[0]), len(documents[1]), n)
		together := make([]float32, len(documents)*n*config.Dim)
		if err := encodePadded(ctx, encoder, documents, n, together); err != nil {
			return err
		}
		for i, d := range documents {
			alone := make([]float32, len(d)*config.Dim)
			if err := encodePadded(ctx, encoder, [][]byte{d}, len(d), alone); err != nil {
				return err
			}
			for j, v := range alone {
				same = same && math.Abs(float64(v-together[i*n*config.Dim+j])) < 1e-5
			}
		}
	}
	fmt.Println("all vectors are those of calls of their own:", same)
	return nil
}

// encodePadded encodes documents as a batch of rows of n bytes, and reads the vectors. Without memory for these it
// prepares such calls.
func encodePadded(ctx context.Context, encoder *colt5.Encoder, documents [][]byte, n int, vectors []float32) error {
	dev, dim := encoder.Parameters()[0].Tensor.Device(), encoder.Config().Dim
	text, real := make([]uint8, len(documents)*n), make([]uint8, len(documents)*n)
	for i, d := range documents {
		copy(text[i*n:], d)
		for j := range d {
			real[i*n+j] = 1
		}
	}
	x, errX := colt5.FromSlice(ctx, dev, text, len(documents), n)
	mask, errMask := colt5.FromSlice(ctx, dev, real, len(documents), n)
	y, errY := colt5.NewTensor(dev, colt5.F32, len(documents), n, dim)
	defer x.Close()
	defer mask.Close()
	defer y.Close()
	if err := errors.Join(errX, errMask, errY); err != nil {
		return err
	}
	options := colt5.BlockOptions{Mask: mask}
	if vectors == nil {
		return encoder.Prepare(ctx, y, x, options)
	}
	if err := encoder.Forward(ctx, y, x, options); err != nil {
		return err
	}
	return y.Read(ctx, vectors)
}
