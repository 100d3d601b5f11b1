package safetensors

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"

	"github.com/colt5-vulkan/colt5/internal/half"
)

// Info describes one tensor of a file.
type Info struct {
	Name  string
	DType DType
	Shape []int64 // empty for a scalar; a dimension may be 0

	begin, end int64 // byte offsets from the start of the data
}

// Size returns the size of the tensor's data in bytes.
func (i Info) Size() int64 { return i.end - i.begin }

// File is an open safetensors file. Its methods are safe for concurrent use if the io.ReaderAt is, as an *os.File is.
type File struct {
	name     string // for errors; empty if opened by NewReader
	r        io.ReaderAt
	closer   io.Closer // nil when the caller owns r
	data     int64     // file offset of the data
	tensors  []Info    // sorted by offset
	index    map[string]int
	metadata map[string]string
}

// Open opens and validates the file at path. It reads the header only. The caller must call Close.
func Open(path string) (*File, error) {
	// Checked before os.Open, because opening a named pipe blocks until it has a writer.
	if stat, err := os.Stat(path); err != nil {
		return nil, fmt.Errorf("safetensors: %w", err)
	} else if !stat.Mode().IsRegular() {
		return nil, fmt.Errorf("safetensors: %s: mode is %v, want a regular file", path, stat.Mode())
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("safetensors: %w", err)
	}
	stat, err := file.Stat()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("safetensors: %w", err), file.Close())
	}
	f := &File{name: path, r: file, closer: file}
	if err := f.open(stat.Size()); err != nil {
		return nil, errors.Join(f.wrap(err), file.Close())
	}
	return f, nil
}

// NewReader validates and reads a file of size bytes through r, which must remain valid while the File is in use.
func NewReader(r io.ReaderAt, size int64) (*File, error) {
	f := &File{r: r}
	if err := f.open(size); err != nil {
		return nil, f.wrap(err)
	}
	return f, nil
}

func (f *File) open(size int64) error {
	if size < lengthSize {
		return fmt.Errorf("file has %d bytes, want at least %d for the header length", size, lengthSize)
	}
	var length [lengthSize]byte
	if err := f.readAt(length[:], 0); err != nil {
		return fmt.Errorf("read header length: %w", err)
	}
	n := binary.LittleEndian.Uint64(length[:])
	if n > maxHeader {
		return fmt.Errorf("header length is %d, want at most %d", n, maxHeader)
	}
	if n > uint64(size-lengthSize) {
		return fmt.Errorf("header length is %d, but the file has only %d bytes after it", n, size-lengthSize)
	}
	raw := make([]byte, n)
	if err := f.readAt(raw, lengthSize); err != nil {
		return fmt.Errorf("read header: %w", err)
	}
	f.data = lengthSize + int64(n)
	h, err := parseHeader(raw, size-f.data)
	if err != nil {
		return err
	}
	f.tensors, f.metadata = h.tensors, h.metadata
	f.index = make(map[string]int, len(f.tensors))
	for i, t := range f.tensors {
		f.index[t.Name] = i
	}
	return nil
}

// Close closes the file that Open opened. It does not close the reader given to NewReader. It is idempotent and nil-safe.
func (f *File) Close() error {
	if f == nil || f.closer == nil {
		return nil
	}
	if err := f.closer.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return f.wrap(err)
	}
	return nil
}

// Names returns the names of the tensors sorted by offset, which is the fastest order to read them.
func (f *File) Names() []string {
	names := make([]string, len(f.tensors))
	for i, t := range f.tensors {
		names[i] = t.Name
	}
	return names
}

// Metadata returns the "__metadata__" map of the header, nil if there is none. The caller must not modify it.
func (f *File) Metadata() map[string]string { return f.metadata }

// Info returns the description of a tensor, and false if the file has no tensor of that name.
func (f *File) Info(name string) (Info, bool) {
	i, ok := f.index[name]
	if !ok {
		return Info{}, false
	}
	info := f.tensors[i]
	info.Shape = slices.Clone(info.Shape)
	return info, true
}

// ReadInto reads the raw data of a tensor into dst, whose length must be the tensor's Size.
func (f *File) ReadInto(name string, dst []byte) error {
	info, err := f.find(name)
	if err != nil {
		return err
	}
	if int64(len(dst)) != info.Size() {
		return f.wrap(fmt.Errorf("tensor %s: dst has %d bytes, want %d for %s %v",
			quote(name), len(dst), info.Size(), info.DType, info.Shape))
	}
	return f.readTensor(info, 0, dst)
}

