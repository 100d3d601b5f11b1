package spirv

import (
	"fmt"
	"math"
)

// constant is a scalar or a vector: one word per component, truncated to its width. err is the reason why the value is
// unknown. It is returned only if the value is needed.
type constant struct {
	scalar *typ
	words  []uint64
	err    error
}

func (r *reader) addConstant(in *instruction) error {
	t, id, rest := r.typeOf(in.args[0]), in.args[1], in.args[2:]
	if r.constants[id] != nil || r.types[id] != nil {
		return fmt.Errorf("%%%d is defined twice", id)
	}
	c := &constant{scalar: t}
	r.constants[id] = c
	if t.op == opTypeVector {
		c.scalar = r.typeOf(t.elem)
	}
	var wrong bool
	switch op := in.op; op {
	case opConstantTrue, opConstantFalse, opSpecConstantTrue, opSpecConstantFalse:
		c.words, wrong = []uint64{0}, t.op != opTypeBool
		if op == opConstantTrue || op == opSpecConstantTrue {
			c.words[0] = 1
		}
	case opConstant, opSpecConstant:
		wrong = t.op != opTypeInt && t.op != opTypeFloat || len(rest) != int(t.width+31)/32
		c.words = []uint64{uint64(rest[0])}
		if len(rest) == 2 {
			c.words[0] |= uint64(rest[1]) << 32
		}
	case opConstantNull:
		c.words = make([]uint64, t.count())
	case opConstantComposite, opSpecConstantComposite:
		for _, part := range rest {
			if c.err == nil {
				var words []uint64
				words, c.err = r.value(part)
				c.words = append(c.words, words...)
			}
		}
	case opSpecConstantOp:
		c.words, c.err = r.operate(t, c.scalar, rest[0], rest[1:])
	}
	if wrong {
		return fmt.Errorf("constant %%%d does not fit its type %%%d", id, in.args[0])
	}
	if n := t.count(); c.err == nil && (n == 0 || len(c.words) != n) {
		c.err = fmt.Errorf("constant %%%d is not a scalar or vector", id)
	}
	if in.op >= opSpecConstantTrue && in.op <= opSpecConstant {
		r.specs[id] = true
		if key, ok := r.decorated(target{id: id}, decSpecID); ok {
			return r.specialise(c, key)
		}
	}
	for i := range c.words {
		c.words[i] = truncate(c.words[i], c.scalar.width)
	}
	return nil
}

// specialise replaces the default of a scalar specialisation constant by the value of spec, if there is one.
func (r *reader) specialise(c *constant, key uint32) error {
	value, ok := r.spec[key]
	switch {
	case !ok:
		c.words[0] = truncate(c.words[0], c.scalar.width)
	case c.scalar.op == opTypeBool:
		c.words[0] = flag(value != 0)
	case c.scalar.width != 32:
		return fmt.Errorf("specialisation constant %d has %d bits, want 32", key, c.scalar.width)
	default:
		c.words[0] = uint64(value)
	}
	return nil
}

// value returns the components of a constant.
func (r *reader) value(id uint32) ([]uint64, error) {
	c := r.constants[id]
	if c == nil {
		return nil, fmt.Errorf("%%%d is not a constant, or is used before its definition", id)
	}
	return c.words, c.err
}

// integer returns an integer constant, scalar or vector.
func (r *reader) integer(id uint32) (*constant, error) {
	if _, err := r.value(id); err != nil {
		return nil, err
	}
	c := r.constants[id]
	if c.scalar.op != opTypeInt {
		return nil, fmt.Errorf("constant %%%d is not an integer", id)
	}
	return c, nil
}

// operate evaluates OpSpecConstantOp for result type t, component by component.
func (r *reader) operate(t, scalar *typ, op uint32, args []uint32) ([]uint64, error) {
	arity, known := arities[op]
	if !known || len(args) < arity || len(args) > arity && op != opVectorShuffle && op != opCompositeExtract {
		return nil, fmt.Errorf("OpSpecConstantOp with opcode %d and %d operands is not supported", op, len(args))
	}
	from := make([]*constant, arity)
	for i := range from {
		if _, err := r.value(args[i]); err != nil {
			return nil, err
		}
		from[i] = r.constants[args[i]]
		if k := from[i].scalar.op; k != opTypeInt && k != opTypeBool || scalar.op != opTypeInt && scalar.op != opTypeBool {
			return nil, fmt.Errorf("OpSpecConstantOp with opcode %d on floats is not supported", op)
		}
	}
	if op == opVectorShuffle || op == opCompositeExtract {
		return shuffle(from, args[arity:])
	}
	words := make([]uint64, t.count())
	for i := range words {
		var x [3]uint64
		for j, c := range from {
			switch {
			case len(c.words) == len(words):
				x[j] = c.words[i]
			case op == opSelect && j == 0 && len(c.words) == 1:
				x[j] = c.words[0]
			default:
				return nil, fmt.Errorf("OpSpecConstantOp with opcode %d: %d components, want %d", op, len(c.words), len(words))
			}
		}
		last := from[arity-1].scalar.width
		if first := from[0].scalar.width; op != opSelect && first != last && op != opShl && op != opShrU && op != opShrS {
			return nil, fmt.Errorf("OpSpecConstantOp with opcode %d: operands of %d and %d bits", op, first, last)
		}
		var err error
		if words[i], err = apply(op, x, from[0].scalar.width); err != nil {
			return nil, err
		}
	}
	return words, nil
}

