// Package spirvpack compresses many similar SPIR-V modules into one file. The variants of a kernel differ little, and so do
// kernels that share includes, but the numbers of ids differ everywhere, so a general compressor finds few repetitions. This
// one sorts the words of all instructions into columns: opcodes, lengths, types, results, and the operands of each opcode by
// position. An id is written as its distance to the result of its instruction, or to the id before it in its column, where
// that is shorter. The columns are then compressed with DEFLATE. Unpack restores every bit.
package spirvpack

import (
	"bytes"
	"cmp"
	"compress/flate"
	"encoding/binary"
	"errors"
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

const (
	opName       = 5
	opMemberName = 6
	opPhi        = 245
	positions    = 4 // columns of the operands of an opcode
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

// column is a sequence of numbers. Columns are numbered in the order of their first use, which reading and writing share.
type column struct {
	values  []uint32
	results []uint32 // writing: the result of the instruction of each number
	code    byte     // reading
	read    int      // how many numbers have been read
}

// operation has the columns of an opcode.
type operation struct {
	shape                shape
	length, kind, result *column
	operands             [positions]*column
}

// coder passes every number of every module to number, in the same order for reading and writing.
type coder struct {
	reading    bool
	columns    []*column // those used so far, or, for reading, those that are left
	count      *column   // words of a module
	head       [header]*column
	opcode     *column
	operations []*operation // by opcode
	err        error        // the first one of reading
}

func newCoder(columns []*column) *coder {
	return &coder{reading: columns != nil, columns: columns, operations: make([]*operation, 1<<16)}
}

// number appends a value to a column, or reads the next one.
func (c *coder) number(at **column, value, result uint32) uint32 {
	col := *at
	if col == nil {
		if !c.reading {
			col = &column{}
			c.columns = append(c.columns, col)
		} else if len(c.columns) > 0 {
			col, c.columns = c.columns[0], c.columns[1:]
		} else {
			c.err = errors.New("a column is missing")
			return 0
		}
		*at = col
	}
	if !c.reading {
		col.values, col.results = append(col.values, value), append(col.results, result)
		return value
	}
	if col.read == len(col.values) {
		c.err = errors.New("a column ends early")
		return 0
	}
	value = col.values[col.read]
	col.read++
	if col.code == toResult {
		return result - value
	}
	return value
}

// module codes a module: nil for reading.
func (c *coder) module(code []uint32) ([]uint32, error) {
	n := c.number(&c.count, uint32(len(code)), 0)
	if n < header || n > maxUnpack/4 {
		return nil, cmp.Or(c.err, fmt.Errorf("%d words", n))
	}
	if code == nil {
		code = make([]uint32, n)
	}
	for i := range header {
		code[i] = c.number(&c.head[i], code[i], 0)
	}
	result := uint32(0)
	for at := header; at < len(code); {
		n := 0
		if n, result = c.instruction(code[at:], result); n == 0 {
			return nil, cmp.Or(c.err, fmt.Errorf("no instruction at word %d of %d", at, len(code)))
		}
		at += n
	}
	return code, c.err
}

// instruction codes the instruction at the start of code, and returns how many words it has and the last result. No words
// are an error.
func (c *coder) instruction(code []uint32, result uint32) (int, uint32) {
	op := c.number(&c.opcode, code[0]&0xffff, 0)
	if op > 0xffff || c.err != nil {
		return 0, 0
	}
	o := c.operations[op]
	if o == nil {
		o = &operation{shape: shapes[op]}
		c.operations[op] = o
	}
	n := c.number(&o.length, code[0]>>16, 0)
	if n < 1 || n > 0xffff || int(n) > len(code) {
		return 0, 0
	}
	code[0] = n<<16 | op
	operands, s := code[1:n], o.shape
	if len(operands) < 2-int(s) {
		s = noResult
	}
	if s == typeAndResult {
		operands[0] = c.number(&o.kind, operands[0], 0)
		operands = operands[1:]
	}
	if s != noResult {
		operands[0] = c.number(&o.result, operands[0], result)
		result, operands = operands[0], operands[1:]
	}
	for i, v := range operands {
		operands[i] = c.number(&o.operands[position(op, i)], v, result)
	}
	return int(n), result
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
