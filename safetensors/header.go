package safetensors

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"

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
