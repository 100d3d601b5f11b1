package safetensors

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"unicode/utf8"

	"github.com/colt5-vulkan/colt5/internal/errtext"
)

const (
	lengthSize  = 8        // bytes of the header length at the start of a file
	maxHeader   = 16 << 20 // bytes; see the package comment
	maxRank     = 64       // dimensions, the limit of PyTorch and NumPy
	metadataKey = "__metadata__"
)

// header is a parsed header: the tensors sorted by offset, their positions by name, and the metadata (nil if absent).
type header struct {
	tensors  []Info
	index    map[string]int
	metadata map[string]string
}

// parseHeader parses and validates raw, the header of a file with dataSize bytes of data.
func parseHeader(raw []byte, dataSize int64) (header, error) {
	if len(raw) == 0 || raw[0] != '{' {
		return header{}, fmt.Errorf("header begins with %q, want \"{\"", raw[:min(1, len(raw))])
	}
	if err := checkJSON("header", raw); err != nil {
		return header{}, err
	}
	p := parser{text: raw}
	h, err := p.header()
	if err != nil {
		return header{}, err
	}
	if err := h.checkLayout(dataSize); err != nil {
		return header{}, err
	}
	for i, t := range h.tensors {
		h.index[t.Name] = i
	}
	return h, nil
}

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

// checkLayout sorts the tensors by offset. It checks that the size of each matches its dtype and shape, and that together
// they cover the data exactly: no gaps, no overlaps, no trailing bytes.
func (h *header) checkLayout(dataSize int64) error {
	slices.SortStableFunc(h.tensors, func(a, b Info) int {
		if a.begin != b.begin {
			return cmp.Compare(a.begin, b.begin)
		}
		return cmp.Compare(a.end, b.end) // an empty tensor precedes the one that begins at the same offset
	})
	next := int64(0)
	for i, t := range h.tensors {
		size, err := byteSize(t.DType, t.Shape)
		switch {
		case err != nil:
			return fmt.Errorf("tensor %s: %w", errtext.Quote(t.Name), err)
		case t.begin > t.end:
			return fmt.Errorf("tensor %s: data_offsets are [%d %d], want begin <= end", errtext.Quote(t.Name), t.begin, t.end)
		case t.end-t.begin != size:
			return fmt.Errorf("tensor %s: data_offsets [%d %d] span %d bytes, want %d for %s %s",
				errtext.Quote(t.Name), t.begin, t.end, t.end-t.begin, size, t.DType, errtext.Shape(t.Shape))
		case t.end > dataSize:
			return fmt.Errorf("tensor %s: data_offsets [%d %d] exceed the %d bytes of data in the file",
				errtext.Quote(t.Name), t.begin, t.end, dataSize)
		case t.begin < next:
			return fmt.Errorf("tensor %s: data_offsets [%d %d] overlap tensor %s, which ends at %d",
				errtext.Quote(t.Name), t.begin, t.end, errtext.Quote(h.tensors[i-1].Name), next)
		case t.begin > next:
			return fmt.Errorf("tensor %s: data_offsets [%d %d] leave a gap, want begin %d",
				errtext.Quote(t.Name), t.begin, t.end, next)
		}
		next = t.end
	}
	if next != dataSize {
		return fmt.Errorf("file has %d bytes of data, want %d, the end of the last tensor", dataSize, next)
	}
	return nil
}

// byteSize returns the size of a tensor in bytes. The product of the nonzero dimensions must not overflow, even if
// another dimension is 0, so that the product of any subset of the dimensions is safe to compute.
func byteSize(dtype DType, shape []int64) (int64, error) {
	size := dtype.Size()
	if size == 0 {
		return 0, fmt.Errorf("dtype is %s, want one of %s", errtext.Quote(string(dtype)), knownDTypes())
	}
	if len(shape) > maxRank {
		return 0, fmt.Errorf("shape has %d dimensions, want at most %d", len(shape), maxRank)
	}
	empty := false
	for i, d := range shape {
		switch {
		case d < 0:
			return 0, fmt.Errorf("shape[%d] is %d, want 0 or more", i, d)
		case d == 0:
			empty = true
		case size > math.MaxInt64/d:
			return 0, fmt.Errorf("shape %s of %s overflows, want at most %d bytes", errtext.Shape(shape), dtype, int64(math.MaxInt64))
		default:
			size *= d
		}
	}
	if empty {
		return 0, nil
	}
	return size, nil
}

// parser reads valid JSON. It builds only the values that the format needs, so a header costs little more memory than
// its tensors.
type parser struct {
	text []byte
	at   int
}

func (p *parser) header() (h header, err error) {
	h.index = map[string]int{}
	metadata := false
	err = p.object("header", func(raw []byte) error {
		key := string(raw)
		if _, twice := h.index[key]; twice || metadata && key == metadataKey {
			return fmt.Errorf("header has duplicate key %s", errtext.Quote(key))
		}
		if key == metadataKey {
			metadata = true
			h.metadata, err = p.metadata()
			return err
		}
		t, err := p.tensor(key)
		if err != nil {
			return fmt.Errorf("tensor %s: %w", errtext.Quote(key), err)
		}
		h.index[key] = len(h.tensors)
		h.tensors = append(h.tensors, t)
		return nil
	})
	return h, err
}

// metadata reads the map of strings, or null.
func (p *parser) metadata() (map[string]string, error) {
	if p.peek() == 'n' {
		p.skip()
		return nil, nil
	}
	m := map[string]string{}
	err := p.object(metadataKey, func(raw []byte) error {
		key := string(raw)
		if _, twice := m[key]; twice {
			return fmt.Errorf("%s has duplicate key %s", metadataKey, errtext.Quote(key))
		}
		value, err := p.string(metadataKey + " " + errtext.Quote(key))
		m[key] = string(value)
		return err
	})
	return m, err
}

// tensor reads the entry of a tensor. Fields other than the three of the format are skipped, as the reference
// implementation does.
func (p *parser) tensor(name string) (Info, error) {
	t := Info{Name: name}
	var offsets []int64
	var seen [3]bool
	var others map[string]bool
	twice := func(key string) error { return fmt.Errorf("entry has duplicate key %s", errtext.Quote(key)) }
	first := func(i int, key string) (err error) {
		if seen[i] {
			err = twice(key)
		}
		seen[i] = true
		return err
	}
	err := p.object("entry", func(raw []byte) error {
		switch string(raw) {
		case "dtype":
			s, err := p.string("dtype")
			t.DType = DType(s)
			return cmp.Or(err, first(0, "dtype"))
		case "shape":
			var err error
			t.Shape, err = p.integers("shape", maxRank)
			return cmp.Or(err, first(1, "shape"))
		case "data_offsets":
			var err error
			offsets, err = p.integers("data_offsets", 2)
			return cmp.Or(err, first(2, "data_offsets"))
		}
		key := string(raw)
		if others[key] {
			return twice(key)
		}
		if others == nil {
			others = map[string]bool{}
		}
		others[key] = true
		p.skip()
		return nil
	})
	switch {
	case err != nil:
		return Info{}, err
	case t.DType == "":
		return Info{}, errors.New("dtype is missing or empty")
	case t.Shape == nil:
		return Info{}, errors.New("shape is missing")
	case offsets == nil:
		return Info{}, errors.New("data_offsets is missing")
	case len(offsets) != 2:
		return Info{}, fmt.Errorf("data_offsets has %d elements, want 2", len(offsets))
	}
	t.begin, t.end = offsets[0], offsets[1]
	return t, nil
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
