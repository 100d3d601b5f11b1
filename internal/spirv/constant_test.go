package spirv

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// lengthOf evaluates the constant %50 that list defines. It uses it as the length of a shared array of floats.
func lengthOf(spec Spec, list ...[]uint32) (uint64, error) {
	m, err := Reflect(module(append(list, sharedArray(50)...)...), spec)
	return m.SharedBytes / 4, err
}

// operands32 evaluates one operation on 32-bit integers.
func operands32(t *testing.T, op uint32, x ...uint32) (uint64, error) {
	t.Helper()
	args := []uint32{opSpecConstantOp, u32, 50, op}
	var list [][]uint32
	for i, v := range x {
		id := uint32(free + 1 + i)
		list, args = append(list, []uint32{opConstant, u32, id, v}), append(args, id)
	}
	return lengthOf(nil, append(list, args)...)
}

func TestIntegerOperations(t *testing.T) {
	const minus = ^uint32(0) // -1
	for _, c := range []struct {
		name string
		op   uint32
		x    []uint32
		want uint32
	}{
		{"add wraps", opIAdd, []uint32{minus, 6}, 5},
		{"sub", opISub, []uint32{9, 4}, 5},
		{"sub wraps", opISub, []uint32{4, minus - 4}, 9},
		{"mul wraps", opIMul, []uint32{0x80000001, 3}, 0x80000003},
		{"udiv", opUDiv, []uint32{minus, 2}, 0x7fffffff},
		{"sdiv", opSDiv, []uint32{minus - 8, minus - 1}, 4}, // -9 / -2
		{"umod", opUMod, []uint32{minus, 16}, 15},
		{"srem", opSRem, []uint32{7, minus - 2}, 1}, // 7 rem -3 has the sign of 7
		{"smod", opSMod, []uint32{minus - 6, 3}, 2}, // -7 mod 3 has the sign of 3
		{"smod same sign", opSMod, []uint32{7, 3}, 1},
		{"negate", opSNegate, []uint32{minus - 6}, 7},
		{"not", opNot, []uint32{minus - 6}, 6},
		{"shl", opShl, []uint32{3, 4}, 48},
		{"shr", opShrU, []uint32{minus, 28}, 15},
		{"sar", opShrS, []uint32{0x40000000, 28}, 4},
		{"sar of negative", opShrS, []uint32{minus, 3}, minus},
		{"or", opOr, []uint32{5, 3}, 7},
		{"and", opAnd, []uint32{5, 3}, 1},
		{"xor", opXor, []uint32{5, 3}, 6},
		{"uconvert", opUConvert, []uint32{5}, 5},
		{"sconvert", opSConvert, []uint32{5}, 5},
	} {
		if c.want >= 1<<20 { // too long for an array: check the upper 16 bits
			got, err := lengthOf(nil, []uint32{opConstant, u32, 8, c.x[0]}, []uint32{opConstant, u32, 9, last(c.x)},
				[]uint32{opSpecConstantOp, u32, 10, c.op, 8, 9}, []uint32{opConstant, u32, 11, 16},
				[]uint32{opSpecConstantOp, u32, 50, opShrU, 10, 11})
			require.NoError(t, err, c.name)
			assert.Equal(t, uint64(c.want>>16), got, c.name)
			continue
		}
		got, err := operands32(t, c.op, c.x...)
		require.NoError(t, err, c.name)
		assert.Equal(t, uint64(c.want), got, c.name)
	}
}

func last(x []uint32) uint32 { return x[len(x)-1] }

// TestComparisons selects 1 or 2 by each comparison of -1 (or the largest unsigned number), 1, and 1.
func TestComparisons(t *testing.T) {
	for _, c := range []struct {
		op                   uint32
		negative, same, more bool // of (-1, 1), (1, 1), (2, 1)
	}{
		{opIEq, false, true, false}, {opINe, true, false, true},
		{opUGt, true, false, true}, {opUGe, true, true, true}, {opULt, false, false, false}, {opULe, false, true, false},
		{opSGt, false, false, true}, {opSGe, false, true, true}, {opSLt, true, false, false}, {opSLe, true, true, false},
	} {
		for i, want := range []bool{c.negative, c.same, c.more} {
			got, err := lengthOf(nil, []uint32{opConstant, u32, 8, []uint32{^uint32(0), 1, 2}[i]},
				[]uint32{opConstant, u32, 9, 1}, []uint32{opSpecConstantOp, boolean, 10, c.op, 8, 9},
				[]uint32{opConstant, u32, 11, 1}, []uint32{opConstant, u32, 12, 2},
				[]uint32{opSpecConstantOp, u32, 50, opSelect, 10, 11, 12})
			require.NoError(t, err)
			assert.Equal(t, want, got == 1, "opcode %d, case %d", c.op, i)
		}
	}
}

