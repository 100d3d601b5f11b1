package safetensors

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"unicode/utf8"
)

const (
	lengthSize  = 8           // bytes of the header length at the start of a file
	maxHeader   = 100_000_000 // bytes, as in the reference implementation
	maxRank     = 64          // dimensions, the limit of PyTorch and NumPy
	metadataKey = "__metadata__"
)

// header is a parsed header: the tensors sorted by offset, and the metadata (nil if absent).
type header struct {
	tensors  []Info
	metadata map[string]string
}

// parseHeader parses and validates raw, the header of a file with dataSize bytes of data.
func parseHeader(raw []byte, dataSize int64) (header, error) {
	if len(raw) == 0 || raw[0] != '{' {
		return header{}, fmt.Errorf("header begins with %q, want \"{\"", raw[:min(1, len(raw))])
	}
	// encoding/json replaces invalid UTF-8 and lone surrogates by U+FFFD, which would change names.
	if !utf8.Valid(raw) {
		return header{}, errors.New("header is not valid UTF-8")
	}
	if at := loneSurrogate(raw); at >= 0 {
		return header{}, fmt.Errorf("header has a lone surrogate at byte %d, want valid Unicode", at)
	}
	p := parser{json.NewDecoder(bytes.NewReader(raw))}
	p.dec.UseNumber()
	h, err := p.header()
	if err != nil {
		return header{}, err
	}
	return h, h.checkLayout(dataSize)
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
			return fmt.Errorf("tensor %s: %w", quote(t.Name), err)
		case t.begin > t.end:
			return fmt.Errorf("tensor %s: data_offsets are [%d %d], want begin <= end", quote(t.Name), t.begin, t.end)
		case t.end-t.begin != size:
			return fmt.Errorf("tensor %s: data_offsets [%d %d] span %d bytes, want %d for %s %v",
				quote(t.Name), t.begin, t.end, t.end-t.begin, size, t.DType, t.Shape)
		case t.end > dataSize:
			return fmt.Errorf("tensor %s: data_offsets [%d %d] exceed the %d bytes of data in the file",
				quote(t.Name), t.begin, t.end, dataSize)
		case t.begin < next:
			return fmt.Errorf("tensor %s: data_offsets [%d %d] overlap tensor %s, which ends at %d",
				quote(t.Name), t.begin, t.end, quote(h.tensors[i-1].Name), next)
		case t.begin > next:
			return fmt.Errorf("tensor %s: data_offsets [%d %d] leave a gap, want begin %d",
				quote(t.Name), t.begin, t.end, next)
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
		return 0, fmt.Errorf("dtype is %s, want one of %s", quote(string(dtype)), knownDTypes())
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
			return 0, fmt.Errorf("shape %v of %s overflows, want at most %d bytes", shape, dtype, int64(math.MaxInt64))
		default:
			size *= d
		}
	}
	if empty {
		return 0, nil
	}
	return size, nil
}

// parser reads a header token by token. It does not recurse and builds only the values that the format allows, so a
// malformed header costs little memory.
type parser struct{ dec *json.Decoder }

func (p parser) header() (h header, err error) {
	err = p.object("header", func(key string) (err error) {
		if key == metadataKey {
			h.metadata, err = p.metadata()
			return err
		}
		t, err := p.tensor(key)
		if err != nil {
			return fmt.Errorf("tensor %s: %w", quote(key), err)
		}
		h.tensors = append(h.tensors, t)
		return nil
	})
	if err != nil {
		return header{}, err
	}
	if _, err := p.dec.Token(); err != io.EOF {
		return header{}, fmt.Errorf("header has data after its closing brace at byte %d, want spaces only", p.dec.InputOffset())
	}
	return h, nil
}

func (p parser) metadata() (map[string]string, error) {
	m := map[string]string{}
	err := p.object(metadataKey, func(key string) (err error) {
		m[key], err = p.string(metadataKey + " " + quote(key))
		return err
	})
	return m, err
}

func (p parser) tensor(name string) (Info, error) {
	t := Info{Name: name}
	var offsets []int64
	err := p.object("entry", func(key string) (err error) {
		switch key {
		case "dtype":
			var s string
			s, err = p.string(key)
			t.DType = DType(s)
		case "shape":
			t.Shape, err = p.integers(key, maxRank)
		case "data_offsets":
			offsets, err = p.integers(key, 2)
		default:
			err = fmt.Errorf("entry has field %s, want dtype, shape and data_offsets", quote(key))
		}
		return err
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
func (p parser) object(what string, field func(key string) error) error {
	token, err := p.token()
	if err != nil {
		return err
	}
	if token != json.Delim('{') {
		return fmt.Errorf("%s is %s, want an object", what, describe(token))
	}
	seen := map[string]bool{}
	for {
		token, err := p.token()
		if err != nil {
			return err
		}
		key, ok := token.(string)
		if !ok { // "}": the decoder accepts only a string or "}" here
			return nil
		}
		if seen[key] {
			return fmt.Errorf("%s has duplicate key %s", what, quote(key))
		}
		seen[key] = true
		if err := field(key); err != nil {
			return err
		}
	}
}

// integers reads an array of at most limit non-negative integers. The result is not nil.
func (p parser) integers(what string, limit int) ([]int64, error) {
	token, err := p.token()
	if err != nil {
		return nil, err
	}
	if token != json.Delim('[') {
		return nil, fmt.Errorf("%s is %s, want an array of integers", what, describe(token))
	}
	list := []int64{}
	for {
		token, err := p.token()
		if err != nil {
			return nil, err
		}
		if token == json.Delim(']') {
			return list, nil
		}
		if len(list) == limit {
			return nil, fmt.Errorf("%s has more than %d elements", what, limit)
		}
		number, _ := token.(json.Number) // "" for another token, which does not parse
		n, err := strconv.ParseUint(number.String(), 10, 63)
		if err != nil {
			return nil, fmt.Errorf("%s[%d] is %s, want an integer from 0 to %d",
				what, len(list), describe(token), int64(math.MaxInt64))
		}
		list = append(list, int64(n))
	}
}

func (p parser) string(what string) (string, error) {
	token, err := p.token()
	if err != nil {
		return "", err
	}
	s, ok := token.(string)
	if !ok {
		return "", fmt.Errorf("%s is %s, want a string", what, describe(token))
	}
	return s, nil
}

func (p parser) token() (json.Token, error) {
	token, err := p.dec.Token()
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, fmt.Errorf("header is not valid JSON at byte %d: %w", p.dec.InputOffset(), err)
	}
	return token, nil
}

// describe formats a token for an error message.
func describe(token json.Token) string {
	switch t := token.(type) {
	case nil:
		return "null"
	case string:
		return quote(t)
	case json.Number:
		return truncate(t.String())
	case json.Delim:
		if t == '[' {
			return "an array"
		}
		return "an object"
	}
	return fmt.Sprint(token)
}

// quote quotes a name from a file for an error message. It truncates the name, which may be as long as the header.
func quote(s string) string { return strconv.Quote(truncate(s)) }

func truncate(s string) string {
	const limit = 200
	if len(s) <= limit {
		return s
	}
	return s[:limit] + "..."
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
