package safetensors

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"unicode/utf8"

	"github.com/colt5-vulkan/colt5/internal/atomicfile"
	"github.com/colt5-vulkan/colt5/internal/errtext"
)

// Tensor is one tensor to write.
type Tensor struct {
	Name  string // UTF-8, unique in the file, not "__metadata__"
	DType DType
	Shape []int64 // empty for a scalar

	// Data writes the elements to w, little-endian and in row-major order, exactly as many bytes as DType and Shape
	// imply. It is called once. Bytes, Float32s and Int32s return a Data function for a slice.
	Data func(w io.Writer) error
}

// Bytes returns a Data function that writes b unchanged.
func Bytes(b []byte) func(io.Writer) error {
	return func(w io.Writer) error {
		_, err := w.Write(b)
		return err
	}
}

// Float32s returns a Data function for an F32 tensor.
func Float32s(v []float32) func(io.Writer) error {
	return each(v, func(b []byte, x float32) []byte { return binary.LittleEndian.AppendUint32(b, math.Float32bits(x)) })
}

// Int32s returns a Data function for an I32 tensor.
func Int32s(v []int32) func(io.Writer) error {
	return each(v, func(b []byte, x int32) []byte { return binary.LittleEndian.AppendUint32(b, uint32(x)) })
}

func each[T any](v []T, encode func([]byte, T) []byte) func(io.Writer) error {
	return func(w io.Writer) error {
		var chunk []byte
		for part := range slices.Chunk(v, 16<<10) {
			chunk = chunk[:0]
			for _, x := range part {
				chunk = encode(chunk, x)
			}
			if _, err := w.Write(chunk); err != nil {
				return err
			}
		}
		return nil
	}
}

// Write writes a file at path and replaces an existing one.
//
// It is atomic: if Write or the machine fails, the earlier file is intact; if Write fails, it leaves no temporary file.
// A replaced file keeps its permissions, and a symbolic link is followed. The file and its directory are synced. If only
// the sync of the directory fails, the new file is in place although Write returns an error. A process that is killed
// leaves a temporary file ".colt5-*.tmp"; the next Write into that directory removes it.
//
// The bytes depend on the arguments only, not on the order of tensors. As in the reference implementation, tensors with
// larger element types come first, then they are sorted by name, so that each tensor is aligned to its element size. The
// header is padded with spaces to a multiple of 8.
//
// An argument that the format cannot represent is an error, and so is data whose size differs from that of dtype and
// shape.
func Write(path string, metadata map[string]string, tensors []Tensor) error {
	if err := write(path, metadata, tensors); err != nil {
		return fmt.Errorf("safetensors: write %s: %w", path, err)
	}
	return nil
}

func write(path string, metadata map[string]string, tensors []Tensor) error {
	head, sorted, err := layout(metadata, tensors)
	if err != nil {
		return err
	}
	return atomicfile.WriteFunc(path, func(w io.Writer) error { return encode(w, head, sorted) })
}

// WriteTo writes the same bytes to w, not atomically.
func WriteTo(w io.Writer, metadata map[string]string, tensors []Tensor) error {
	head, sorted, err := layout(metadata, tensors)
	if err == nil {
		err = encode(w, head, sorted)
	}
	if err != nil {
		return fmt.Errorf("safetensors: write: %w", err)
	}
	return nil
}

// placed is a tensor with its byte offsets in the data.
type placed struct {
	Tensor
	begin, end int64
}

