package safetensors

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path"
	"path/filepath"
	"slices"

	"github.com/colt5-vulkan/colt5/internal/errtext"
	"github.com/colt5-vulkan/colt5/internal/half"
)

// Info describes one tensor of a file.
type Info struct {
	Name  string
	DType DType
	Shape []int64 // empty for a scalar; a dimension may be 0

	shard      int   // index in File.shards
	begin, end int64 // byte offsets from the start of the shard's data
}

// Size returns the size of the tensor's data in bytes; 0 if dtype or shape are invalid, which they are not in a File.
func (i Info) Size() int64 {
	n, _ := byteSize(i.DType, i.Shape)
	return n
}

// File is an open safetensors file, or a sharded checkpoint: several files with an index. Its methods are safe for
// concurrent use if the io.ReaderAt is, as an *os.File is. A nil File has no tensors.
type File struct {
	name     string // for errors; empty if opened by NewReader
	shards   []*shard
	tensors  []Info // sorted by shard and offset
	index    map[string]int
	metadata map[string]string
}

// shard is one open file.
type shard struct {
	name   string // for errors
	r      io.ReaderAt
	closer io.Closer // nil when the caller owns r
	data   int64     // file offset of the data
}

// Open opens and validates the file at path, or all files of the sharded checkpoint whose index is at path. It reads the
// headers only. The caller must call Close.
func Open(path string) (*File, error) {
	return open(path, files{openFile, func(index, shard string) string {
		return filepath.Join(filepath.Dir(index), filepath.FromSlash(shard))
	}})
}

// OpenFS does the same in a file system. Tensors of a file that cannot be read at any offset, such as one in a zip
// archive, should be read in the order of Names: each step back reads the file from its start again.
func OpenFS(fsys fs.FS, name string) (*File, error) {
	if fsys == nil {
		return nil, errors.New("safetensors: fsys is nil, want a file system")
	}
	return open(name, files{
		func(name string) (opened, error) { return openInFS(fsys, name) },
		func(index, shard string) string { return path.Join(path.Dir(index), shard) },
	})
}

// NewReader validates and reads a file of size bytes through r, which must remain valid while the File is in use.
func NewReader(r io.ReaderAt, size int64) (*File, error) {
	if r == nil {
		return nil, errors.New("safetensors: r is nil, want an io.ReaderAt")
	}
	s := &shard{r: r}
	h, _, err := s.readHeader(size, maxHeader)
	if err != nil {
		return nil, s.wrap(err)
	}
	return &File{shards: []*shard{s}, tensors: h.tensors, index: h.index, metadata: h.metadata}, nil
}

// files is where Open or OpenFS finds files.
type files struct {
	open   func(name string) (opened, error)
	beside func(index, shard string) string // the name of a shard, given that of its index
}

// open opens a file, or the shards of an index.
func open(name string, from files) (*File, error) {
	o, err := from.open(name)
	if err != nil {
		return nil, wrap(name, cause(err))
	}
	s := &shard{name: name, r: o.r, closer: o.closer}
	h, kind, err := s.readHeader(o.size, maxHeader)
	if err == nil {
		return &File{name: name, shards: []*shard{s}, tensors: h.tensors, index: h.index, metadata: h.metadata}, nil
	}
	var x index
	if kind.index {
		x, err = s.readIndex(o.size)
	}
	if err == nil {
		err = s.close()
	} else {
		err = errors.Join(s.wrap(err), s.close())
	}
	if err != nil {
		return nil, err
	}
	return x.open(name, from)
}

