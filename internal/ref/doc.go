// Package ref holds the float64 CPU twin of every kernel, and of the modules
// built from them. It is what the GPU results are compared with, so it shares
// no code with the GPU path and imports no other package of this module.
//
// Every twin comes twice: X computes in float64, X32 runs the same plain loops
// in float32. The second is the yardstick: a GPU result may be at most twice
// as wrong as plain float32 on the CPU (see [Bound]).
//
//	want := ref.RMSNorm(x, gamma, rows, c)
//	naive := ref.RMSNorm32(x, gamma, rows, c)
//	err := ref.MaxErr(got, want).Within(ref.Bound(naive, want, 1e-6))
//
// Inputs are float32, row-major, as a device holds them. A mask has one byte a
// token, 1 = real, 0 = padding; nil means all real. Letters: B batch, N
// tokens, C model dim, R routes, K slots (chosen tokens) a route.
//
// A slot is one place in a list of chosen tokens. It is empty if its filled
// byte (the routed mask) is 0 or its score is 0. An empty slot gathers zeros
// and writes nothing: its index (0) usually belongs to another slot as well.
//
// Slices whose lengths do not fit the shapes are mistakes in a test, so they
// panic with the name of the argument; no data of a user comes here unchecked.
package ref
