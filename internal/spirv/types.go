package spirv

import (
	"fmt"
	"math/bits"
	"slices"
)

// typ is a type. Sizes are in bytes.
type typ struct {
	op     uint32 // 0 for an unsupported type
	width  uint32 // bits of a scalar, 1 for a bool
	length uint64 // elements of a vector, matrix or array; 0 if unknown
	elem   uint32 // element type, or pointee type of a pointer
	class  uint32 // storage class of a pointer

	encoding uint32 // of a float: 0 IEEE 754, otherwise FPEncoding + 1

	members  []uint32 // of a struct
	explicit bool     // decorations give a complete layout
	end      uint64   // size of the explicit layout
	size     uint64   // by the std430 rules, without decorations
	align    uint64
	err      error // reason why the size is unknown
}

// count is the number of components of a constant of this type, 0 if it is neither a scalar nor a vector.
func (t *typ) count() int {
	switch t.op {
	case opTypeBool, opTypeInt, opTypeFloat:
		return 1
	case opTypeVector:
		return int(t.length)
	}
	return 0
}

// typeOf returns a type. An unknown type, or one that is not defined yet, has an error instead of a size.
func (r *reader) typeOf(id uint32) *typ {
	if t := r.types[id]; t != nil {
		return t
	}
	if class, ok := r.forward[id]; ok {
		return newPointer(class, 0)
	}
	r.early[id] = true
	return &typ{err: fmt.Errorf("type %%%d is not known, or is used before its definition", id)}
}

// newPointer returns a pointer type. Only a pointer to device memory (PhysicalStorageBuffer) has a size.
func newPointer(class, elem uint32) *typ {
	t := &typ{op: opTypePointer, class: class, elem: elem, explicit: true, end: 8, size: 8, align: 8}
	if class != classPhysicalBuffer {
		t.err = fmt.Errorf("a pointer to storage class %d has no size", class)
	}
	return t
}

func (r *reader) addType(in *instruction) error {
	id, a := in.args[0], in.args[1:]
	if r.types[id] != nil || r.constants[id] != nil {
		return fmt.Errorf("%%%d is defined twice", id)
	}
	class, forward := r.forward[id]
	if r.early[id] || forward && (in.op != opTypePointer || a[0] != class) {
		return fmt.Errorf("type %%%d is used before its definition", id)
	}
	t := &typ{op: in.op}
	switch in.op {
	case opTypeBool:
		*t = typ{op: in.op, width: 1, size: 4, align: 4}
	case opTypeInt, opTypeFloat:
		if w := a[0]; w != 8 && w != 16 && w != 32 && w != 64 {
			return fmt.Errorf("type %%%d has %d bits, want 8, 16, 32 or 64", id, w)
		}
		bytes := uint64(a[0] / 8)
		*t = typ{op: in.op, width: a[0], explicit: true, end: bytes, size: bytes, align: bytes}
		if in.op == opTypeFloat && len(a) > 1 {
			t.encoding = a[1] + 1
		}
	case opTypeVector:
		r.addVector(t, a[0], uint64(a[1]))
	case opTypeMatrix:
		r.addMatrix(t, a[0], uint64(a[1]))
	case opTypeArray:
		r.addArray(t, id, a[0], a[1])
	case opTypeRuntimeArray:
		t.err = fmt.Errorf("runtime array %%%d has no size", id)
	case opTypeStruct:
		r.addStruct(t, id, a)
	case opTypePointer:
		t = newPointer(a[0], a[1])
	}
	r.types[id] = t
	return nil
}

func (r *reader) addVector(t *typ, elem uint32, n uint64) {
	e := r.typeOf(elem)
	if t.err = e.err; t.err != nil {
		return
	}
	if e.count() != 1 || n < 2 || n > 4 {
		t.err = fmt.Errorf("a vector of %d %%%d is not supported", n, elem)
		return
	}
	t.elem, t.length, t.size, t.align = elem, n, n*e.size, (n+n&1)*e.size
	t.explicit, t.end = e.explicit, t.size
}

func (r *reader) addMatrix(t *typ, elem uint32, n uint64) {
	column := r.typeOf(elem)
	if t.err = column.err; t.err != nil {
		return
	}
	if column.op != opTypeVector || n < 2 || n > 4 {
		t.err = fmt.Errorf("a matrix of %d %%%d is not supported", n, elem)
		return
	}
	// The layout of a matrix is decorated on the member of the enclosing struct: see end.
	t.elem, t.length, t.align = elem, n, column.align
	t.size = n * t.align
}

func (r *reader) addArray(t *typ, id, elem, length uint32) {
	e := r.typeOf(elem)
	if t.err = e.err; t.err != nil {
		return
	}
	c, err := r.integer(length)
	if err != nil || len(c.words) != 1 || c.words[0] == 0 {
		t.err = fmt.Errorf("the length of array %%%d is not a positive number", id)
		if err != nil {
			t.err = fmt.Errorf("the length of array %%%d: %w", id, err)
		}
		return
	}
	t.elem, t.length, t.align = elem, c.words[0], e.align
	var ok bool
	if t.size, ok = product(t.length, alignUp(e.size, e.align)); !ok {
		t.err = fmt.Errorf("array %%%d of %d times %d bytes is too large", id, t.length, e.size)
		return
	}
	if _, known := r.decorated(target{id: id}, decArrayStride); known && e.explicit {
		t.end, t.explicit = r.arrayEnd(id, t, e.end)
	}
}