// readHeader reads the header of a file of size bytes, if it has at most limit bytes. If the file has another format,
// it returns what is known of it, with an error.
func (s *shard) readHeader(size, limit int64) (header, format, error) {
	head := make([]byte, max(0, min(size, formatBytes)))
	if err := s.readAt(head, 0); err != nil {
		return header{}, format{}, fmt.Errorf("read header length: %w", err)
	}
	problem := func(text string, args ...any) (header, format, error) {
		err := fmt.Errorf(text, args...)
		kind := recognise(head)
		if kind.name != "" {
			err = fmt.Errorf("it is %s, want a safetensors file; %s", kind.name, kind.remedy)
		}
		return header{}, kind, err
	}
	if size < lengthSize {
		return problem("file has %d bytes, want at least %d for the header length", size, lengthSize)
	}
	n := binary.LittleEndian.Uint64(head)
	if n > uint64(limit) {
		return problem("header length is %d, want at most %d; the file may have another format", n, limit)
	}
	if n > uint64(size-lengthSize) {
		return problem("header length is %d, but the file has only %d bytes after it", n, size-lengthSize)
	}
	if n > 0 && head[lengthSize] != '{' {
		return problem("header begins with %q, want \"{\"", head[lengthSize:lengthSize+1])
	}
	raw := make([]byte, n)
	if err := s.readAt(raw, lengthSize); err != nil {
		return header{}, format{}, fmt.Errorf("read header: %w", err)
	}
	s.data = lengthSize + int64(n)
	h, err := parseHeader(raw, size-s.data)
	return h, format{}, err
}

// Close closes the files that Open or OpenFS opened. It does not close the reader given to NewReader. It is idempotent
// and nil-safe.
func (f *File) Close() error {
	if f == nil {
		return nil
	}
	var err error
	for _, s := range f.shards {
		err = errors.Join(err, s.close())
	}
	return err
}

func (s *shard) close() error {
	if s.closer == nil {
		return nil
	}
	if err := s.closer.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return s.wrap(cause(err))
	}
	return nil
}

// Names returns the names of the tensors sorted by shard and offset, which is the fastest order to read them.
func (f *File) Names() []string {
	if f == nil {
		return nil
	}
	names := make([]string, len(f.tensors))
	for i, t := range f.tensors {
		names[i] = t.Name
	}
	return names
}

// Metadata returns the "__metadata__" map of the header, nil if there is none. That of a sharded checkpoint has the
// entries of all shards; where they differ, the first shard by name decides. The caller must not modify it.
func (f *File) Metadata() map[string]string {
	if f == nil {
		return nil
	}
	return f.metadata
}

// Info returns the description of a tensor, and false if the file has no tensor of that name.
func (f *File) Info(name string) (Info, bool) {
	info, err := f.find(name)
	if err != nil {
		return Info{}, false
	}
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
		return f.shards[info.shard].wrap(fmt.Errorf("tensor %s: dst has %d bytes, want %d for %s %s",
			errtext.Quote(name), len(dst), info.Size(), info.DType, errtext.Shape(info.Shape)))
	}
	return f.shards[info.shard].readTensor(info, 0, dst)
}

// Reader returns a reader of the raw data of a tensor. Readers are independent of each other.
func (f *File) Reader(name string) (*io.SectionReader, error) {
	info, err := f.find(name)
	if err != nil {
		return nil, err
	}
	s := f.shards[info.shard]
	return io.NewSectionReader(s.r, s.data+info.begin, info.Size()), nil
}

// ReadFloat32 reads an F64, F32, F16 or BF16 tensor as float32 in row-major order. F64 is rounded to the nearest; a finite
// value beyond the range of float32 is an error. NaN and infinities are read as they are. Another dtype is an error.
func (f *File) ReadFloat32(name string) ([]float32, error) {
	info, err := f.find(name)
	if err != nil {
		return nil, err
	}
	s := f.shards[info.shard]
	switch info.DType {
	case F64:
		return s.readFloat64(info)
	case F32:
		return readAs(s, info, func(b []byte) float32 { return math.Float32frombits(binary.LittleEndian.Uint32(b)) })
	case F16:
		return readAs(s, info, func(b []byte) float32 { return half.FromF16(binary.LittleEndian.Uint16(b)) })
	case BF16:
		return readAs(s, info, func(b []byte) float32 { return half.FromBF16(binary.LittleEndian.Uint16(b)) })
	}
	return nil, s.wrongType(info, "F64, F32, F16 or BF16")
}