// layout validates the tensors and assigns their offsets. It returns the start of the file (header length and header)
// and the sorted tensors.
func layout(metadata map[string]string, tensors []Tensor) ([]byte, []placed, error) {
	sorted := make([]placed, len(tensors))
	names := make(map[string]bool, len(tensors))
	for i, t := range tensors {
		size, err := byteSize(t.DType, t.Shape)
		switch {
		case t.Name == metadataKey:
			err = errors.New("name is reserved by the format")
		case !utf8.ValidString(t.Name):
			err = errors.New("name is not valid UTF-8")
		case names[t.Name]:
			err = errors.New("name is a duplicate")
		case err == nil && t.Data == nil:
			err = errors.New("data is nil, want a function")
		}
		if err != nil {
			return nil, nil, fmt.Errorf("tensor %s: %w", errtext.Quote(t.Name), err)
		}
		names[t.Name] = true
		sorted[i] = placed{Tensor: t, end: size}
	}
	slices.SortFunc(sorted, func(a, b placed) int {
		return cmp.Or(cmp.Compare(b.DType.order(), a.DType.order()), cmp.Compare(a.Name, b.Name))
	})
	next := int64(0)
	for i := range sorted {
		t := &sorted[i]
		if t.end > math.MaxInt64-next-lengthSize-maxHeader {
			return nil, nil, fmt.Errorf("tensor %s: the file would be larger than %d bytes", errtext.Quote(t.Name), int64(math.MaxInt64))
		}
		t.begin, t.end = next, next+t.end
		next = t.end
	}
	head, err := headerBytes(metadata, sorted)
	return head, sorted, err
}

func headerBytes(metadata map[string]string, sorted []placed) ([]byte, error) {
	var b bytes.Buffer
	b.Write(make([]byte, lengthSize)) // the length, set below
	text := json.NewEncoder(&b)
	text.SetEscapeHTML(false)
	str := func(s string) {
		_ = text.Encode(s)      // cannot fail: encodes a string to memory
		b.Truncate(b.Len() - 1) // the newline
	}
	separator := byte('{')
	if len(metadata) > 0 {
		b.WriteString(`{"` + metadataKey + `":`)
		for _, key := range slices.Sorted(maps.Keys(metadata)) {
			if !utf8.ValidString(key) || !utf8.ValidString(metadata[key]) {
				return nil, fmt.Errorf("metadata %s is not valid UTF-8", errtext.Quote(key))
			}
			b.WriteByte(separator)
			str(key)
			b.WriteByte(':')
			str(metadata[key])
			separator = ','
		}
		b.WriteByte('}')
	}
	for _, t := range sorted {
		b.WriteByte(separator)
		str(t.Name)
		fmt.Fprintf(&b, `:{"dtype":"%s","shape":[`, t.DType)
		for i, d := range t.Shape {
			if i > 0 {
				b.WriteByte(',')
			}
			fmt.Fprint(&b, d)
		}
		fmt.Fprintf(&b, `],"data_offsets":[%d,%d]}`, t.begin, t.end)
		separator = ','
	}
	if separator == '{' {
		b.WriteByte('{')
	}
	b.WriteByte('}')
	for b.Len()%8 != 0 {
		b.WriteByte(' ')
	}
	length := b.Len() - lengthSize
	if length > maxHeader {
		return nil, fmt.Errorf("header would have %d bytes, want at most %d", length, maxHeader)
	}
	binary.LittleEndian.PutUint64(b.Bytes(), uint64(length))
	return b.Bytes(), nil
}

// encode writes the start of the file that layout returned, and the data of the tensors.
func encode(w io.Writer, head []byte, sorted []placed) error {
	buffer := bufio.NewWriterSize(w, 1<<20)
	if _, err := buffer.Write(head); err != nil {
		return err
	}
	for _, t := range sorted {
		data := &sizedWriter{w: buffer, left: t.end - t.begin}
		err := t.Data(data)
		if data.err != nil { // even if Data ignored it
			err = data.err
		} else if err == nil && data.left > 0 {
			err = fmt.Errorf("data is %d bytes too short", data.left)
		}
		if err != nil {
			return fmt.Errorf("tensor %s: %s %s, %d bytes: %w", errtext.Quote(t.Name), t.DType, errtext.Shape(t.Shape), t.end-t.begin, err)
		}
	}
	return buffer.Flush()
}

// sizedWriter writes at most left bytes to w. After an error every write fails.
type sizedWriter struct {
	w    io.Writer
	left int64
	err  error
}

func (s *sizedWriter) Write(b []byte) (int, error) {
	if s.err != nil {
		return 0, s.err
	}
	if int64(len(b)) > s.left {
		s.err = fmt.Errorf("data is at least %d bytes too long", int64(len(b))-s.left)
		return 0, s.err
	}
	n, err := s.w.Write(b)
	s.left -= int64(n)
	s.err = err
	return n, err
}
