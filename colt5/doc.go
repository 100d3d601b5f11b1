// Package colt5 has the conditionally routed layers of CoLT5 (Ainslie et al. 2023, arXiv 2303.09752) for any Vulkan
// device. Light branches process every token; learned routers select a few tokens for heavy branches.
//
//	dev, err := vk.Open(vk.Options{})
//	config := colt5.Default[colt5.ConditionalRoutedFeedForwardConfig]()
//	config.Dim, config.NumHeavyTokens = 512, 1024
//	ff, err := colt5.NewConditionalRoutedFeedForward(ctx, dev, config)
//	err = ff.Load(ctx, "feedforward.safetensors")               // PyTorch's names; without Load: PyTorch's distributions, seed 0
//	x, err := colt5.FromSlice(ctx, dev, tokens, 2, 32768, 512)  // [B, N, C]
//	y, err := colt5.NewTensor(dev, colt5.F32, 2, 32768, 512)
//	err = ff.Forward(ctx, y, x, colt5.FeedForwardOptions{})
//	out, err := y.Float32(ctx)
//
// # Modules
//
// Layers: [ConditionalRoutedFeedForward], [ConditionalRoutedAttention], both as a [ConditionalRoutedTransformerBlock],
// [ConditionalRoutedCrossAttention], [ConditionalRoutedAutoregressiveAttention], [ConditionalRoutedImageAttention].
// Models: [Encoder], [AutoregressiveTransformer], [ConditionalRoutedViT]. Parts of layers: [CoordinateDescentRouter],
// [CoordinateDescent], [TopK]. Layers without routing: [LocalMHA], [FeedForward], [RMSNorm].
//
// Each is made by its New function with a configuration that starts from [Default]. Whoever makes a module closes it.
// Modules with weights have Parameters, Init, Load, LoadFrom and Save. Load reads a safetensors file with exactly the
// module's parameters. LoadFrom also takes a file of an [io/fs.FS] or a part of a larger model, changes names, and may leave
// parameters out; see package safetensors. Both change all weights or none. The Memory method of a
// configuration predicts what a call needs, without a device.
//
// # Configurations in JSON
//
// Configurations read and write JSON with the keys of the colt5-attention package. Absent keys get their defaults, and
// null is 0 for a number. An unknown or repeated key is an error; so is a key in another case.
//
// Arguments of the PyTorch classes that have no meaning here are accepted without effect, where the class has them:
// use_triton and use_flash_attn of the layers, router_use_triton and flash_attn of the ViT, num_sets_kv of the
// cross-attention, use_triton and triton_checkpoint_segments of a router, fused of TopK. default_coor_descent_eps of the
// ViT is the eps of its routers, unless router_kwargs has an eps.
//
// # Limits
//
// Forward and Memory refuse the same configurations and sizes. A tensor has up to 2,147,483,647 tokens (batch items
// times tokens), and 2^56 elements. A router or TopK selects from up to 268,435,456 tokens (2^28) of an item; an
// attention to windows takes 1,073,741,823 (2^30 - 1), as many as a window may have. Rows, which are Dim, hidden
// sizes, vocabularies and classes, have up to 2^30 - 1 numbers, or 2^27 - 1 where a product with 16-bit operands
// reads them. An attention has up to 65,536 heads of up to 128 numbers; image patches have sides of up to 1,024; a
// ViT has up to 520,000 tokens; models have up to 16,384 layers. Coordinate descent takes up to 65,536 iterations,
// an eps of 1e-30 to 1e30, and a k of 1e-6 to 1e30. Long sequences are processed in groups of rows, of which a call
// may have 131,072: terabytes of tokens.
//
// A NaN in a router's logits ranks below all numbers, whatever its sign, and makes the soft scores of its row undefined.
//
// # Calls
//
// Tensors are row-major and on the device. A mask is u8: 1 for a real token, 0 for padding. A call can return what it
// cost ([CallStats]) and what its routers selected ([RoutingRecord]) through its options.
//
// A call of a new kind first makes a plan, on the host. A kind is the shapes, the token counts, and which optional
// tensors and results the call has. A module keeps the plans that it used last, 64 by default; see [PlanLimits].
// Prepare makes a plan in advance: see [Encoder.Prepare]. A call with a kept plan is one submit and allocates nothing.
// Exceptions: routing records and step times are allocated, and i32 token ids cause a second, small transfer that
// checks them.
//
// # Variable lengths
//
// A new length needs a new plan. For an Encoder of six blocks with a Dim of 64 that is about 1 ms of host time on two
// CPU cores, once, if its kernels are compiled. Padding costs device time in every call, in proportion to the tokens:
// on a CPU driver that encoder takes 29% more for 512 tokens than for 400. A GPU that a call does not fill loses
// less.
//
// So a document alone runs at its own length. Documents of different lengths run as a batch: sort them by length, pad
// each batch to its longest document, rounded up to a bucket, and pass a mask. Real tokens get the outputs of a call
// without padding, apart from rounding, unless the routers have blocks (RouteBlockSize) or use soft scores; the
// outputs of padding have no meaning. Eight buckets per power of two add 4% on average, 12.5% at most, and serve
// lengths of 256 to 4,096 with 32 plans for each number of documents. Prepare makes the plans before the first
// request; [PlanLimits] says how many stay. The example Lengths of Encoder does all of this.
//
// # Goroutines and contexts
//
// Modules may be used by several goroutines. Calls of one module run one after the other.
//
// A call that waits takes a [context.Context]. When the context ends, the call returns an error that wraps the
// context's, while the device finishes the submitted work; outputs are undefined. The next call of the module waits for
// that work first. If the device does not finish within vk.Options.Timeout (default 5 minutes), the error wraps
// vk.ErrTimeout; the module and the device stay usable in the same way.
//
// # Graphs
//
// A [Graph] runs several modules and operations (sums, concatenation, parts, means) as one call, with one workspace: an
// encoder, the mean over its tokens and a linear head, for example. Forward adds a node where its tensors are values of a
// graph. [Linear] and [Embedding] are modules for both ends. Modules share weights by their Share method.
//
// # Precision
//
// Configurations of modules with matrix products have a Precision: [F32], or [F16] and [BF16] on devices with
// cooperative matrices.
package colt5
