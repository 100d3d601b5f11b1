// Package colt5 has the conditionally routed layers of CoLT5 (Ainslie et al. 2023, arXiv 2303.09752) for any Vulkan device. A light
// branch sees every token; a learned router sends a few tokens to a heavy one.
//
//	dev, err := vk.Open(vk.Options{})
//	config := colt5.Default[ConditionalRoutedFeedForwardConfig]()
//	config.Dim, config.NumHeavyTokens = 512, 1024
//	ff, err := colt5.NewConditionalRoutedFeedForward(dev, config)
//	err = ff.Load("feedforward.safetensors")                    // PyTorch's names; without it, PyTorch's initial values
//	x, err := colt5.FromSlice(dev, tokens, 2, 32768, 512)     // [B, N, C]
//	y, err := colt5.NewTensor(dev, colt5.F32, 2, 32768, 512)
//	err = ff.Forward(y, x, colt5.FeedForwardOptions{})
//	out, err := y.Float32()
//
// The modules: ConditionalRoutedFeedForward, ConditionalRoutedAttention and the two as a ConditionalRoutedTransformerBlock;
// ConditionalRoutedCrossAttention, ConditionalRoutedAutoregressiveAttention, ConditionalRoutedImageAttention; stacks of them, Encoder,
// AutoregressiveTransformer and ConditionalRoutedViT; and their parts, CoordinateDescentRouter, CoordinateDescent and TopK. Each is made
// by New with a config that starts from its Default, has Forward, and is closed by who made it. Those with weights have Parameters, Init,
// Load and Save. LastCall tells what the last call cost, LastRouting, after Inspect(true), what its routers decided, and the Memory method of a
// config what a call needs, without a device.
//
// Tensors live on the device, row-major, the last dimension contiguous. A mask is U8, one byte a token, 1 a real token, 0 padding.
// Every module keeps what it has prepared for the shapes it has seen: a second call with the same shapes is one submit and
// allocates nothing (token ids other than bytes are checked, which takes the read of a word more). Modules may be used by several goroutines; calls of one module run one after the other.
//
// Modules with matrix products have a Precision: Float32, or Float16 and BFloat16 on devices with cooperative matrices.
//
// Configurations read and write JSON with the keys of the PyTorch package; what a file leaves out has its default.
package colt5
