package spirvpack

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Unpack returns the modules of a file of Pack, by name.
func Unpack(file []byte) (map[string][]byte, error) {
	data, err := io.ReadAll(io.LimitReader(flate.NewReader(bytes.NewReader(file)), maxUnpack+1))
	if err == nil && len(data) > maxUnpack {
		err = fmt.Errorf("more than %d bytes of columns", maxUnpack)
	}
	if err != nil {
		return nil, fmt.Errorf("spirvpack: %w", err)
	}
	modules, err := unpack(data)
	if err != nil {
		return nil, fmt.Errorf("spirvpack: the file is damaged: %w", err)
	}
	return modules, nil
}

func unpack(data []byte) (map[string][]byte, error) {
	r := &reader{data}
	n, err := r.size()
	if err != nil {
		return nil, err
	}
	names := make([]string, n)
	for i := range names {
		name, err := r.part()
		if err != nil {
			return nil, err
		}
		names[i] = string(name)
	}
	if n, err = r.size(); err != nil {
		return nil, err
	}
	columns := make([]*column, n)
	for i := range columns {
		if columns[i], err = r.column(); err != nil {
			return nil, err
		}
	}
	c := newCoder(columns)
	modules := map[string][]byte{}
	for _, name := range names {
		code, err := c.module(nil)
		if err != nil {
			return nil, fmt.Errorf("module %s: %w", name, err)
		}
		out := make([]byte, 4*len(code))
		for i, w := range code {
			binary.LittleEndian.PutUint32(out[4*i:], w)
		}
		modules[name] = out
	}
	return modules, nil
}

// reader reads what is before the numbers.
type reader struct{ data []byte }

// size reads a count or a size in bytes, which is at most what is left.
func (r *reader) size() (int, error) {
	u, n := binary.Uvarint(r.data)
	if n <= 0 || u > uint64(len(r.data)) {
		return 0, errors.New("a size is larger than the file")
	}
	r.data = r.data[n:]
	return int(u), nil
}

// part reads a size and so many bytes.
func (r *reader) part() ([]byte, error) {
	n, err := r.size()
	if err != nil {
		return nil, err
	}
	if n > len(r.data) {
		return nil, errors.New("a part ends early")
	}
	part := r.data[:n]
	r.data = r.data[n:]
	return part, nil
}

// column reads the numbers of a column. Those that are distances to results remain distances.
func (r *reader) column() (*column, error) {
	if len(r.data) == 0 || r.data[0] >= codes {
		return nil, errors.New("a column has no code")
	}
	c := &column{code: r.data[0]}
	r.data = r.data[1:]
	data, err := r.part()
	if err != nil {
		return nil, err
	}
	if c.code == words {
		for ; len(data) >= 4; data = data[4:] {
			c.values = append(c.values, binary.LittleEndian.Uint32(data))
		}
		return c, nil
	}
	c.values = make([]uint32, 0, len(data))
	before := uint32(0)
	for len(data) > 0 {
		v, n := uint64(data[0]), 1
		if v >= 0x80 {
			if v, n = binary.Uvarint(data); n <= 0 {
				return nil, errors.New("a number is longer than its column")
			}
		}
		data = data[n:]
		value := uint32(v)
		switch c.code {
		case toResult:
			value = unfold(value)
		case toBefore:
			value = before + unfold(value)
			before = value
		}
		c.values = append(c.values, value)
	}
	return c, nil
}