// Reader returns a reader of the raw data of a tensor. Readers are independent of each other.
func (f *File) Reader(name string) (*io.SectionReader, error) {
	info, err := f.find(name)
	if err != nil {
		return nil, err
	}
	return io.NewSectionReader(f.r, f.data+info.begin, info.Size()), nil
}

// ReadFloat32 reads an F32, F16 or BF16 tensor as float32 in row-major order. Another dtype is an error.
func (f *File) ReadFloat32(name string) ([]float32, error) {
	info, err := f.find(name)
	if err != nil {
		return nil, err
	}
	switch info.DType {
	case F32:
		return readAs(f, info, func(b []byte) float32 { return math.Float32frombits(binary.LittleEndian.Uint32(b)) })
	case F16:
		return readAs(f, info, func(b []byte) float32 { return half.FromF16(binary.LittleEndian.Uint16(b)) })
	case BF16:
		return readAs(f, info, func(b []byte) float32 { return half.FromBF16(binary.LittleEndian.Uint16(b)) })
	}
	return nil, f.wrongType(info, "F32, F16 or BF16")
}

// ReadInt32 reads an I32 tensor in row-major order. Another dtype is an error.
func (f *File) ReadInt32(name string) ([]int32, error) {
	info, err := f.find(name)
	if err != nil {
		return nil, err
	}
	if info.DType != I32 {
		return nil, f.wrongType(info, "I32")
	}
	return readAs(f, info, func(b []byte) int32 { return int32(binary.LittleEndian.Uint32(b)) })
}

// ReadUint8 reads a U8 or BOOL tensor in row-major order, without conversion. Another dtype is an error.
func (f *File) ReadUint8(name string) ([]uint8, error) {
	info, err := f.find(name)
	if err != nil {
		return nil, err
	}
	if info.DType != U8 && info.DType != Bool {
		return nil, f.wrongType(info, "U8 or BOOL")
	}
	return readAs(f, info, func(b []byte) uint8 { return b[0] })
}

// readAs reads a tensor and converts each element. It buffers at most 64 KiB besides the result.
func readAs[T any](f *File, info Info, convert func([]byte) T) ([]T, error) {
	width := info.DType.Size()
	count := info.Size() / width
	if count > math.MaxInt/8 { // only on 32-bit machines: a tensor is no larger than its file
		return nil, f.wrap(fmt.Errorf("tensor %s: %s %v is too large for this machine", quote(info.Name), info.DType, info.Shape))
	}
	list := make([]T, 0, count)
	chunk := make([]byte, min(info.Size(), 64<<10)) // a multiple of every element size
	for at := int64(0); at < info.Size(); at += int64(len(chunk)) {
		chunk = chunk[:min(int64(len(chunk)), info.Size()-at)]
		if err := f.readTensor(info, at, chunk); err != nil {
			return nil, err
		}
		for i := int64(0); i < int64(len(chunk)); i += width {
			list = append(list, convert(chunk[i:i+width]))
		}
	}
	return list, nil
}

func (f *File) find(name string) (Info, error) {
	i, ok := f.index[name]
	if !ok {
		return Info{}, f.wrap(fmt.Errorf("tensor %s does not exist; the file has %d tensors", quote(name), len(f.tensors)))
	}
	return f.tensors[i], nil
}

// readTensor fills dst with the data of a tensor, starting at byte offset at.
func (f *File) readTensor(info Info, at int64, dst []byte) error {
	if err := f.readAt(dst, f.data+info.begin+at); err != nil {
		return f.wrap(fmt.Errorf("read tensor %s: %w", quote(info.Name), err))
	}
	return nil
}

// readAt fills dst. An io.ReaderAt may return io.EOF together with a full read, which is not an error here.
func (f *File) readAt(dst []byte, at int64) error {
	n, err := f.r.ReadAt(dst, at)
	if n == len(dst) {
		return nil
	}
	if err == nil || err == io.EOF { // the file has shrunk since it was opened
		return io.ErrUnexpectedEOF
	}
	return err
}

func (f *File) wrongType(info Info, want string) error {
	return f.wrap(fmt.Errorf("tensor %s: dtype is %s, want %s", quote(info.Name), info.DType, want))
}

func (f *File) wrap(err error) error {
	if f.name == "" {
		return fmt.Errorf("safetensors: %w", err)
	}
	return fmt.Errorf("safetensors: %s: %w", f.name, err)
}