func TestLogic(t *testing.T) {
	table := map[uint32][4]bool{ // of (0, 0), (0, 1), (1, 0), (1, 1)
		opLogEq: {true, false, false, true}, opLogNe: {false, true, true, false},
		opLogOr: {false, true, true, true}, opLogAnd: {false, false, false, true}, opLogNot: {true, true, false, false},
	}
	for op, wants := range table {
		for i, want := range wants {
			bools := [2]uint32{opConstantFalse, opSpecConstantTrue}
			in := []uint32{opSpecConstantOp, boolean, 10, op, 8, 9}
			if op == opLogNot {
				in = in[:5]
			}
			got, err := lengthOf(nil, []uint32{bools[i/2], boolean, 8}, []uint32{bools[i%2], boolean, 9}, in,
				[]uint32{opConstant, u32, 11, 1}, []uint32{opConstant, u32, 12, 2},
				[]uint32{opSpecConstantOp, u32, 50, opSelect, 10, 11, 12})
			require.NoError(t, err)
			assert.Equal(t, want, got == 1, "opcode %d, case %d", op, i)
		}
	}
}

// TestWidths checks sign extension between 8, 32 and 64 bits.
func TestWidths(t *testing.T) {
	byteType, longType := []uint32{opTypeInt, 10, 8, 1}, []uint32{opTypeInt, 11, 64, 1}
	got, err := lengthOf(nil, byteType, longType,
		[]uint32{opConstant, 10, 12, 0xfffffff6},             // int8 -10
		[]uint32{opSpecConstantOp, 11, 13, opSConvert, 12},   // int64 -10
		[]uint32{opConstant, 11, 14, 0xffffffff, 0xffffffff}, // int64 -1
		[]uint32{opSpecConstantOp, 11, 15, opIMul, 13, 14},   // 10
		[]uint32{opSpecConstantOp, u32, 50, opUConvert, 15})  // uint 10
	require.NoError(t, err)
	assert.Equal(t, uint64(10), got)

	got, err = lengthOf(nil, byteType, []uint32{opConstant, 10, 12, 0xfffffff6},
		[]uint32{opSpecConstantOp, u32, 50, opUConvert, 12}) // its 8 bits, without sign
	require.NoError(t, err)
	assert.Equal(t, uint64(246), got)
}

func TestVectors(t *testing.T) {
	got, err := lengthOf(nil, []uint32{opTypeVector, 10, u32, 2}, []uint32{opConstant, u32, 11, 5},
		[]uint32{opConstantComposite, 10, 12, three, 11},                  // (3, 5)
		[]uint32{opSpecConstantOp, 10, 13, opIMul, 12, 12},                // (9, 25)
		[]uint32{opSpecConstantOp, 10, 14, opVectorShuffle, 12, 13, 3, 0}, // (25, 3)
		[]uint32{opConstantNull, 10, 15},
		[]uint32{opSpecConstantOp, 10, 16, opIAdd, 14, 15}, // (25, 3)
		[]uint32{opSpecConstantOp, u32, 50, opCompositeExtract, 16, 0})
	require.NoError(t, err)
	assert.Equal(t, uint64(25), got)
}

func TestOperationErrors(t *testing.T) {
	const minus = ^uint32(0)
	for _, c := range []struct {
		name string
		op   uint32
		x    []uint32
		want string
	}{
		{"udiv by 0", opUDiv, []uint32{1, 0}, "divides 1 by 0"},
		{"smod by 0", opSMod, []uint32{1, 0}, "divides 1 by 0"},
		{"sdiv overflow", opSDiv, []uint32{0x80000000, minus}, "divides -2147483648 by -1"},
		{"shift", opShl, []uint32{1, 32}, "shifts 32 bits by 32"},
		{"too few", opIAdd, []uint32{1}, "opcode 128 and 1 operands"},
		{"too many", opIAdd, []uint32{1, 1, 1}, "opcode 128 and 3 operands"},
		{"unknown", 127, []uint32{1}, "opcode 127"},
	} {
		_, err := operands32(t, c.op, c.x...)
		assert.ErrorContains(t, err, c.want, c.name)
	}
	for _, c := range []struct {
		name, want string
		list       [][]uint32
	}{
		{"float", "on floats", [][]uint32{{opConstant, f32, 8, 1}, {opSpecConstantOp, f32, 50, opIAdd, 8, 8}}},
		{"unknown operand", "%8 is not a constant", [][]uint32{{opSpecConstantOp, u32, 50, opIAdd, 8, 8}}},
		{"component", "selects component 1 of 1", [][]uint32{{opSpecConstantOp, u32, 50, opCompositeExtract, three, 1}}},
		{"mixed sizes", "1 components, want 2",
			[][]uint32{{opTypeVector, 8, u32, 2}, {opSpecConstantOp, 8, 50, opIAdd, three, three}}},
		{"mixed widths", "operands of 32 and 64 bits", [][]uint32{{opTypeInt, 8, 64, 0}, {opConstant, 8, 9, 1, 0},
			{opSpecConstantOp, u32, 50, opIAdd, three, 9}}},
		{"composite of too many", "is not a scalar or vector",
			[][]uint32{{opTypeVector, 8, u32, 2}, {opConstantComposite, 8, 50, three, three, three}}},
		{"struct", "is not a scalar or vector", [][]uint32{{opTypeStruct, 8, u32}, {opConstantComposite, 8, 50, three}}},
	} {
		_, err := lengthOf(nil, c.list...)
		assert.ErrorContains(t, err, c.want, c.name)
	}
}

