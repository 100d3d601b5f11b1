// Package pipelines holds one typed object a kernel: New compiles it for a device and a config, Record adds its dispatches to a
// tape, Close frees it. The rooms:
//
//	RMSNorm         rows to length sqrt(C), times gamma; the rows' factors
//	LayerNorm       rows to mean 0 and variance 1, times weight, plus bias; a table added behind it
//	PatchEmbed      images to normalised rows of patches; PatchPositions is the table to add later
//	Linear          matrix product with row gather, RMSNorm, bias, GELU, score, residual and row scatter
//	RouterLogits    tokens against routing tokens; the rows' factors
//	CoorDescent     soft top-k: scores of logits
//	Select          hard top-k: indices of the largest logits
//	Gather          rows by index
//	Scatter         rows back to their positions
//	PatchAttention  attention inside the square patches of an image
//	Mark            the rows that slots name
//	RoutedAttention routed queries to routed keys and values, flash style
//	MeanPool        mean over tokens
//	Permute         axes of a tensor in another order
//	Embed           rows of a table by token id
//	CausalSelect    choice of queries that does not look ahead
//	Rotary          heads of rows turned by their positions
//	Cast            weights to 16 bits
//
// The 1,024 of 4,096 tokens that a router chooses, for two sequences:
//
//	router, err := pipelines.NewRouterLogits(dev, pipelines.RouterLogitsConfig{C: 512, R: 1})
//	defer router.Close()
//	top, err := pipelines.NewSelect(dev, pipelines.SelectConfig{})
//	defer top.Close()
//	gather, err := pipelines.NewGather(dev, pipelines.GatherConfig{C: 512})
//	defer gather.Close()
//	err = router.Record(tape, pipelines.RouterLogitsArgs{X: x, Tokens: tokens, Logits: logits, B: 2, N: 4096})
//	err = top.Record(tape, pipelines.SelectArgs{Logits: logits, Indices: indices, Filled: filled, Rows: 2, N: 4096, K: 1024})
//	err = gather.Record(tape, pipelines.GatherArgs{X: x, Indices: indices, Filled: filled, Y: y, B: 2, N: 4096, K: 1024})
//	err = tape.Run()
//
// # Letters
//
//	B  batch items                  C  model dim: floats of a token      H  heads
//	N  tokens of an item            R  routes: routing tokens            D  dim of a head
//	M  tokens of a context          K  slots of an item: chosen tokens   W  tokens of a window
//
// Tensors are row-major without gaps, float32 unless a comment says otherwise; where a config has a Precision, its comments say which have 16 bits.
// Shape tables write them as
//
//	x [B, N, C] f32 in    mask [B, N] u8 in, optional    y [B, N, C] f32 out
//
// A mask has one byte a token, 1 = real, 0 = padding. Indices are int32 and count within a batch item. A slot is one place in a
// list of chosen tokens, with an index, a score and a filled word (uint32, 0 or 1). It is empty if its filled word or its score
// is 0, or if its index names no row; it gathers zeros and scatters nothing then.
//
// # Rules of every room
//
// A Config is baked into the kernel, Args are per recording. A zero vk.Range is an absent argument, an error where it is not
// optional. A Range has exactly the size of its shape (scratch memory: at least). It starts at a multiple of 16 bytes; where
// rows are no multiple of four floats, and lists of indices, scores and words, at any multiple of four. Record checks that, and names the
// argument that is wrong. Outputs overlap no other range unless a room says that they may. What the
// memory holds is not checked, but no contents make a kernel read or write elsewhere.
//
// The same inputs give the same bits on the same device, whatever else is in the batch.
package pipelines
