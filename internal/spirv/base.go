package spirv

import (
	"encoding/binary"
	"fmt"
	"slices"
)

// BaseBytes is the size of the push constants that [WithBase] adds.
const BaseBytes = 12

const (
	opLoad, opAccessChain, opInBoundsAccessChain = 61, 65, 66
	opFunction, opCompositeConstruct             = 54, 80
	builtInWorkgroupID                           = 26
)

// WithBase returns a module that computes a part of a grid of workgroups: WorkgroupId is increased by three uints, which follow
// the push constants, at offset pushBytes. vkCmdDispatchBase is meant for that, but a driver was met that ignores the base:
// NVIDIA 580.159.04 on an H200. The module is one that [Reflect] accepts, and has push constants.
func WithBase(code []byte, pushBytes uint32) ([]byte, error) { return withBase(code, pushBytes, nil) }

// WithFixedBase is WithBase with a constant base, for devices without room for more push constants.
func WithFixedBase(code []byte, base [3]uint32) ([]byte, error) { return withBase(code, 0, &base) }

func withBase(code []byte, pushBytes uint32, fixed *[3]uint32) ([]byte, error) {
	words := make([]uint32, len(code)/4)
	for i := range words {
		words[i] = binary.LittleEndian.Uint32(code[4*i:])
	}
	b := baseWriter{bound: words[3], offset: pushBytes, fixed: fixed, constants: map[uint32]uint32{}, components: map[uint32]uint32{}}
	each := func(f func(op uint32, in []uint32) error) error {
		for at := 5; at < len(words); at += int(words[at] >> 16) {
			if err := f(words[at]&0xffff, words[at:at+int(words[at]>>16)]); err != nil {
				return fmt.Errorf("spirv: WithBase: word %d: %w", at, err)
			}
		}
		return nil
	}
	if err := each(b.find); err != nil {
		return nil, err
	}
	if b.workgroupID == 0 {
		return code, nil // every workgroup does the same
	}
	if fixed == nil && b.members == 0 || b.uintType == 0 || b.vectorType == 0 {
		return nil, fmt.Errorf("spirv: WithBase: no push constants, or no type of WorkgroupId")
	}
	b.out = slices.Clone(words[:5])
	if err := each(b.write); err != nil {
		return nil, err
	}
	b.out[3] = b.bound
	result := make([]byte, 0, 4*len(b.out))
	for _, w := range b.out {
		result = binary.LittleEndian.AppendUint32(result, w)
	}
	return result, nil
}

// baseWriter is the state of WithBase. find reads all instructions, then write copies them.
type baseWriter struct {
	bound, offset uint32
	fixed         *[3]uint32 // the base, if it is constant
	annotations   int        // instructions of decorations
	types         [][]uint32

	workgroupID, push, pushStruct uint32            // variables, and the type of push
	members                       uint32            // of pushStruct
	uintType, vectorType          uint32            // uint, uvec3
	constants                     map[uint32]uint32 // values of 32-bit constants
	components                    map[uint32]uint32 // of WorkgroupId, by the id of a pointer

	pointer uint32    // type of a pointer to a uint of push
	indices [3]uint32 // of the new members, or the base if it is constant
	begun   bool      // the functions have begun
	out     []uint32
}

func (b *baseWriter) find(op uint32, in []uint32) error {
	switch op {
	case opDecorate:
		if len(in) == 4 && in[2] == decBuiltIn && in[3] == builtInWorkgroupID {
			b.workgroupID = in[1]
		}
		b.annotations++
	case opMemberDecorate:
		b.annotations++
	case opTypeInt:
		if in[2] == 32 && in[3] == 0 {
			b.uintType = in[1]
		}
	case opTypeVector:
		if in[2] == b.uintType && in[3] == 3 {
			b.vectorType = in[1]
		}
	case opTypePointer, opTypeStruct:
		b.types = append(b.types, in)
	case opConstant:
		if len(in) == 4 {
			b.constants[in[2]] = in[3]
		}
	case opVariable:
		if in[3] != classPushConstant {
			return nil
		}
		b.push = in[2]
		for _, t := range b.types {
			if t[0]&0xffff == opTypePointer && t[1] == in[1] {
				b.pushStruct = t[3]
			}
		}
		for _, t := range b.types {
			if t[0]&0xffff == opTypeStruct && t[1] == b.pushStruct {
				b.members = uint32(len(t) - 2)
			}
		}
	}
	return nil
}

func (b *baseWriter) id() uint32 {
	b.bound++
	return b.bound - 1
}

func (b *baseWriter) emit(op uint32, args ...uint32) {
	b.out = append(append(b.out, op|uint32(len(args)+1)<<16), args...)
}

func (b *baseWriter) write(op uint32, in []uint32) error {
	switch op {
	case opDecorate, opMemberDecorate:
		b.out = append(b.out, in...)
		if b.annotations--; b.annotations == 0 && b.fixed == nil {
			for i := range uint32(3) {
				b.emit(opMemberDecorate, b.pushStruct, b.members+i, decOffset, b.offset+4*i)
			}
		}
		return nil
	case opTypeStruct:
		if in[1] == b.pushStruct && b.fixed == nil {
			b.emit(opTypeStruct, append(slices.Clone(in[1:]), b.uintType, b.uintType, b.uintType)...)
			return nil
		}
	case opFunction:
		if !b.begun {
			b.begin()
		}
	case opAccessChain, opInBoundsAccessChain:
		if in[3] == b.workgroupID {
			component, ok := b.constants[in[len(in)-1]]
			if !ok || len(in) != 5 || component > 2 {
				return fmt.Errorf("a component of WorkgroupId is not constant")
			}
			b.components[in[2]] = component
		}
	case opLoad:
		component, one := b.components[in[3]]
		if !one && in[3] != b.workgroupID {
			break
		}
		id := b.id()
		b.emit(opLoad, append([]uint32{in[1], id}, in[3:]...)...)
		var base uint32
		if one {
			base = b.load(component)
		} else {
			x, y, z := b.load(0), b.load(1), b.load(2)
			base = b.id()
			b.emit(opCompositeConstruct, b.vectorType, base, x, y, z)
		}
		b.emit(opIAdd, in[1], in[2], id, base)
		return nil
	}
	b.out = append(b.out, in...)
	return nil
}

// begin emits the types and constants of load.
func (b *baseWriter) begin() {
	b.begun = true
	values := [3]uint32{b.members, b.members + 1, b.members + 2}
	if b.fixed != nil {
		values = *b.fixed
	} else {
		b.pointer = b.id()
		b.emit(opTypePointer, b.pointer, classPushConstant, b.uintType)
	}
	for i, v := range values {
		b.indices[i] = b.id()
		b.emit(opConstant, b.uintType, b.indices[i], v)
	}
}

// load returns a component of the base.
func (b *baseWriter) load(component uint32) uint32 {
	if b.fixed != nil {
		return b.indices[component]
	}
	pointer, value := b.id(), b.id()
	b.emit(opAccessChain, b.pointer, pointer, b.push, b.indices[component])
	b.emit(opLoad, b.uintType, value, pointer)
	return value
}
