// Package ref is the CPU reference of every kernel and module: plain loops in float64. Tests compare GPU results with
// it, so it shares no code with the GPU path. It imports no package of this module except internal/half.
//
// Every reference has two precisions: X computes in float64, X32 runs the same loops in float32. The error of X32 sets
// the tolerance: a GPU result may have at most twice the error of plain float32 on the CPU (see [Bound]).
//
//	want := ref.RMSNorm(x, gamma, rows, c)
//	want32 := ref.RMSNorm32(x, gamma, rows, c)
//	err := ref.MaxErr(got, want).Within(ref.Bound(want32, want, 1e-6))
//
// Inputs are float32 and row-major, as in device memory. A mask has one byte per token, 1 = valid, 0 = padding; nil
// means that all tokens are valid. Dimensions: B batch items, N tokens, C model dimension, R routes, K slots (selected
// tokens) per route.
//
// A slot is a place in a router's list of selected tokens. It is empty if its valid byte (the routed mask) is 0. An
// empty slot gathers zeros and writes nothing; its index (0) usually belongs to another slot as well. A slot with score
// 0 is skipped in the same way, although its token is selected.
//
// The gradient of X is XBackward, in <stem>_backward.go: it takes the arguments of X and the gradient of its result, and
// returns the gradients of the arguments. Add and CopyRows have none: the gradient of a sum is that of the result, and
// the gradient of a copy is a copy. That of a module is a [Gradients], which has the gradients of intermediate results too.
//
// Only tests call this package. Slices whose lengths do not match the shapes are programming errors, so they panic with
// the name of the argument.
package ref
