package spirv

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// sharedOf declares a Workgroup variable of type id after list and returns SharedBytes.
func sharedOf(id uint32, list ...[]uint32) (uint64, error) {
	list = append(list, []uint32{opTypePointer, 901, classWorkgroup, id}, []uint32{opVariable, 901, 902, classWorkgroup})
	m, err := Reflect(module(list...), nil)
	return m.SharedBytes, err
}

func TestSharedSizes(t *testing.T) {
	vec3 := []uint32{opTypeVector, 10, f32, 3}
	for _, c := range []struct {
		name string
		want uint64
		list [][]uint32 // the last defines %20
	}{
		{"int64", 8, [][]uint32{{opTypeInt, 20, 64, 1}}},
		{"byte", 1, [][]uint32{{opTypeInt, 20, 8, 1}}},
		{"vec3", 12, [][]uint32{{opTypeVector, 20, f32, 3}}},
		{"bvec2", 8, [][]uint32{{opTypeVector, 20, boolean, 2}}},
		{"vec3[3]", 48, [][]uint32{vec3, {opTypeArray, 20, 10, three}}},
		{"mat2x3", 32, [][]uint32{vec3, {opTypeMatrix, 20, 10, 2}}},
		{"float[3][3]", 36, [][]uint32{{opTypeArray, 10, f32, three}, {opTypeArray, 20, 10, three}}},
		{"{vec3, float}", 16, [][]uint32{vec3, {opTypeStruct, 20, 10, f32}}},
		{"{float, vec3}", 32, [][]uint32{vec3, {opTypeStruct, 20, f32, 10}}},
		{"{float, vec3}[3]", 96, [][]uint32{vec3, {opTypeStruct, 11, f32, 10}, {opTypeArray, 20, 11, three}}},
		{"address", 8, [][]uint32{{opTypePointer, 20, classPhysicalBuffer, f32}}},
	} {
		got, err := sharedOf(20, c.list...)
		require.NoError(t, err, c.name)
		assert.Equal(t, c.want, got, c.name)
	}
}

func TestSharedErrors(t *testing.T) {
	big := []uint32{opConstant, u32, 10, 0xffffffff}
	for _, c := range []struct {
		name, want string
		list       [][]uint32 // the last defines %20
	}{
		{"unknown", "type %20 is not known", nil},
		{"cooperative matrix", "type %20 is not known", [][]uint32{{4456, 20, f32, three, three, three, three}}},
		{"runtime array", "has no size", [][]uint32{{opTypeRuntimeArray, 20, f32}}},
		{"logical pointer", "storage class 4 has no size", [][]uint32{{opTypePointer, 10, classWorkgroup, f32}, {opTypeStruct, 20, 10}}},
		{"five components", "a vector of 5", [][]uint32{{opTypeVector, 20, f32, 5}}},
		{"vector of vectors", "a vector of 2", [][]uint32{{opTypeVector, 10, f32, 2}, {opTypeVector, 20, 10, 2}}},
		{"matrix of scalars", "a matrix of 2", [][]uint32{{opTypeMatrix, 20, f32, 2}}},
		{"empty struct", "is empty", [][]uint32{{opTypeStruct, 20}}},
		{"length 0", "not a positive number", [][]uint32{{opConstantNull, u32, 10}, {opTypeArray, 20, f32, 10}}},
		{"length of a float", "is not an integer", [][]uint32{{opConstant, f32, 10, 1}, {opTypeArray, 20, f32, 10}}},
		{"unknown length", "%10 is not a constant", [][]uint32{{opTypeArray, 20, f32, 10}}},
		{"early length", "used before its definition", [][]uint32{{opTypeArray, 20, f32, 10}, {opConstant, u32, 10, 1}}},
		{"too long", "too large", [][]uint32{big, {opTypeArray, 11, f32, 10}, {opTypeArray, 20, 11, 10}}},
		{"too large a struct", "too large", [][]uint32{big, {opTypeArray, 11, f32, 10}, {opTypeArray, 12, 11, three},
			{opTypeArray, 13, 12, three}, {opTypeArray, 14, 13, three}, {opTypeStruct, 20, 14, 14, 14}}},
		{"recursion", "used before its definition", [][]uint32{{opTypeStruct, 20, 20}}},
		{"announced as a struct", "used before its definition", [][]uint32{{opTypeForwardPointer, 20, classPhysicalBuffer}, {opTypeStruct, 20, f32}}},
		{"announced otherwise", "used before its definition", [][]uint32{{opTypeForwardPointer, 20, classPhysicalBuffer},
			{opTypePointer, 20, classWorkgroup, f32}}},
	} {
		_, err := sharedOf(20, c.list...)
		assert.ErrorContains(t, err, c.want, c.name)
	}
	_, err := Reflect(module([]uint32{opVariable, u32, 10, classWorkgroup}), nil)
	assert.ErrorContains(t, err, "its type %3 is not a pointer to storage class 4")
	_, err = Reflect(module([]uint32{opUntypedVariable, u32, 10, classWorkgroup}), nil)
	assert.ErrorContains(t, err, "untyped variable")
}