// shuffle returns components of the concatenated operands by index.
func shuffle(from []*constant, index []uint32) (words []uint64, err error) {
	var all []uint64
	for _, c := range from {
		all = append(all, c.words...)
	}
	for _, i := range index {
		if uint64(i) >= uint64(len(all)) {
			return nil, fmt.Errorf("OpSpecConstantOp selects component %d of %d", i, len(all))
		}
		words = append(words, all[i])
	}
	return words, nil
}

const (
	opVectorShuffle, opCompositeExtract, opUConvert, opSConvert = 79, 81, 113, 114
	opSNegate, opIAdd, opISub, opIMul                           = 126, 128, 130, 132
	opUDiv, opSDiv, opUMod, opSRem, opSMod                      = 134, 135, 137, 138, 139
	opLogEq, opLogNe, opLogOr, opLogAnd, opLogNot, opSelect     = 164, 165, 166, 167, 168, 169
	opIEq, opINe, opUGt, opSGt, opUGe, opSGe                    = 170, 171, 172, 173, 174, 175
	opULt, opSLt, opULe, opSLe                                  = 176, 177, 178, 179
	opShrU, opShrS, opShl, opOr, opXor, opAnd, opNot            = 194, 195, 196, 197, 198, 199, 200
)

// arities is the number of constant operands of each operation. Literal operands may follow them.
var arities = map[uint32]int{
	opVectorShuffle: 2, opCompositeExtract: 1, opUConvert: 1, opSConvert: 1, opSNegate: 1, opIAdd: 2, opISub: 2,
	opIMul: 2, opUDiv: 2, opSDiv: 2, opUMod: 2, opSRem: 2, opSMod: 2, opLogEq: 2, opLogNe: 2, opLogOr: 2, opLogAnd: 2,
	opLogNot: 1, opSelect: 3, opIEq: 2, opINe: 2, opUGt: 2, opSGt: 2, opUGe: 2, opSGe: 2, opULt: 2, opSLt: 2, opULe: 2,
	opSLe: 2, opShrU: 2, opShrS: 2, opShl: 2, opOr: 2, opXor: 2, opAnd: 2, opNot: 1,
}

// apply evaluates one operation on operands of the given width. The caller truncates the result to its width.
// Operations that the specification leaves undefined are errors.
func apply(op uint32, x [3]uint64, width uint32) (uint64, error) {
	a, b := x[0], x[1]
	s, u := extend(a, width), extend(b, width)
	switch op {
	case opUDiv, opSDiv, opUMod, opSRem, opSMod:
		if b == 0 || op != opUDiv && op != opUMod && u == -1 && s == math.MinInt64>>(64-width) {
			return 0, fmt.Errorf("a specialised expression divides %d by %d", s, u)
		}
	case opShl, opShrU, opShrS:
		if b >= uint64(width) {
			return 0, fmt.Errorf("a specialised expression shifts %d bits by %d", width, b)
		}
	}
	switch op {
	case opUConvert:
		return a, nil
	case opSConvert:
		return uint64(s), nil
	case opSNegate:
		return -a, nil
	case opNot:
		return ^a, nil
	case opIAdd:
		return a + b, nil
	case opISub:
		return a - b, nil
	case opIMul:
		return a * b, nil
	case opUDiv:
		return a / b, nil
	case opUMod:
		return a % b, nil
	case opSDiv:
		return uint64(s / u), nil
	case opSRem:
		return uint64(s % u), nil
	case opSMod: // the result has the sign of the divisor
		if m := s % u; m != 0 && (m < 0) != (u < 0) {
			return uint64(m + u), nil
		}
		return uint64(s % u), nil
	case opShl:
		return a << b, nil
	case opShrU:
		return a >> b, nil
	case opShrS:
		return uint64(s >> b), nil
	case opOr, opLogOr:
		return a | b, nil
	case opAnd, opLogAnd:
		return a & b, nil
	case opXor:
		return a ^ b, nil
	case opSelect:
		if a != 0 {
			return b, nil
		}
		return x[2], nil
	case opLogNot:
		return flag(a == 0), nil
	case opLogEq, opIEq:
		return flag(a == b), nil
	case opLogNe, opINe:
		return flag(a != b), nil
	case opUGt:
		return flag(a > b), nil
	case opUGe:
		return flag(a >= b), nil
	case opULt:
		return flag(a < b), nil
	case opULe:
		return flag(a <= b), nil
	case opSGt:
		return flag(s > u), nil
	case opSGe:
		return flag(s >= u), nil
	case opSLt:
		return flag(s < u), nil
	case opSLe:
		return flag(s <= u), nil
	}
	return 0, fmt.Errorf("OpSpecConstantOp with opcode %d is not supported", op)
}

func flag(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}

// truncate keeps the low bits of v; extend sign-extends them.
func truncate(v uint64, width uint32) uint64 { return v << (64 - width) >> (64 - width) }
func extend(v uint64, width uint32) int64    { return int64(v<<(64-width)) >> (64 - width) }
