package spirv

import (
	"encoding/binary"
	"fmt"
	"strings"
)

// The opcodes and enumerants that this package reads.
const (
	opName, opMemberName, opExtension, opEntryPoint        = 5, 6, 10, 15
	opExecutionMode, opCapability, opExecutionModeID       = 16, 17, 331
	opTypeBool, opTypeInt, opTypeFloat, opTypeVector       = 20, 21, 22, 23
	opTypeMatrix, opTypeArray, opTypeRuntimeArray          = 24, 28, 29
	opTypeStruct, opTypePointer, opTypeForwardPointer      = 30, 32, 39
	opConstantTrue, opConstantFalse, opConstant            = 41, 42, 43
	opConstantComposite, opConstantNull                    = 44, 46
	opSpecConstantTrue, opSpecConstantFalse                = 48, 49
	opSpecConstant, opSpecConstantComposite                = 50, 51
	opSpecConstantOp, opVariable, opUntypedVariable        = 52, 59, 4418
	opDecorate, opMemberDecorate                           = 71, 72
	opDecorationGroup, opGroupDecorate                     = 73, 74
	opGroupMemberDecorate                                  = 75
	modelGLCompute, modeLocalSize, modeLocalSizeID         = 5, 17, 38
	classWorkgroup, classPushConstant, classPhysicalBuffer = 4, 9, 5349
	decSpecID, decBlock, decRowMajor, decArrayStride       = 1, 2, 4, 6
	decMatrixStride, decBuiltIn, decOffset                 = 7, 11, 35
	builtInWorkgroupSize                                   = 25
	opTypeCooperativeMatrix, opCooperativeMatrixMulAdd     = 4456, 4459
)

// operands describes the operands of each opcode: i id, w word, s string, I and W any number of ids or words.
var operands = map[uint32]string{
	opName: "is", opMemberName: "iws", opExtension: "s", opEntryPoint: "wisI", opExecutionMode: "iwW", opCapability: "w",
	opExecutionModeID: "iwI", opTypeBool: "i", opTypeInt: "iww", opTypeFloat: "iwW", opTypeVector: "iiw",
	opTypeMatrix: "iiw", opTypeArray: "iii", opTypeRuntimeArray: "ii", opTypeStruct: "iI", opTypePointer: "iwi",
	opTypeForwardPointer: "iw", opConstantTrue: "ii", opConstantFalse: "ii", opConstant: "iiwW",
	opConstantComposite: "iiI", opConstantNull: "ii", opSpecConstantTrue: "ii", opSpecConstantFalse: "ii",
	opSpecConstant: "iiwW", opSpecConstantComposite: "iiI", opSpecConstantOp: "iiwW", opVariable: "iiwI",
	opUntypedVariable: "iiwI", opDecorate: "iwW", opMemberDecorate: "iwwW",
	opTypeCooperativeMatrix: "iiiiii", opCooperativeMatrixMulAdd: "iiiiiW",
}

func isType(op uint32) bool {
	return op >= opTypeBool && op <= opTypePointer && operands[op] != ""
}

func isConstant(op uint32) bool {
	return op >= opConstantTrue && op <= opSpecConstantOp && operands[op] != ""
}

type instruction struct {
	op   uint32
	args []uint32 // operands before the string, or all if there is none
	text string   // the string operand
	word int      // offset in words, for errors
}

// decode splits code into instructions and validates their operands. It drops instructions whose opcode is not in
// operands, unless their result is a cooperative matrix.
func decode(code []byte) ([]instruction, error) {
	const magic, maxBound = 0x07230203, 1 << 22
	if len(code)%4 != 0 || len(code) < 20 {
		return nil, fmt.Errorf("%d bytes, want a multiple of 4 and a header of 20", len(code))
	}
	words := make([]uint32, len(code)/4)
	for i := range words {
		words[i] = binary.LittleEndian.Uint32(code[4*i:])
	}
	version, bound := words[1], words[3]
	switch {
	case words[0] == 0x03022307:
		return nil, fmt.Errorf("the module is big-endian, want little-endian")
	case words[0] != magic:
		return nil, fmt.Errorf("magic number %#08x, want %#08x", words[0], magic)
	case version < 0x10000 || version > 0x10600 || version&0xff != 0:
		return nil, fmt.Errorf("version word %#x, want SPIR-V 1.0 to 1.6", version)
	case bound == 0 || bound > maxBound || words[4] != 0:
		return nil, fmt.Errorf("id bound %d and schema %d, want 1 to %d and 0", bound, words[4], maxBound)
	}
	var list []instruction
	matrices := map[uint32]bool{} // ids of the cooperative matrix types
	for at := 5; at < len(words); {
		op, count := words[at]&0xffff, int(words[at]>>16)
		if count == 0 || count > len(words)-at {
			return nil, fmt.Errorf("word %d: opcode %d has %d words, only %d are left", at, op, count, len(words)-at)
		}
		in := instruction{op: op, args: words[at+1 : at+count], word: at}
		if form := operands[op]; form != "" {
			if err := in.check(form, bound); err != nil {
				return nil, fmt.Errorf("word %d: opcode %d: %w", at, op, err)
			}
			list = append(list, in)
			if op == opTypeCooperativeMatrix {
				matrices[in.args[0]] = true
			}
		} else if op >= opDecorationGroup && op <= opGroupMemberDecorate || count > 2 && matrices[in.args[0]] {
			// A type is the first operand only of instructions with a result of that type.
			list = append(list, in)
		}
		at += count
	}
	return list, nil
}

// check validates the operands against form and sets args and text.
func (in *instruction) check(form string, bound uint32) error {
	args := in.args
	for i := 0; i < len(form); i++ {
		kind := form[i]
		if kind == 'I' || kind == 'W' { // repeat for the remaining operands
			if len(args) == 0 {
				return nil
			}
			kind, i = kind|0x20, i-1
		}
		if len(args) == 0 {
			required := len(form) - i - strings.Count(form[i:], "I") - strings.Count(form[i:], "W")
			return fmt.Errorf("%d operands, want at least %d", len(in.args), len(in.args)+required)
		}
		switch kind {
		case 'i':
			if args[0] == 0 || args[0] >= bound {
				return fmt.Errorf("id is %d, want 1 to %d", args[0], bound-1)
			}
		case 's':
			n := 0
			if in.text, n = text(args); n == 0 {
				return fmt.Errorf("string is not terminated")
			}
			in.args = in.args[:len(in.args)-len(args)]
			args = args[n-1:]
		}
		args = args[1:]
	}
	if len(args) != 0 {
		return fmt.Errorf("%d extra operands", len(args))
	}
	return nil
}

// text decodes a zero-terminated string. It also returns the number of words, 0 if the string is not terminated.
func text(words []uint32) (string, int) {
	var b []byte
	for i, w := range words {
		for ; w != 0 && len(b) < 4*i+4; w >>= 8 {
			if b = append(b, byte(w)); w&0xff == 0 {
				return string(b[:len(b)-1]), i + 1
			}
		}
		if len(b) < 4*i+4 {
			return string(b), i + 1
		}
	}
	return "", 0
}