// TestPadding compares the bound with the worst order of a few variables. It must not be less, and exact where marked.
func TestPadding(t *testing.T) {
	scalar, vec2, vec3, vec4 := typ{size: 4, align: 4}, typ{size: 8, align: 8}, typ{size: 12, align: 16}, typ{size: 16, align: 16}
	byte1, row3, row4 := typ{size: 1, align: 1}, typ{size: 12, align: 4}, typ{size: 4096, align: 4}
	for _, c := range []struct {
		name  string
		list  []typ
		exact bool
	}{
		{"one", []typ{vec3}, true},
		{"scalars", []typ{scalar, row3, row4}, true},
		{"32 KiB", []typ{row4, vec4, row4}, true},
		{"vec3", []typ{vec3, vec3, vec3}, true},
		{"one scalar", []typ{scalar, vec4, vec4, vec4}, true},
		{"one vec4", []typ{scalar, scalar, scalar, vec4}, true},
		{"mixed", []typ{scalar, vec2, vec4, scalar}, false},
		{"row of 3", []typ{row3, vec4}, false},
		{"bytes", []typ{byte1, vec2, byte1, vec4, scalar}, false},
	} {
		var list []*typ
		for i := range c.list {
			list = append(list, &c.list[i])
		}
		worst := worstOrder(list, 0, 0)
		if got := padding(list); c.exact {
			assert.Equal(t, worst, got, c.name)
		} else {
			assert.GreaterOrEqual(t, got, worst, c.name)
			assert.Less(t, got, uint64(16*len(list)), c.name)
		}
	}
}

func worstOrder(left []*typ, offset, gaps uint64) uint64 {
	worst := gaps
	for i, v := range left {
		rest := append(append([]*typ(nil), left[:i]...), left[i+1:]...)
		start := alignUp(offset, v.align)
		worst = max(worst, worstOrder(rest, start+v.size, gaps+start-offset))
	}
	return worst
}

func TestSharedBlocks(t *testing.T) {
	a := [][]uint32{{opDecorate, 10, decBlock}, {opTypeStruct, 10, f32}, {opTypePointer, 11, classWorkgroup, 10},
		{opVariable, 11, 12, classWorkgroup}}
	_, err := Reflect(module(a...), nil)
	assert.ErrorContains(t, err, "a block without a full layout")
	a = append(a, []uint32{opMemberDecorate, 10, 0, decOffset, 8})
	m, err := Reflect(module(a...), nil)
	require.NoError(t, err)
	assert.Equal(t, uint64(12), m.SharedBytes)
	_, err = Reflect(module(append(a, sharedArray(three)...)...), nil)
	assert.ErrorContains(t, err, "1 of 2 Workgroup variables are blocks, want all or none")
}

func TestPushErrors(t *testing.T) {
	variable := [][]uint32{{opTypePointer, 901, classPushConstant, 20}, {opVariable, 901, 902, classPushConstant}}
	block := func(offset uint32) [][]uint32 {
		return [][]uint32{{opTypeStruct, 20, f32}, {opMemberDecorate, 20, 0, decOffset, offset}}
	}
	for _, c := range []struct {
		name, want string
		list       [][]uint32
	}{
		{"no struct", "not a struct with offsets", [][]uint32{{opTypeFloat, 20, 32}}},
		{"no offset", "not a struct with offsets", [][]uint32{{opTypeStruct, 20, f32}}},
		{"bool", "not a struct with offsets", [][]uint32{{opTypeStruct, 20, boolean}, {opMemberDecorate, 20, 0, decOffset, 0}}},
		{"no stride", "not a struct with offsets",
			[][]uint32{{opTypeArray, 10, f32, three}, {opTypeStruct, 20, 10}, {opMemberDecorate, 20, 0, decOffset, 0}}},
		{"far", "the push-constant block has 4294967299 bytes", block(0xffffffff)},
		{"two", "a second push-constant block", append(block(0), []uint32{opTypePointer, 903, classPushConstant, 20},
			[]uint32{opVariable, 903, 904, classPushConstant})},
	} {
		_, err := Reflect(module(append(c.list, variable...)...), nil)
		assert.ErrorContains(t, err, c.want, c.name)
	}
}
