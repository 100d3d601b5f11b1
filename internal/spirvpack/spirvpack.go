// Package spirvpack compresses many similar SPIR-V modules into one file. The variants of a kernel differ little, and so do
// kernels that share includes, but the numbers of ids differ everywhere, so a general compressor finds few repetitions. This
// one predicts each instruction from an earlier one, of any module, that came after the same opcodes: the ids of that module
// are replaced by those that stood at their places in this one. Only what was not predicted is written, sorted into columns:
// opcodes, lengths, types, results, and the operands of each opcode by position. An id is written as its distance to the
// result of its instruction, or to the id before it in its column, where that is shorter. The columns are then compressed
// with DEFLATE. Unpack restores every bit.
package spirvpack

import (
	"bytes"
	"cmp"
	"compress/flate"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Codes of the numbers in a column. Numbers are varints, except where whole words are shorter: in text.
const (
	absolute = iota
	toResult // distance to the result of the instruction
	toBefore // distance to the number before
	words    // 4 bytes each
	codes
)

const (
	header    = 5        // words of a module before its instructions
	bound     = 3        // the word of the header that is larger than all ids
	maxUnpack = 64 << 20 // bytes of all columns
)

// shape says which operands an instruction starts with.
type shape int

const (
	typeAndResult shape = iota
	resultOnly
	noResult
)

// shapes has the opcodes that do not start with a type and a result. What is missing here is only compressed less.
var shapes = func() map[uint32]shape {
	m := map[uint32]shape{}
	for _, op := range []uint32{
		1, 3, 4, 5, 6, 7, 8, 10, 14, 15, 16, 17, 56, 62, 63, 64, 71, 72, // debug, modes, OpFunctionEnd, stores, decorations
		224, 225, 227, 228, 234, 246, 247, 249, 250, 251, 252, 253, 254, 255, 317, 331, 4458, // barriers, control flow, matrix stores
	} {
		m[op] = noResult
	}
	for _, op := range []uint32{11, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 248, 4456} { // imports, types, labels
		m[op] = resultOnly
	}
	return m
}()

// literals has, by opcode, bit i if word i of the instruction is a number or text and no id. What is missing here is only
// compressed less.
var literals = func() map[uint32]uint32 {
	m := map[uint32]uint32{
		opTypePointer: 1 << 2, opExtInst: 1 << 4, opSpecConstantOp: 1 << 3, opFunction: 1 << 3, opSelectionMerge: 1 << 2,
		opLoopMerge: 1 << 3,
	}
	for op, first := range map[uint32]int{ // the first word of those that are all literals
		opName: 2, opMemberName: 2, opExtInstImport: 2, opMemoryModel: 1, opExecutionMode: 2, opCapability: 1,
		opDecorate: 2, opMemberDecorate: 2, opTypeInt: 2, opTypeFloat: 2, opTypeVector: 3, opConstant: 3, opSpecConstant: 3,
		opVariable: 3, opLoad: 4, opStore: 3, opVectorShuffle: 5, opCompositeExtract: 4, opCompositeInsert: 5,
	} {
		m[op] = ^uint32(0) << first
	}
	return m
}()

const (
	opName             = 5
	opMemberName       = 6
	opExtInstImport    = 11
	opExtInst          = 12
	opMemoryModel      = 14
	opExecutionMode    = 16
	opCapability       = 17
	opTypeInt          = 21
	opTypeFloat        = 22
	opTypeVector       = 23
	opTypePointer      = 32
	opConstant         = 43
	opSpecConstant     = 50
	opSpecConstantOp   = 52
	opFunction         = 54
	opVariable         = 59
	opLoad             = 61
	opStore            = 62
	opDecorate         = 71
	opMemberDecorate   = 72
	opVectorShuffle    = 79
	opCompositeExtract = 81
	opCompositeInsert  = 82
	opPhi              = 245
	opLoopMerge        = 246
	opSelectionMerge   = 247
	positions          = 4 // columns of the operands of an opcode
)

// position is the column of operand i: text has one column, and so has each half of the pairs of OpPhi.
func position(op uint32, i int) int {
	switch op {
	case opName, opMemberName:
		return min(i, 1)
	case opPhi:
		return i & 1
	}
	return min(i, positions-1)
}

// Pack returns the modules, by name, in one file. A module that is no sequence of SPIR-V instructions is an error.
func Pack(modules map[string][]byte) ([]byte, error) {
	c := newCoder(nil)
	names := slices.SortedFunc(maps.Keys(modules), besideSimilar)
	out := binary.AppendUvarint(nil, uint64(len(names)))
	for _, name := range names {
		out = append(binary.AppendUvarint(out, uint64(len(name))), name...)
		data := modules[name]
		if len(data)%4 != 0 || len(data) < 4*header {
			return nil, fmt.Errorf("spirvpack: module %s has %d bytes, want whole words, at least %d", name, len(data), header)
		}
		code := make([]uint32, len(data)/4)
		for i := range code {
			code[i] = binary.LittleEndian.Uint32(data[4*i:])
		}
		if _, err := c.module(code); err != nil {
			return nil, fmt.Errorf("spirvpack: module %s has %w", name, err)
		}
	}
	c.end()
	out = binary.AppendUvarint(out, uint64(len(c.columns)))
	d := newDeflater()
	for _, col := range c.columns {
		code, data := col.shortest(d)
		out = append(binary.AppendUvarint(append(out, code), uint64(len(data))), data...)
	}
	return d.deflate(out), nil
}

// besideSimilar sorts names so that modules with almost the same code are near each other, because DEFLATE looks 32 KB back:
// the 16-bit types of a kernel, and kernels that differ in the first word, such as window_attention and patch_attention.
func besideSimilar(a, b string) int {
	stem := func(s string) string {
		first, rest, _ := strings.Cut(strings.TrimSuffix(strings.TrimSuffix(s, "_bf16"), "_f16"), "_")
		return rest + " " + first
	}
	return cmp.Or(strings.Compare(stem(a), stem(b)), strings.Compare(a, b))
}

// deflater is a compressor for many columns: a new one for each would take a megabyte.
type deflater struct{ w *flate.Writer }

func newDeflater() deflater {
	w, err := flate.NewWriter(nil, flate.BestCompression)
	if err != nil {
		panic(err) // of a level that does not exist
	}
	return deflater{w}
}

func (d deflater) deflate(data []byte) []byte {
	var out bytes.Buffer
	d.w.Reset(&out)
	d.w.Write(data) // a bytes.Buffer does not fail
	d.w.Close()
	return out.Bytes()
}

// shortest returns the code that compresses best, and the column in it.
func (c *column) shortest(compressor deflater) (code byte, data []byte) {
	least := -1
	for k := range byte(codes) {
		var d []byte
		before := uint32(0)
		for i, v := range c.values {
			switch k {
			case absolute:
				d = binary.AppendUvarint(d, uint64(v))
			case toResult:
				d = binary.AppendUvarint(d, uint64(fold(c.results[i]-v)))
			case toBefore:
				d = binary.AppendUvarint(d, uint64(fold(v-before)))
			case words:
				d = binary.LittleEndian.AppendUint32(d, v)
			}
			before = v
		}
		if n := len(compressor.deflate(d)); least < 0 || n < least {
			least, code, data = n, k, d
		}
	}
	return code, data
}

// fold makes small numbers of distances in both directions.
func fold(x uint32) uint32   { return x<<1 ^ uint32(int32(x)>>31) }
func unfold(x uint32) uint32 { return x>>1 ^ -(x & 1) }