// arrayEnd returns the end of an array whose elements have an explicit size of last.
func (r *reader) arrayEnd(id uint32, t *typ, last uint64) (uint64, bool) {
	stride, known := r.decorated(target{id: id}, decArrayStride)
	end, ok := product(t.length-1, uint64(stride))
	return end + last, known && ok
}

func (r *reader) addStruct(t *typ, id uint32, members []uint32) {
	t.members, t.explicit, t.align = members, true, 1
	for i, m := range members {
		e := r.typeOf(m)
		if t.err = e.err; t.err != nil {
			return
		}
		t.align = max(t.align, e.align)
		t.size = alignUp(t.size, e.align) + e.size
		if t.size > maxSize {
			t.err = fmt.Errorf("struct %%%d is too large", id)
			return
		}
		offset, known := r.decorated(target{id, uint32(i) + 1}, decOffset)
		end, ok := r.end(target{id, uint32(i) + 1}, m)
		t.explicit = t.explicit && known && ok
		t.end = max(t.end, uint64(offset)+end)
	}
	t.size = alignUp(t.size, t.align)
	if len(members) == 0 {
		t.err = fmt.Errorf("struct %%%d is empty", id)
	}
}

// end returns the size of a struct member of type id by its decorations and those of its type; false if they are
// incomplete.
func (r *reader) end(at target, id uint32) (uint64, bool) {
	t := r.types[id]
	if t == nil { // a forward-declared pointer
		return r.typeOf(id).end, true
	}
	// Stride and order of a matrix, or of an array of matrices, are decorated on the member.
	arrays := []uint32{}
	inner := t
	for inner.op == opTypeArray {
		arrays, id = append(arrays, id), inner.elem
		inner = r.types[id]
	}
	if inner == nil || inner.op != opTypeMatrix {
		return t.end, t.explicit
	}
	stride, known := r.decorated(at, decMatrixStride)
	column := r.types[inner.elem]
	rows, scalar := column.length, r.types[column.elem]
	end := uint64(stride)*(inner.length-1) + column.size
	if _, rowMajor := r.decorated(at, decRowMajor); rowMajor {
		end = uint64(stride)*(rows-1) + inner.length*scalar.size
	}
	known = known && scalar.explicit
	for i := len(arrays) - 1; i >= 0 && known; i-- {
		end, known = r.arrayEnd(arrays[i], r.types[arrays[i]], end)
	}
	return end, known
}

// setShared sets SharedBytes.
func (r *reader) setShared() error {
	if r.blocks != 0 && r.blocks != len(r.shared) {
		return fmt.Errorf("%d of %d Workgroup variables are blocks, want all or none", r.blocks, len(r.shared))
	}
	for i, t := range r.shared {
		switch {
		case r.blocks == 0:
			r.SharedBytes += t.size
		case !t.explicit:
			return fmt.Errorf("variable %d of storage class Workgroup is a block without a full layout", i)
		default:
			r.SharedBytes = max(r.SharedBytes, t.end)
		}
		if r.SharedBytes > maxSize {
			return fmt.Errorf("the Workgroup variables are too large")
		}
	}
	if r.blocks == 0 && len(r.shared) > 0 {
		r.SharedBytes += padding(r.shared)
	}
	return nil
}

// padding returns an upper bound of the padding between variables in any order. It is the smaller of two bounds:
//
//   - The gap before a variable is less than its alignment; the first variable has none.
//   - The gap after a variable is at most the distance from its end to a multiple of the largest alignment; the last one has none.
//
// A power of two that divides all sizes divides all offsets too, which tightens both bounds.
func padding(list []*typ) uint64 {
	common, coarsest := uint64(maxSize), uint64(0)
	for _, t := range list {
		common, coarsest = min(common, powerOfTwoIn(t.size)), max(coarsest, t.align)
	}
	var before, after []uint64
	for _, t := range list {
		before = append(before, t.align-min(t.align, common))
		start := min(coarsest, max(t.align, common)) // offsets of t are multiples of start
		end := t.size % start
		if end == 0 {
			end = start
		}
		after = append(after, coarsest-end)
	}
	return min(sumWithoutMin(before), sumWithoutMin(after))
}

func sumWithoutMin(list []uint64) (sum uint64) {
	for _, v := range list {
		sum += v
	}
	return sum - slices.Min(list)
}

// powerOfTwoIn is the largest power of two that divides n.
func powerOfTwoIn(n uint64) uint64 { return n & -n }

// setPush lists the members of the push-constant block.
func (r *reader) setPush() error {
	if r.push == nil {
		return nil
	}
	if r.push.end > 1<<32-1 {
		return fmt.Errorf("the push-constant block has %d bytes", r.push.end)
	}
	r.PushBytes = uint32(r.push.end)
	for i, m := range r.push.members {
		at := target{r.pushID, uint32(i) + 1}
		offset, _ := r.decorated(at, decOffset)
		size, _ := r.end(at, m)
		r.PushMembers = append(r.PushMembers, Member{Name: r.names[at], Offset: offset, Size: uint32(size)})
	}
	return nil
}

// maxSize limits sizes so that sums cannot overflow. No device has that much shared memory.
const maxSize = 1 << 40

func product(a, b uint64) (uint64, bool) {
	hi, lo := bits.Mul64(a, b)
	return lo, hi == 0 && lo <= maxSize
}

func alignUp(n, align uint64) uint64 { return (n + align - 1) / align * align }
