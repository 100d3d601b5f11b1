package spirv

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// matrixProduct assembles a product of matrices of sizes [m, k], [k, n] and [m, n], with the given element types. Its operands
// are undefined values, which are defined after it.
func matrixProduct(m, n, k, operand, sum uint32, flags ...uint32) []byte {
	const undef, scope, ids = 1, free, free + 1
	return module([]uint32{opConstant, u32, scope, 3}, []uint32{opConstant, u32, ids, m}, []uint32{opConstant, u32, ids + 1, n},
		[]uint32{opConstant, u32, ids + 2, k}, []uint32{opTypeInt, 50, 8, 1}, []uint32{opTypeFloat, 51, 16}, []uint32{opTypeFloat, 52, 16, 0},
		[]uint32{opTypeInt, 53, 32, 1}, []uint32{opTypeFloat, 54, 8, 4214},
		[]uint32{opTypeCooperativeMatrix, 60, operand, scope, ids, ids + 2, scope}, []uint32{opTypeCooperativeMatrix, 61, operand, scope, ids + 2, ids + 1, scope},
		[]uint32{opTypeCooperativeMatrix, 62, sum, scope, ids, ids + 1, scope},
		append([]uint32{opCooperativeMatrixMulAdd, 62, 70, 71, 72, 73}, flags...),
		[]uint32{undef, 60, 71}, []uint32{undef, 61, 72}, []uint32{undef, 62, 73})
}

func TestMatrixProducts(t *testing.T) {
	const s8, f16, bf16, s32, f8 = 50, 51, 52, 53, 54
	for name, c := range map[string]struct {
		code []byte
		want MatrixProduct
	}{
		"f16":        {matrixProduct(16, 8, 4, f16, f32), MatrixProduct{M: 16, N: 8, K: 4, A: 0, B: 0, C: 1, Result: 1, Scope: 3}},
		"f16 sums":   {matrixProduct(1, 2, 3, f16, f16, 0), MatrixProduct{M: 1, N: 2, K: 3, Scope: 3}},
		"bf16":       {matrixProduct(1, 2, 3, bf16, f32), MatrixProduct{M: 1, N: 2, K: 3, A: 1000141000, B: 1000141000, C: 1, Result: 1, Scope: 3}},
		"signed":     {matrixProduct(1, 2, 3, s8, s32, 15), MatrixProduct{M: 1, N: 2, K: 3, A: 3, B: 3, C: 5, Result: 5, Scope: 3}},
		"unsigned":   {matrixProduct(1, 2, 3, s8, u32, 0), MatrixProduct{M: 1, N: 2, K: 3, A: 7, B: 7, C: 9, Result: 9, Scope: 3}},
		"saturating": {matrixProduct(1, 2, 3, s8, u32, 17), MatrixProduct{M: 1, N: 2, K: 3, A: 3, B: 7, C: 9, Result: 9, Saturating: true, Scope: 3}},
		"unknown":    {matrixProduct(1, 2, 3, f8, f32), MatrixProduct{M: 1, N: 2, K: 3, A: UnknownComponent, B: UnknownComponent, C: 1, Result: 1, Scope: 3}},
	} {
		m, err := Reflect(c.code, nil)
		require.NoError(t, err, name)
		assert.Equal(t, []MatrixProduct{c.want}, m.MatrixProducts, name)
	}
}

func TestMatrixProductErrors(t *testing.T) {
	_, err := Reflect(matrixProduct(1, 0, 1, f32, f32), nil)
	assert.ErrorContains(t, err, "[0] is not a size")
	code := matrixProduct(1, 2, 3, f32, f32)
	for i := 0; i+16 <= len(code); i += 4 { // the product of A and A
		if word(code, i) == 6<<16|opCooperativeMatrixMulAdd {
			copy(code[i+16:i+20], code[i+12:])
		}
	}
	_, err = Reflect(code, nil)
	assert.ErrorContains(t, err, "a matrix product of [1, 3] x [1, 3] + [1, 2]")
	_, err = Reflect(module([]uint32{opConstant, u32, free, 3}, []uint32{opTypeCooperativeMatrix, 60, f32, free, free, free, free},
		[]uint32{opCooperativeMatrixMulAdd, 60, 70, 71, 72, 73}), nil)
	assert.ErrorContains(t, err, "operand 0 of a matrix product has no matrix type")
}

func word(code []byte, i int) uint32 {
	return uint32(code[i]) | uint32(code[i+1])<<8 | uint32(code[i+2])<<16 | uint32(code[i+3])<<24
}
