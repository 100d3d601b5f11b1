package safetensors

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"unicode/utf8"

	"github.com/colt5-vulkan/colt5/internal/errtext"
)

// checkJSON checks that raw is one JSON value in valid Unicode. encoding/json replaces invalid UTF-8 and lone surrogates
// by U+FFFD, which would change names.
func checkJSON(what string, raw []byte) error {
	if !utf8.Valid(raw) {
		return fmt.Errorf("%s is not valid UTF-8", what)
	}
	if at := loneSurrogate(raw); at >= 0 {
		return fmt.Errorf("%s has a lone surrogate at byte %d, want valid Unicode", what, at)
	}
	if json.Valid(raw) {
		return nil
	}
	err := json.Unmarshal(raw, new(struct{}))
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		return fmt.Errorf("%s is not valid JSON at byte %d: %w", what, syntax.Offset, err)
	}
	return fmt.Errorf("%s is not valid JSON: %w", what, err)
}

// parser reads valid JSON. It builds only the values that the format needs, so a header costs little more memory than
// its tensors.
type parser struct {
	text []byte
	at   int
}

// object reads a JSON object. It calls field for each key, and field reads the value.
func (p *parser) object(what string, field func(key []byte) error) error {
	if p.peek() != '{' {
		return fmt.Errorf("%s is %s, want an object", what, p.describe())
	}
	for next := p.next(); next != '}'; next = p.next() { // '{' or ','
		if p.peek() == '}' { // an empty object
			p.next()
			return nil
		}
		key := p.decoded()
		p.next() // ':'
		if err := field(key); err != nil {
			return err
		}
	}
	return nil
}

// integers reads an array of at most limit non-negative integers. The result is not nil.
func (p *parser) integers(what string, limit int) ([]int64, error) {
	if p.peek() != '[' {
		return nil, fmt.Errorf("%s is %s, want an array of integers", what, p.describe())
	}
	var list [maxRank]int64
	n := 0
	for next := p.next(); next != ']'; next = p.next() { // '[' or ','
		if p.peek() == ']' { // an empty array
			p.next()
			break
		}
		if n == limit {
			return nil, fmt.Errorf("%s has more than %d elements", what, limit)
		}
		from := p.at
		p.skip()
		v, err := strconv.ParseUint(string(p.text[from:p.at]), 10, 63)
		if err != nil {
			p.at = from
			return nil, fmt.Errorf("%s[%d] is %s, want an integer from 0 to %d", what, n, p.describe(), int64(math.MaxInt64))
		}
		list[n] = int64(v)
		n++
	}
	return append(make([]int64, 0, n), list[:n]...), nil
}

func (p *parser) string(what string) ([]byte, error) {
	if p.peek() != '"' {
		return nil, fmt.Errorf("%s is %s, want a string", what, p.describe())
	}
	return p.decoded(), nil
}

// decoded reads a string. The result may be a part of the text.
func (p *parser) decoded() []byte {
	quoted := p.quoted()
	if bytes.IndexByte(quoted, '\\') < 0 {
		return quoted[1 : len(quoted)-1]
	}
	var s string
	if err := json.Unmarshal(quoted, &s); err != nil {
		panic(err) // the text is valid JSON
	}
	return []byte(s)
}

// quoted reads a string with its quotes and escapes.
func (p *parser) quoted() []byte {
	p.peek()
	from := p.at
	for p.at++; p.text[p.at] != '"'; p.at++ {
		if p.text[p.at] == '\\' {
			p.at++
		}
	}
	p.at++
	return p.text[from:p.at]
}

// skip reads any value.
func (p *parser) skip() {
	for depth := 0; ; {
		switch p.peek() {
		case '{', '[':
			depth++
			p.at++
		case '}', ']':
			depth--
			p.at++
		case ',', ':':
			p.at++
		case '"':
			p.quoted()
		default: // a number, true, false or null
			for p.at < len(p.text) && bytes.IndexByte([]byte(",:{}[] \t\r\n"), p.text[p.at]) < 0 {
				p.at++
			}
		}
		if depth == 0 {
			return
		}
	}
}

// peek skips white space and returns the next byte.
func (p *parser) peek() byte {
	for bytes.IndexByte([]byte(" \t\r\n"), p.text[p.at]) >= 0 {
		p.at++
	}
	return p.text[p.at]
}

// next reads the byte that peek returns.
func (p *parser) next() byte {
	c := p.peek()
	p.at++
	return c
}

// describe describes the next value for an error message.
func (p *parser) describe() string {
	switch p.peek() {
	case '{':
		return "an object"
	case '[':
		return "an array"
	}
	from := p.at
	p.skip()
	text := p.text[from:p.at]
	p.at = from
	if text[0] == '"' {
		return errtext.Quote(string(p.decoded()))
	}
	return errtext.Name(string(text))
}

// loneSurrogate returns the offset of the first \u escape in raw that is a surrogate without its counterpart, or -1. In
// JSON a backslash occurs only inside strings; the parser rejects what is not JSON.
func loneSurrogate(raw []byte) int {
	escape := func(at int) uint64 { // the UTF-16 code unit of an escape \uXXXX at this offset, or 0
		if at+6 > len(raw) || raw[at] != '\\' || raw[at+1] != 'u' {
			return 0
		}
		unit, err := strconv.ParseUint(string(raw[at+2:at+6]), 16, 16)
		if err != nil {
			return 0
		}
		return unit
	}
	for at := 0; at < len(raw); at++ {
		if raw[at] != '\\' {
			continue
		}
		switch unit := escape(at); unit >> 10 {
		case 0xd800 >> 10:
			if escape(at+6)>>10 != 0xdc00>>10 {
				return at
			}
			at += 11
		case 0xdc00 >> 10:
			return at
		default:
			at++ // past the escaped character, which may be a backslash
		}
	}
	return -1
}
