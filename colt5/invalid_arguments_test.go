package colt5

import (
	"fmt"
	"slices"

	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// argument is one tensor argument of a module, for tests that replace it by an invalid one.
type argument struct {
	name     string
	want     string // what an error says is wanted
	shape    []int  // a valid shape
	free     []int  // dimensions of any size
	dtypes   []DType
	required bool
	of       func(c *testCall) **Tensor
}

// testCall is a call with all arguments that the module takes.
type testCall struct {
	y *Tensor
	callArgs
}

// arguments lists the tensor arguments of a module for a batch of two items.
func (s moduleCase) arguments() []argument {
	f32 := func(shape []int) string { return F32.String() + shapeString(shape) }
	u8 := func(shape ...int) string { return U8.String() + shapeString(shape) }
	x, y := append([]int{2}, s.x...), append([]int{2}, s.y...)
	list := []argument{
		{"x", "f32[* * 8]", x, []int{0, 1}, []DType{F32}, true, func(c *testCall) **Tensor { return &c.x }},
		{"y", f32(y), y, nil, []DType{F32}, true, func(c *testCall) **Tensor { return &c.y }},
	}
	switch {
	case s.vocabulary > 0:
		list[0].want, list[0].dtypes = "i32[* *] or u8[* *]", []DType{I32, U8}
	case s.name == "image":
		list[0].want, list[0].free = "f32[* 8 * *]", []int{0, 2, 3}
	case s.name == "vit":
		list[0].want, list[0].free = "f32[* 3 16 24]", []int{0}
	}
	if s.masked {
		list = append(list, argument{"Mask", u8(2, s.x[0]), []int{2, s.x[0]}, nil, []DType{U8}, false, func(c *testCall) **Tensor { return &c.mask }})
	}
	if s.context != nil {
		shape := append([]int{2}, s.context...)
		list = append(list,
			argument{"context", "f32[2 * 8]", shape, []int{1}, []DType{F32}, true, func(c *testCall) **Tensor { return &c.context }},
			argument{"ContextMask", u8(shape[:2]...), shape[:2], nil, []DType{U8}, false, func(c *testCall) **Tensor { return &c.contextMask }})
	}
	return list
}

// invalidTensors returns tensors that are not valid for an argument.
func (fx *fixture) invalidTensors(a argument) []*Tensor {
	var list []*Tensor
	for _, dtype := range []DType{F32, I32, U8} {
		if !slices.Contains(a.dtypes, dtype) {
			list = append(list, fx.tensor(dtype, a.shape...))
		}
	}
	dtype := a.dtypes[0]
	list = append(list, fx.tensor(dtype, append(slices.Clone(a.shape), 1)...), fx.tensor(dtype, a.shape[1:]...))
	for i := range a.shape {
		if slices.Contains(a.free, i) {
			continue
		}
		for _, change := range []int{-1, 1} {
			shape := slices.Clone(a.shape)
			shape[i] += change
			list = append(list, fx.tensor(dtype, shape...))
		}
	}
	list = append(list, &Tensor{})
	if a.required {
		list = append(list, nil)
	}
	return list
}

// checkInvalidArguments: for each argument, an error about a nil tensor, a wrong type, rank or size names the
// operation, the argument, what it was and what was wanted. The call does not run, and the module stays usable.
func checkInvalidArguments(fx *fixture, s moduleCase) {
	t := fx.t
	other, err := vk.Open(vk.Options{CacheDir: "-"})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, other.Close()) })
	v := s.randomInput(1, 2, true)
	want := fx.run(s, 2, v)
	lists := fx.dev.Stats().CommandLists
	y, in := fx.upload(s, 2, v)
	for _, a := range s.arguments() {
		replace := func(x *Tensor) error {
			c := testCall{y, in}
			*a.of(&c) = x
			return s.forward(t.Context(), c.y, c.callArgs)
		}
		message := fmt.Sprintf("colt5: %s.Forward: %s is ", typeName(s.module), a.name)
		for _, x := range fx.invalidTensors(a) {
			assert.ErrorContains(t, replace(x), fmt.Sprintf("%s%v, want %s", message, x, a.want))
		}
		dtype := a.dtypes[len(a.dtypes)-1]
		x, err := NewTensor(other, dtype, a.shape...)
		require.NoError(t, err)
		assert.ErrorContains(t, replace(x), message+"on another device")
		require.NoError(t, x.Close())
		closed, err := NewTensor(fx.dev, dtype, a.shape...)
		require.NoError(t, err)
		require.NoError(t, closed.Close())
		assert.ErrorIs(t, replace(closed), vk.ErrClosed, "%s is closed", a.name)
	}
	if in.x.dtype == F32 && in.x.Len() == y.Len() {
		assert.ErrorContains(t, s.forward(t.Context(), in.x, in), "overlapping", "y is x")
	}
	assert.Equal(t, lists, fx.dev.Stats().CommandLists, "invalid calls record no plan")
	assert.True(t, sameBits(want, fx.run(s, 2, v)), "the module stays usable")
}
