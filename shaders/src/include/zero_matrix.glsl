// Zero for sums on devices with few registers. Include matrix_operands.glsl first.

// zero returns a matrix of zeros. As it comes from a product, like all other values of a sum, Intel's compiler keeps a
// sum in one place: it does not split it into single registers at the start of a loop.
ACCUMULATOR zero() { return coopMatMulAdd(OPERAND_A(0), OPERAND_B(0), ACCUMULATOR(0)); }
