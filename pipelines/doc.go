// Package pipelines has one typed object per kernel. New checks a config. Kernels with one variant are compiled by New,
// the others by the first Record that needs them. Record appends dispatches to a command list, Close frees the compiled
// kernels:
//
//	RMSNorm          root-mean-square norm of rows; the factors of rows
//	LayerNorm        layer norm of rows; adds a table
//	PatchEmbed       layer norm of image patches; PatchPositions makes the position table
//	Linear           matrix product with row gather, RMSNorm, bias, GELU, score, residual and row scatter
//	RouterLogits     products of tokens and routing tokens; the factors of rows
//	CoorDescent      soft top-k by coordinate descent
//	Select           hard top-k
//	CausalSelect     selection of queries that depends on no later token
//	MembershipMask   mask of the rows in a list
//	Gather           rows by index
//	Scatter          rows to their positions
//	WindowAttention  attention in windows of a sequence
//	PatchAttention   attention in square patches of an image
//	RoutedAttention  attention of routed queries to routed keys and values
//	Rotary           rotary position embedding of heads
//	Embed            rows of a table by token id
//	MeanPool         mean over tokens, with a mask over the real ones
//	Add              sum of two tensors
//	CopyRows         rows from one tensor into another: concatenation and parts
//	Permute          a tensor with its axes in another order
//	Cast             float32 weights to 16 bits
//
// Losses, with their gradients, and dropout:
//
//	CrossEntropy  of logits with labels; the sums of items
//	MSE           mean squared error of items
//	Dropout       random zeros, by Philox4x32-10; its own gradient
//
// Gradients, of kernels without the suffix:
//
//	EmbedBackward        gradient of the table, for each batch item
//	PatchEmbedBackward   gradient of weight, bias and images, of other kernels
//	MeanPoolBackward     gradient of the tokens, with a mask
//	CausalSelectBackward gradient of the logits, with constant thresholds
//	CoorDescentBackward  gradient of the logits and of k, from the state that CoorDescent saved
//	GELUBackward         gradient of the GELU of Linear, and the GELU again
//	LinearBackward       gradient of a weight
//	RMSNormBackward      gradient of rows, and of gamma
//	LayerNormBackward    gradient of rows, weight and bias
//	GatherBackward       gradient of the scores of rows
//	RouterLogitsBackward gradient of tokens and routing tokens
//	ColumnSum            sum over rows of each batch item: the gradient of a bias
//	TreeSum              sum over batch items or micro-batches in a balanced binary tree
//
//	WindowAttentionBackward  gradients of queries, keys and values; the softmax is computed again
//	PatchAttentionBackward   the same
//	RoutedAttentionBackward  gradients of queries, keys, values, null keys and values, and scores
//
// The optimiser, see package train:
//
//	GradientNorm    norm of the gradients of all parameters, and whether one is infinite or NaN
//	OptimizerState  factor of the gradients, learning rate, bias corrections and loss scale of a step
//	AdamW           a step of AdamW over all parameters
//
// The 1,024 of 4,096 tokens that a router selects, for two sequences:
//
//	router, err := pipelines.NewRouterLogits(dev, pipelines.RouterLogitsConfig{C: 512, R: 1})
//	defer router.Close()
//	topK, err := pipelines.NewSelect(dev, pipelines.SelectConfig{})
//	defer topK.Close()
//	gather, err := pipelines.NewGather(dev, pipelines.GatherConfig{C: 512})
//	defer gather.Close()
//	err = router.Record(list, pipelines.RouterLogitsArgs{X: x, Tokens: tokens, Logits: logits, B: 2, N: 4096})
//	err = topK.Record(list, pipelines.SelectArgs{Logits: logits, Indices: indices, Valid: valid, Rows: 2, N: 4096, K: 1024})
//	err = gather.Record(list, pipelines.GatherArgs{X: x, Indices: indices, Valid: valid, Y: y, B: 2, N: 4096, K: 1024})
//	err = list.Run(ctx)
//
// # Letters
//
//	B  batch items                  C  model dimension             H  heads
//	N  tokens of an item            R  routes: routing tokens      D  dimension of a head
//	M  tokens of a context          K  slots of a list
//
// Tensors are row-major without gaps. They are float32 unless a comment says otherwise. Shape tables read
//
//	x [B, N, C] f32 in    mask [B, N] u8 in, optional    y [B, N, C] f32 out
//
// A mask has one byte per token: 0 is padding. Indices are int32 and count within a batch item. A slot is one place in
// a list of selected tokens. It has an index, and may have a score and a valid word (uint32). A slot is empty where its
// valid word is 0. Gather reads zeros and Scatter writes nothing for an empty slot, for an index that is out of range,
// and for a score of 0.
//
// # Rules of all kernels
//
// A Config is fixed when the kernel is compiled. Args belong to one recording. A zero vk.Range is an absent argument,
// which is an error unless the argument is optional. A Range has exactly the size of its shape; scratch memory may be
// larger. It starts at a multiple of 16 bytes. Lists of indices, scores and valid words, and tensors whose rows are not
// a multiple of four floats, start at any multiple of 4. Record checks that, and its errors name the argument. Outputs
// overlap no other range unless the comment of a kernel allows it. The contents of memory are not checked, but no
// contents make a kernel access other memory.
//
// The same inputs give the same bits on the same device, whatever else is in the batch.
package pipelines