// TestUnneededConstant checks that an unsupported constant is not an error if no result depends on it.
func TestUnneededConstant(t *testing.T) {
	_, err := Reflect(module([]uint32{opConstant, f32, 8, 1}, []uint32{opSpecConstantOp, f32, 9, 127, 8},
		[]uint32{opTypeVector, 10, f32, 16}), nil)
	assert.NoError(t, err)
}

func TestSpec(t *testing.T) {
	number := [][]uint32{{opDecorate, 50, decSpecID, 4}, {opSpecConstant, u32, 50, 7}}
	for value, spec := range map[uint64]Spec{7: nil, 9: {4: 9}} {
		got, err := lengthOf(spec, number...)
		require.NoError(t, err)
		assert.Equal(t, value, got)
	}
	// Two constants may share an id.
	got, err := lengthOf(Spec{4: 5}, []uint32{opDecorate, 8, decSpecID, 4}, []uint32{opDecorate, 9, decSpecID, 4},
		[]uint32{opSpecConstant, u32, 8, 1}, []uint32{opSpecConstant, u32, 9, 2}, []uint32{opSpecConstantOp, u32, 50, opIMul, 8, 9})
	require.NoError(t, err)
	assert.Equal(t, uint64(25), got)
	// A bool is true for every value but 0.
	choice := [][]uint32{{opDecorate, 8, decSpecID, 4}, {opSpecConstantTrue, boolean, 8}, {opConstant, u32, 9, 1},
		{opSpecConstantOp, u32, 50, opSelect, 8, 9, three}}
	for value, want := range map[uint32]uint64{0: 3, 1: 1, 256: 1} {
		got, err := lengthOf(Spec{4: value}, choice...)
		require.NoError(t, err)
		assert.Equal(t, want, got)
	}
	_, err = lengthOf(Spec{4: 1}, []uint32{opTypeInt, 8, 64, 0}, []uint32{opDecorate, 50, decSpecID, 4},
		[]uint32{opSpecConstant, 8, 50, 1, 0})
	assert.ErrorContains(t, err, "specialisation constant 4 has 64 bits")
}

// TestLocalSizeSources checks that a WorkgroupSize constant overrides the execution mode, and that LocalSizeId works
// like LocalSize.
func TestLocalSizeSources(t *testing.T) {
	m, err := Reflect(module([]uint32{opDecorate, 9, decBuiltIn, builtInWorkgroupSize}, []uint32{opTypeVector, 8, u32, 3},
		[]uint32{opConstantComposite, 8, 9, three, three, three}), nil)
	require.NoError(t, err)
	assert.Equal(t, [3]uint32{3, 3, 3}, m.LocalSize)

	byID := func(z uint32) (Module, error) {
		return Reflect(assemble([]uint32{opEntryPoint, modelGLCompute, entry, 'a'},
			[]uint32{opExecutionModeID, entry, modeLocalSizeID, 8, 8, z}, []uint32{opTypeInt, u32, 32, 0},
			[]uint32{opConstant, u32, 8, 6}), nil)
	}
	m, err = byID(8)
	require.NoError(t, err)
	assert.Equal(t, [3]uint32{6, 6, 6}, m.LocalSize)
	_, err = byID(9)
	assert.ErrorContains(t, err, "LocalSizeId: %9 is not a constant")
}

func TestUnknownCapability(t *testing.T) {
	m, err := Reflect(module([]uint32{opCapability, 9999}), nil)
	require.NoError(t, err)
	assert.Equal(t, []string{"Shader", "Capability(9999)"}, m.Capabilities)
}