// readFloat64 reads an F64 tensor as float32.
func (s *shard) readFloat64(info Info) ([]float32, error) {
	var overflow error
	at := 0
	list, err := readAs(s, info, func(b []byte) float32 {
		v := math.Float64frombits(binary.LittleEndian.Uint64(b))
		f := float32(v)
		if overflow == nil && math.IsInf(float64(f), 0) && !math.IsInf(v, 0) {
			overflow = fmt.Errorf("tensor %s: element %d is %g, beyond the range of float32", errtext.Quote(info.Name), at, v)
		}
		at++
		return f
	})
	if overflow != nil {
		return nil, s.wrap(overflow)
	}
	return list, err
}

// ReadInt32 reads an I32 tensor in row-major order. Another dtype is an error.
func (f *File) ReadInt32(name string) ([]int32, error) {
	info, err := f.find(name)
	if err != nil {
		return nil, err
	}
	s := f.shards[info.shard]
	if info.DType != I32 {
		return nil, s.wrongType(info, "I32")
	}
	return readAs(s, info, func(b []byte) int32 { return int32(binary.LittleEndian.Uint32(b)) })
}

// ReadUint8 reads a U8 or BOOL tensor in row-major order, without conversion. Another dtype is an error.
func (f *File) ReadUint8(name string) ([]uint8, error) {
	info, err := f.find(name)
	if err != nil {
		return nil, err
	}
	s := f.shards[info.shard]
	if info.DType != U8 && info.DType != Bool {
		return nil, s.wrongType(info, "U8 or BOOL")
	}
	return readAs(s, info, func(b []byte) uint8 { return b[0] })
}

// readAs reads a tensor and converts each element. It buffers at most 64 KiB besides the result.
func readAs[T any](s *shard, info Info, convert func([]byte) T) ([]T, error) {
	width := info.DType.Size()
	count := info.Size() / width
	if count > math.MaxInt/8 { // only on 32-bit machines: a tensor is no larger than its file
		return nil, s.wrap(fmt.Errorf("tensor %s: %s %s is too large for this machine",
			errtext.Quote(info.Name), info.DType, errtext.Shape(info.Shape)))
	}
	size := info.Size()
	list := make([]T, 0, count)
	chunk := make([]byte, min(size, 64<<10)) // a multiple of every element size
	for at := int64(0); at < size; at += int64(len(chunk)) {
		chunk = chunk[:min(int64(len(chunk)), size-at)]
		if err := s.readTensor(info, at, chunk); err != nil {
			return nil, err
		}
		for i := int64(0); i < int64(len(chunk)); i += width {
			list = append(list, convert(chunk[i:i+width]))
		}
	}
	return list, nil
}

func (f *File) find(name string) (Info, error) {
	if f == nil {
		return Info{}, errors.New("safetensors: the file is nil, want one of Open")
	}
	i, ok := f.index[name]
	if !ok {
		return Info{}, wrap(f.name, fmt.Errorf("tensor %s does not exist; the file has %d tensors", errtext.Quote(name), len(f.tensors)))
	}
	return f.tensors[i], nil
}

// readTensor fills dst with the data of a tensor, starting at byte offset at.
func (s *shard) readTensor(info Info, at int64, dst []byte) error {
	if err := s.readAt(dst, s.data+info.begin+at); err != nil {
		return s.wrap(fmt.Errorf("read tensor %s: %w", errtext.Quote(info.Name), err))
	}
	return nil
}

// readAt fills dst. An io.ReaderAt may return io.EOF together with a full read, which is not an error here.
func (s *shard) readAt(dst []byte, at int64) error {
	n, err := s.r.ReadAt(dst, at)
	if n == len(dst) {
		return nil
	}
	if err == nil || err == io.EOF { // the file has shrunk since it was opened
		return io.ErrUnexpectedEOF
	}
	return cause(err)
}

func (s *shard) wrongType(info Info, want string) error {
	return s.wrap(fmt.Errorf("tensor %s: dtype is %s, want %s", errtext.Quote(info.Name), info.DType, want))
}

func (s *shard) wrap(err error) error { return wrap(s.name, err) }

// wrap adds the package and the name of the file to an error.
func wrap(name string, err error) error {
	if name == "" {
		return fmt.Errorf("safetensors: %w", err)
	}
	return fmt.Errorf("safetensors: %s: %w", name, err)
}
