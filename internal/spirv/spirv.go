// Package spirv reflects compute shaders: workgroup size, shared memory, push constants, capabilities and
// specialisation constants.
//
//	m, err := spirv.Reflect(code, spirv.Spec{0: 256, 1: 64})
//	if err != nil {
//		return err
//	}
//	if m.SharedBytes > limits.MaxComputeSharedMemorySize {
//		return fmt.Errorf("%d bytes of shared memory, the device has %d", m.SharedBytes, limits.MaxComputeSharedMemorySize)
//	}
//
// Vulkan drivers do not validate these limits: a pipeline with too much shared memory may be created without an error,
// and lose the device when it runs.
//
// The package supports the output of glslc. An unsupported construct is an error if a result depends on it, and is
// ignored otherwise. Of function bodies only the products of cooperative matrices are read, whether they are reached or
// not. The package does not replace spirv-val.
//
// Source: SPIR-V specification 1.6, The Khronos Group.
package spirv

import (
	"fmt"
	"maps"
	"slices"
)

// Spec maps ids of specialisation constants to values. Integers and floats are raw bits; for a bool every value but 0
// is true, as in Vulkan. Other constants keep their defaults.
type Spec map[uint32]uint32

// Module is the result of [Reflect].
type Module struct {
	EntryPoint string    // name of the only entry point
	LocalSize  [3]uint32 // invocations in a workgroup; never 0, the product may overflow

	// SharedBytes is an upper bound of the size of all Workgroup variables: sizes by the std430 rules, a bool having 4
	// bytes, plus the padding of the worst order, because Vulkan lets the driver choose the order. Variables with an
	// explicit layout alias each other, so their bound is the size of the largest. The memory that a device reserves
	// for cooperative matrices of workgroup scope is not included.
	SharedBytes uint64

	PushBytes    uint32   // size of the push-constant block, 0 if there is none
	PushMembers  []Member // in the order of declaration
	Capabilities []string // names of the specification, "Capability(NNNN)" for unknown ones
	Extensions   []string // SPIR-V extensions, e.g. SPV_KHR_cooperative_matrix
	SpecIDs      []uint32 // ids of all specialisation constants, ascending, without duplicates

	MatrixProducts []MatrixProduct // of cooperative matrices, without duplicates
}

// Member is a member of the push-constant block. Offset and Size are in bytes; a buffer address has 8 bytes.
type Member struct {
	Name         string // empty if names are stripped, as by glslc -O
	Offset, Size uint32
}

// Reflect reflects the module in code, specialised by spec.
//
// It returns an error if the module is malformed, does not have exactly one GLCompute entry point, or has a local size
// of 0; if spec has an id that the module does not declare or that is not 32 bits wide; or if a size overflows or
// depends on an unsupported construct.
func Reflect(code []byte, spec Spec) (Module, error) {
	m, err := reflect(code, spec)
	if err != nil {
		return Module{}, fmt.Errorf("spirv: %w", err)
	}
	return m, nil
}

// reader is the state of Reflect. It needs no recursion: sizes and values are known when a type or constant is read,
// because in SPIR-V only pointers can be used before their definition.
type reader struct {
	Module
	spec        Spec
	entry       uint32 // id of the entry point, 0 before it is read
	mode        *instruction
	names       map[target]string
	decorations map[decoration]uint32
	sizeID      uint32 // id of the constant decorated as WorkgroupSize, 0 for none
	types       map[uint32]*typ
	constants   map[uint32]*constant
	forward     map[uint32]uint32  // storage classes of forward-declared pointers
	early       map[uint32]bool    // types used before their definition
	specs       map[uint32]bool    // scalar specialisation constants, by result id
	matrices    map[uint32]*matrix // cooperative matrix types
	values      map[uint32]uint32  // types of results that are cooperative matrices
	products    []*instruction
	shared      []*typ
	blocks      int // number of shared variables with an explicit layout
	push        *typ
	pushID      uint32 // id of that type
}

// target is the target of a decoration or name: an id (member 0), or member member-1 of the struct with that id.
type target struct{ id, member uint32 }

