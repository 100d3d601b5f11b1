package spirv

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestWithBase: the kernels of the library with a base have the properties of those without, and more push constants. Package vk
// tests what they compute.
func TestWithBase(t *testing.T) {
	files, err := filepath.Glob("../../shaders/src/spv/*.spv")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	var single []string // kernels of one workgroup, which do not read its number
	for _, file := range files {
		code, err := os.ReadFile(file)
		require.NoError(t, err)
		want, err := Reflect(code, nil)
		if err != nil {
			continue // its constants have no defaults that pass
		}
		based, err := WithBase(code, want.PushBytes)
		require.NoError(t, err, file)
		if len(based) == len(code) {
			single = append(single, filepath.Base(file))
			continue
		}
		got, err := Reflect(based, nil)
		require.NoError(t, err, file)
		n := len(want.PushMembers)
		assert.Equal(t, []Member{{"", want.PushBytes, 4}, {"", want.PushBytes + 4, 4}, {"", want.PushBytes + 8, 4}}, got.PushMembers[n:], file)
		fixed, err := WithFixedBase(code, [3]uint32{1, 2, 3})
		require.NoError(t, err, file)
		same, err := Reflect(fixed, nil)
		require.NoError(t, err, file)
		assert.Equal(t, want, same, file)
		got.PushMembers = got.PushMembers[:n]
		want.PushBytes += BaseBytes
		assert.Equal(t, want, got, file)
	}
	assert.Equal(t, []string{"gradient_norm_sum.spv", "optimizer_state.spv"}, single)
}

// baseModule is a shader with a push constant, whose function has the given instructions. %1 is WorkgroupId, %2 a variable of push
// constants, %3 uint, %4 uvec3, %5 uint 1.
func baseModule(body ...[]uint32) []byte {
	words := []uint32{0x07230203, 0x10000, 0, 20, 0}
	for _, in := range append([][]uint32{
		{opDecorate, 1, decBuiltIn, builtInWorkgroupID},
		{opTypeInt, 3, 32, 0}, {opTypeVector, 4, 3, 3}, {opTypeStruct, 6, 3}, {opTypePointer, 7, classPushConstant, 6},
		{opTypePointer, 8, 1, 4}, {opTypePointer, 9, 1, 3}, {opConstant, 3, 5, 1},
		{opVariable, 8, 1, 1}, {opVariable, 7, 2, classPushConstant}, {opFunction, 10, 11, 0, 12},
	}, body...) {
		words = append(words, in[0]|uint32(len(in))<<16)
		words = append(words, in[1:]...)
	}
	var code []byte
	for _, w := range words {
		code = binary.LittleEndian.AppendUint32(code, w)
	}
	return code
}

// TestWithBaseLoads: WorkgroupId is read whole or by a component.
func TestWithBaseLoads(t *testing.T) {
	code := baseModule([]uint32{opLoad, 4, 13, 1}, []uint32{opAccessChain, 9, 14, 1, 5}, []uint32{opLoad, 3, 15, 14})
	based, err := WithBase(code, 4)
	require.NoError(t, err)
	const pointer, x, y, z = 20, 21, 22, 23 // of push constants; the indices of the members
	assert.Equal(t, [][]uint32{
		{opFunction, 10, 11, 0, 12},
		{opLoad, 4, 24, 1},
		{opAccessChain, pointer, 25, 2, x}, {opLoad, 3, 26, 25},
		{opAccessChain, pointer, 27, 2, y}, {opLoad, 3, 28, 27},
		{opAccessChain, pointer, 29, 2, z}, {opLoad, 3, 30, 29},
		{opCompositeConstruct, 4, 31, 26, 28, 30},
		{opIAdd, 4, 13, 24, 31},
		{opAccessChain, 9, 14, 1, 5},
		{opLoad, 3, 32, 14},
		{opAccessChain, pointer, 33, 2, y}, {opLoad, 3, 34, 33},
		{opIAdd, 3, 15, 32, 34},
	}, bodyOf(based))
	fixed, err := WithFixedBase(code, [3]uint32{7, 8, 9})
	require.NoError(t, err)
	assert.Equal(t, [][]uint32{
		{opFunction, 10, 11, 0, 12},
		{opLoad, 4, 23, 1}, {opCompositeConstruct, 4, 24, 20, 21, 22}, {opIAdd, 4, 13, 23, 24},
		{opAccessChain, 9, 14, 1, 5}, {opLoad, 3, 25, 14}, {opIAdd, 3, 15, 25, 21},
	}, bodyOf(fixed))
}

// bodyOf is the instructions of a module from its first function on.
func bodyOf(code []byte) (found [][]uint32) {
	for at, in := 20, false; at < len(code); {
		size := int(binary.LittleEndian.Uint32(code[at:]) >> 16)
		var words []uint32
		for i := range size {
			words = append(words, binary.LittleEndian.Uint32(code[at+4*i:]))
		}
		words[0] &= 0xffff
		if in = in || words[0] == opFunction; in {
			found = append(found, words)
		}
		at += 4 * size
	}
	return found
}

func TestWithBaseErrors(t *testing.T) {
	_, err := WithBase(baseModule([]uint32{opAccessChain, 9, 14, 1, 13}), 4)
	assert.ErrorContains(t, err, "spirv: WithBase: word 49: a component of WorkgroupId is not constant")
	none := []uint32{0x07230203, 0x10000, 0, 20, 0, opDecorate | 4<<16, 1, decBuiltIn, builtInWorkgroupID}
	var code []byte
	for _, w := range none {
		code = binary.LittleEndian.AppendUint32(code, w)
	}
	_, err = WithBase(code, 0)
	assert.ErrorContains(t, err, "no push constants")
	code, err = WithBase(code[:20], 0)
	require.NoError(t, err)
	assert.Len(t, code, 20, "a module without WorkgroupId stays as it is")
}
