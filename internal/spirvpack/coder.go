package spirvpack

import (
	"cmp"
	"errors"
	"fmt"
)

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
	literals             uint32
	length, kind, result *column
	operands             [positions]*column
}

// coder passes every number that is not predicted to number, in the same order for reading and writing.
type coder struct {
	*predictor
	reading    bool
	columns    []*column // those used so far, or, for reading, those that are left
	words      int       // of all modules
	count      *column   // words of a module
	head       [header]*column
	runs       *column // numbers of instructions that are predicted before one that is not
	misses     *column // of an instruction that is not predicted: bit i is set if word i is not
	opcode     *column
	operations []*operation // by opcode
	guesses    []uint32     // memory of guess
	run        int          // reading: what is left of a run; writing: its instructions so far
	err        error        // the first one of reading
}

// everyWord are the misses of an instruction whose first word is not predicted.
const everyWord = 1

// newCoder returns a coder that writes, or that reads columns.
func newCoder(columns []*column) *coder {
	c := &coder{predictor: newPredictor(), reading: columns != nil, columns: columns, operations: make([]*operation, 1<<16)}
	if c.reading {
		c.run = -1
	}
	return c
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
	if n < header || int(n) > maxUnpack/4-c.words {
		return nil, cmp.Or(c.err, fmt.Errorf("%d words", n))
	}
	c.words += int(n)
	if code == nil {
		code = make([]uint32, n)
	}
	for i := range header {
		code[i] = c.number(&c.head[i], code[i], 0)
	}
	c.add(code)
	here := place{module: uint32(len(c.modules) - 1)}
	for at := header; at < len(code); {
		here.at = uint32(at)
		n := 0
		if n, here.result = c.instruction(code[at:], here); n == 0 {
			return nil, cmp.Or(c.err, fmt.Errorf("no instruction at word %d of %d", at, len(code)))
		}
		at += n
	}
	return code, c.err
}

// instruction codes the instruction at the start of code, and returns how many words it has and the last result. No words
// are an error.
func (c *coder) instruction(code []uint32, here place) (int, uint32) {
	earlier := c.earlier(here)
	guess := c.guess(earlier, here.result)
	misses := c.missed(code, guess)
	same := misses&everyWord == 0
	if same {
		if guess == nil || len(guess) > len(code) {
			return 0, 0
		}
		code = code[:len(guess)]
		code[0] = guess[0]
	} else {
		op := c.number(&c.opcode, code[0]&0xffff, 0)
		if op > 0xffff || c.err != nil {
			return 0, 0
		}
		n := c.number(&c.operation(op).length, code[0]>>16, 0)
		if n < 1 || n > 0xffff || int(n) > len(code) {
			return 0, 0
		}
		code = code[:n]
		code[0] = n<<16 | op
		misses = ^uint32(0)
	}
	c.operands(code, guess, misses, here.result)
	o, result := c.operation(code[0]&0xffff), here.result
	resultAt := o.resultAt(len(code))
	if resultAt > 0 {
		result = code[resultAt]
	}
	if same {
		c.learn(earlier, code, o.literals, resultAt)
	}
	c.step(code[0], same)
	return len(code), result
}

// operands codes what is behind the first word of an instruction.
func (c *coder) operands(code, guess []uint32, misses, result uint32) {
	o := c.operation(code[0] & 0xffff)
	resultAt := o.resultAt(len(code))
	for i := 1; i < len(code); i++ {
		switch {
		case misses>>min(i, 31)&1 == 0:
			code[i] = guess[i]
		case i < resultAt:
			code[i] = c.number(&o.kind, code[i], 0)
		case i == resultAt:
			code[i] = c.number(&o.result, code[i], result)
		default:
			code[i] = c.number(&o.operands[position(code[0]&0xffff, i-resultAt-1)], code[i], result)
		}
		if i == resultAt {
			result = code[i]
		}
	}
}

// missed returns which words are not predicted: everyWord, or bit i for word i and bit 31 for all from 31 on.
func (c *coder) missed(code, guess []uint32) uint32 {
	if c.reading {
		if c.run < 0 {
			c.run = int(c.number(&c.runs, 0, 0))
		}
		c.run--
		if c.run >= 0 {
			return 0
		}
		return c.number(&c.misses, 0, 0)
	}
	misses := uint32(0)
	if guess == nil || len(guess) > len(code) || guess[0] != code[0] {
		misses = everyWord
	} else {
		for i, v := range guess {
			if code[i] != v {
				misses |= 1 << min(i, 31)
			}
		}
	}
	if misses == 0 {
		c.run++
	} else {
		c.end()
		c.number(&c.misses, misses, 0)
	}
	return misses
}

// end writes the length of a run.
func (c *coder) end() {
	c.number(&c.runs, uint32(c.run), 0)
	c.run = 0
}

// guess predicts the words of an instruction from an earlier one, where the last result before them is result.
func (c *coder) guess(earlier []uint32, result uint32) []uint32 {
	if earlier == nil {
		return nil
	}
	o := c.operation(earlier[0] & 0xffff)
	resultAt := o.resultAt(len(earlier))
	c.guesses = append(c.guesses[:0], earlier...)
	for i, id := range earlier[1:] {
		if o.literals>>min(i+1, 31)&1 == 0 {
			c.guesses[i+1] = c.id(id, result, i+1 != resultAt)
		}
	}
	return c.guesses
}

// operation returns what is known about an opcode.
func (c *coder) operation(op uint32) *operation {
	o := c.operations[op]
	if o == nil {
		o = &operation{shape: shapes[op], literals: literals[op]}
		c.operations[op] = o
	}
	return o
}

// resultAt returns which of the words of an instruction is its result, or 0.
func (o *operation) resultAt(words int) int {
	if at := 2 - int(o.shape); at < words {
		return at
	}
	return 0
}