type decoration struct {
	target
	kind uint32
}

func reflect(code []byte, spec Spec) (Module, error) {
	list, err := decode(code)
	if err != nil {
		return Module{}, err
	}
	r := &reader{
		spec: spec, names: map[target]string{}, decorations: map[decoration]uint32{}, types: map[uint32]*typ{},
		constants: map[uint32]*constant{}, forward: map[uint32]uint32{}, early: map[uint32]bool{}, specs: map[uint32]bool{},
		matrices: map[uint32]*matrix{}, values: map[uint32]uint32{},
	}
	for _, pass := range []func(*instruction) error{r.annotate, r.declare} {
		for i := range list {
			if err := pass(&list[i]); err != nil {
				return Module{}, fmt.Errorf("word %d: %w", list[i].word, err)
			}
		}
	}
	for _, step := range []func() error{r.checkSpec, r.setLocalSize, r.setShared, r.setPush, r.setProducts} {
		if err := step(); err != nil {
			return Module{}, err
		}
	}
	return r.Module, nil
}

// annotate reads names, decorations, execution modes, capabilities and the entry point. They may refer to ids defined
// later.
func (r *reader) annotate(in *instruction) error {
	a := in.args
	switch in.op {
	case opCapability:
		name, ok := capabilities[a[0]]
		if !ok {
			name = fmt.Sprintf("Capability(%d)", a[0])
		}
		r.Capabilities = append(r.Capabilities, name)
	case opExtension:
		r.Extensions = append(r.Extensions, in.text)
	case opEntryPoint:
		if a[0] != modelGLCompute {
			return fmt.Errorf("entry point %q has execution model %d, want GLCompute", in.text, a[0])
		}
		if r.entry != 0 {
			return fmt.Errorf("several entry points, %q and %q", r.EntryPoint, in.text)
		}
		r.entry, r.EntryPoint = a[1], in.text
	case opExecutionMode, opExecutionModeID:
		if m := a[1]; m == modeLocalSize && in.op == opExecutionMode || m == modeLocalSizeID && in.op == opExecutionModeID {
			switch {
			case r.mode != nil:
				return fmt.Errorf("a second local size (execution mode %d), want one", m)
			case len(a) != 5:
				return fmt.Errorf("execution mode %d has %d components, want 3", m, len(a)-2)
			case a[0] != r.entry:
				return fmt.Errorf("execution mode %d is not of the entry point", m)
			}
			r.mode = in
		}
	case opName:
		r.names[target{id: a[0]}] = in.text
	case opMemberName:
		r.names[target{a[0], a[1] + 1}] = in.text
	case opDecorate:
		return r.decorate(target{id: a[0]}, a[1:])
	case opMemberDecorate:
		return r.decorate(target{a[0], a[1] + 1}, a[2:])
	case opDecorationGroup, opGroupDecorate, opGroupMemberDecorate:
		return fmt.Errorf("decoration groups (opcode %d) are not supported", in.op)
	}
	return nil
}

func (r *reader) decorate(at target, a []uint32) error {
	var value uint32
	switch a[0] {
	case decSpecID, decArrayStride, decMatrixStride, decOffset, decBuiltIn:
		if len(a) != 2 {
			return fmt.Errorf("decoration %d of %%%d has %d operands, want 1", a[0], at.id, len(a)-1)
		}
		value = a[1]
	case decBlock, decRowMajor:
	default:
		return nil
	}
	key := decoration{at, a[0]}
	if old, ok := r.decorations[key]; ok && old != value {
		return fmt.Errorf("decoration %d of %%%d is both %d and %d", a[0], at.id, old, value)
	}
	r.decorations[key] = value
	if a[0] == decBuiltIn && value == builtInWorkgroupSize {
		if r.sizeID != 0 && r.sizeID != at.id {
			return fmt.Errorf("%%%d and %%%d are both WorkgroupSize", r.sizeID, at.id)
		}
		r.sizeID = at.id
	}
	return nil
}

func (r *reader) decorated(at target, kind uint32) (value uint32, ok bool) {
	value, ok = r.decorations[decoration{at, kind}]
	return value, ok
}

// declare reads types, constants and variables in order, and the types of matrices.
func (r *reader) declare(in *instruction) error {
	a := in.args
	if len(a) >= 2 && r.matrices[a[0]] != nil && in.op != opTypeCooperativeMatrix {
		r.values[a[1]] = a[0]
	}
	switch {
	case in.op == opTypeCooperativeMatrix:
		r.addMatrixType(in)
		return nil
	case in.op == opCooperativeMatrixMulAdd:
		r.products = append(r.products, in)
		return nil
	case in.op == opTypeForwardPointer:
		r.forward[a[0]] = a[1]
		return nil
	case isType(in.op):
		return r.addType(in)
	case isConstant(in.op):
		return r.addConstant(in)
	case in.op == opUntypedVariable && (a[2] == classWorkgroup || a[2] == classPushConstant):
		return fmt.Errorf("%%%d is an untyped variable: not supported in storage class %d", a[1], a[2])
	case in.op != opVariable || a[2] != classWorkgroup && a[2] != classPushConstant:
		return nil
	}
	p := r.types[a[0]]
	if p == nil || p.op != opTypePointer || p.class != a[2] {
		return fmt.Errorf("variable %%%d: its type %%%d is not a pointer to storage class %d", a[1], a[0], a[2])
	}
	t := r.typeOf(p.elem)
	if t.err != nil {
		return fmt.Errorf("variable %%%d %q: %w", a[1], r.names[target{id: a[1]}], t.err)
	}
	if a[2] == classPushConstant {
		if r.push != nil {
			return fmt.Errorf("a second push-constant block (%%%d), want one", a[1])
		}
		if t.op != opTypeStruct || !t.explicit {
			return fmt.Errorf("push constant %%%d is not a struct with offsets", a[1])
		}
		r.push, r.pushID = t, p.elem
		return nil
	}
	r.shared = append(r.shared, t)
	if _, ok := r.decorated(target{id: p.elem}, decBlock); ok {
		r.blocks++
	}
	return nil
}

// checkSpec sets SpecIDs. Two constants may share an id: glslc emits one for local_size_x_id and another one for a
// constant_id with the same value.
func (r *reader) checkSpec() error {
	ids := map[uint32]bool{}
	for d, id := range r.decorations {
		if d.kind != decSpecID {
			continue
		}
		if d.member != 0 || !r.specs[d.id] {
			return fmt.Errorf("specialisation id %d does not decorate a scalar specialisation constant", id)
		}
		ids[id] = true
	}
	r.SpecIDs = slices.Sorted(maps.Keys(ids))
	for _, id := range slices.Sorted(maps.Keys(r.spec)) {
		if !ids[id] {
			return fmt.Errorf("specialisation constant %d does not exist, the module has %d", id, r.SpecIDs)
		}
	}
	return nil
}

// setLocalSize sets LocalSize from the WorkgroupSize constant if there is one, because it overrides the execution mode.
func (r *reader) setLocalSize() error {
	if r.entry == 0 {
		return fmt.Errorf("no GLCompute entry point")
	}
	var size []uint64
	switch {
	case r.sizeID != 0:
		c, err := r.integer(r.sizeID)
		if err != nil {
			return fmt.Errorf("WorkgroupSize: %w", err)
		}
		size = c.words
	case r.mode == nil:
		return fmt.Errorf("entry point %q has no local size", r.EntryPoint)
	default:
		for _, word := range r.mode.args[2:] {
			if r.mode.op == opExecutionModeID {
				c, err := r.integer(word)
				if err != nil {
					return fmt.Errorf("LocalSizeId: %w", err)
				}
				size = append(size, c.words...)
				continue
			}
			size = append(size, uint64(word))
		}
	}
	if len(size) != 3 {
		return fmt.Errorf("the local size has %d components, want 3", len(size))
	}
	for i, n := range size {
		if n == 0 || n > 1<<32-1 {
			return fmt.Errorf("the local size is %d, want 1 to 2^32-1 each", size)
		}
		r.LocalSize[i] = uint32(n)
	}
	return nil
}
