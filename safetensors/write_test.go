package safetensors

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestWriteMatchesReference compares with a file that the reference implementation (Python, 0.5.2) wrote from the same
// arguments.
func TestWriteMatchesReference(t *testing.T) {
	const want = "\xd0\x01\x00\x00\x00\x00\x00\x00" +
		`{"__metadata__":{"k <&> é\u001f":"v\"` + "\x7f" + `"},"a.b":{"dtype":"I64","shape":[1],"data_offsets":[0,8]},` +
		`"é<&>\"\\\n\t\u0001\b` + "\x7f" + `":{"dtype":"F64","shape":[0,3],"data_offsets":[8,8]},` +
		`"b.weight":{"dtype":"F32","shape":[2,3],"data_offsets":[8,32]},"idx":{"dtype":"I32","shape":[2],"data_offsets":[32,40]},` +
		`"half":{"dtype":"F16","shape":[],"data_offsets":[40,42]},"a":{"dtype":"U8","shape":[2],"data_offsets":[42,44]},` +
		`"mask":{"dtype":"BOOL","shape":[3],"data_offsets":[44,47]}} ` +
		"\t\x00\x00\x00\x00\x00\x00\x00\x00\x00\x80?\x00\x00\x00@\x00\x00@@\x00\x00\x80@\x00\x00\xa0@\x00\x00\xc0@" +
		"\x07\x00\x00\x00\xff\xff\xff\xff\x00>\x01\x00\x01\x00\x01"
	path := filepath.Join(t.TempDir(), "x.safetensors")
	require.NoError(t, Write(path, map[string]string{"k <&> é\x1f": "v\"\x7f"}, []Tensor{
		{"b.weight", F32, []int64{2, 3}, Float32s([]float32{1, 2, 3, 4, 5, 6})},
		{"a", U8, []int64{2}, Bytes([]byte{1, 0})},
		{"mask", Bool, []int64{3}, Bytes([]byte{1, 0, 1})},
		{"idx", I32, []int64{2}, Int32s([]int32{7, -1})},
		{"half", F16, nil, Bytes([]byte{0, 0x3e})},
		{"é<&>\"\\\n\t\x01\b\x7f", F64, []int64{0, 3}, Bytes(nil)},
		{"a.b", I64, []int64{1}, Bytes([]byte{9, 0, 0, 0, 0, 0, 0, 0})},
	}))
	got, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Equal(t, want, string(got))
}

func TestWriteEmpty(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.safetensors")
	require.NoError(t, Write(path, nil, nil))
	got, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Equal(t, "\x08\x00\x00\x00\x00\x00\x00\x00{}      ", string(got))
}

// bytesTensors returns one tensor of every dtype. shift rotates their order.
func bytesTensors(shift int) (tensors []Tensor, data map[string][]byte) {
	data = map[string][]byte{}
	for i := range dtypes {
		d := dtypes[(i+shift)%len(dtypes)].dtype
		name := strings.ToLower(string(d)) + "\u2028"
		data[name] = bytes.Repeat([]byte(d)[:1], int(3*5*d.Size()))
		tensors = append(tensors, Tensor{name, d, []int64{3, 1, 5}, Bytes(data[name])})
	}
	return tensors, data
}

func TestRoundTrip(t *testing.T) {
	metadata := map[string]string{"z": "1", "a": "\u2029\x00", "": "{}"}
	var first []byte
	for shift := range dtypes {
		path := filepath.Join(t.TempDir(), "x.safetensors")
		tensors, data := bytesTensors(shift)
		require.NoError(t, Write(path, metadata, tensors))
		file, err := os.ReadFile(path)
		require.NoError(t, err)
		if first == nil {
			first = file
		}
		assert.Equal(t, first, file, "the file depends on the order of the arguments")
		f, err := Open(path)
		require.NoError(t, err)
		assert.Equal(t, metadata, f.Metadata())
		assert.Len(t, f.Names(), len(dtypes))
		for _, want := range tensors {
			info, ok := f.Info(want.Name)
			require.True(t, ok, want.Name)
			assert.Equal(t, want.DType, info.DType)
			assert.Equal(t, want.Shape, info.Shape)
			assert.Zero(t, (f.shards[0].data+info.begin)%want.DType.Size(), "%s is not aligned", want.DType)
			got := make([]byte, info.Size())
			require.NoError(t, f.ReadInto(want.Name, got))
			assert.Equal(t, data[want.Name], got)
		}
		require.NoError(t, f.Close())
	}
}

func TestWriteErrors(t *testing.T) {
	write := func(b ...byte) func(io.Writer) error { return Bytes(b) }
	failure := errors.New("failure")
	one := func(x Tensor) []Tensor { return []Tensor{x} }
	u8 := func(data func(io.Writer) error) []Tensor { return one(Tensor{"x", U8, []int64{2}, data}) }
	cases := []struct {
		name     string
		metadata map[string]string
		tensors  []Tensor
		want     string
	}{
		{"too few bytes", nil, u8(write(1)), `tensor "x": U8 [2], 2 bytes: data is 1 bytes too short`},
		{"no bytes", nil, u8(write()), "data is 2 bytes too short"},
		{"too many bytes", nil, u8(write(1, 2, 3)), `tensor "x": U8 [2], 2 bytes: data is at least 1 bytes too long`},
		{"too many bytes, one by one", nil, u8(func(w io.Writer) error {
			for range 3 {
				if _, err := w.Write([]byte{1}); err != nil {
					return err
				}
			}
			return nil
		}), "data is at least 1 bytes too long"},
		{"too many bytes, errors ignored", nil, u8(func(w io.Writer) error {
			_, _ = w.Write([]byte{1, 2, 3})
			_, _ = w.Write([]byte{1, 2})
			return nil
		}), "data is at least 1 bytes too long"},
		{"bytes for an empty tensor", nil, one(Tensor{"x", U8, []int64{0}, write(1)}), "at least 1 bytes too long"},
		{"no bytes for a scalar", nil, one(Tensor{"x", U8, nil, write()}), "1 bytes too short"},
		{"error", nil, u8(func(io.Writer) error { return failure }), `tensor "x": U8 [2], 2 bytes: failure`},
		{"error after all bytes", nil, u8(func(w io.Writer) error { _ = write(1, 2)(w); return failure }), "failure"},
		{"error in the second tensor", nil, []Tensor{
			{"a", U8, []int64{2 << 20}, Bytes(make([]byte, 2<<20))}, // larger than the write buffer, so it is on disk when b fails
			{"b", U8, []int64{1}, func(io.Writer) error { return failure }},
		}, `tensor "b": U8 [1], 1 bytes: failure`},
		{"no data", nil, u8(nil), `tensor "x": data is nil`},
		{"duplicate name", nil, []Tensor{{"x", U8, nil, write(1)}, {"x", F32, nil, write(1, 2, 3, 4)}}, `tensor "x": name is a duplicate`},
		{"reserved name", nil, one(Tensor{"__metadata__", U8, nil, write(1)}), `tensor "__metadata__": name is reserved`},
		{"invalid name", nil, one(Tensor{"\xff", U8, nil, write(1)}), `tensor "\xff": name is not valid UTF-8`},
		{"unknown dtype", nil, one(Tensor{"x", "f32", nil, write(1)}), `tensor "x": dtype is "f32", want one of BOOL, U8`},
		{"empty dtype", nil, one(Tensor{"x", "", nil, write(1)}), `tensor "x": dtype is "", want one of`},
		{"negative dimension", nil, one(Tensor{"x", U8, []int64{1, -2}, write()}), `tensor "x": shape[1] is -2, want 0 or more`},
		{"two negative dimensions", nil, one(Tensor{"x", U8, []int64{-1, -1}, write(1)}), `tensor "x": shape[0] is -1`},
		{"overflow", nil, one(Tensor{"x", F32, []int64{math.MaxInt64}, write()}), `tensor "x": shape [9223372036854775807] of F32 overflows`},
		{"sum overflows", nil, []Tensor{{"a", U8, []int64{1 << 62}, write()}, {"b", U8, []int64{1 << 62}, write()}},
			`tensor "b": the file would be larger than`},
		{"65 dimensions", nil, one(Tensor{"x", U8, make([]int64, 65), write()}), `tensor "x": shape has 65 dimensions, want at most 64`},
		{"invalid metadata key", map[string]string{"\xff": ""}, nil, `metadata "\xff" is not valid UTF-8`},
		{"invalid metadata value", map[string]string{"k": "\xff"}, nil, `metadata "k" is not valid UTF-8`},
		{"header too long", map[string]string{"k": strings.Repeat("\x01", maxHeader/6)}, nil, "header would have 16777"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "model.safetensors")
			err := Write(path, c.metadata, c.tensors) // with no earlier file
			require.ErrorContains(t, err, c.want)
			assert.True(t, strings.HasPrefix(err.Error(), "safetensors: write "+path+": "), err)
			assertFiles(t, dir)

			require.NoError(t, os.WriteFile(path, []byte("the earlier file"), 0o600))
			require.ErrorContains(t, Write(path, c.metadata, c.tensors), c.want)
			assertFiles(t, dir, "model.safetensors")
			old, err := os.ReadFile(path)
			require.NoError(t, err)
			assert.Equal(t, "the earlier file", string(old))
		})
	}
}

// assertFiles checks the names of the files in a directory, to find temporary files left behind.
func assertFiles(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	assert.Equal(t, want, got)
}

// TestWriteIsAtomic checks the directory during a write and after a panic in Data.
func TestWriteIsAtomic(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "x")
	require.NoError(t, os.WriteFile(path, []byte("old"), 0o600))
	during := func(w io.Writer) error {
		old, err := os.ReadFile(path)
		require.NoError(t, err)
		assert.Equal(t, "old", string(old))
		entries, err := os.ReadDir(dir)
		require.NoError(t, err)
		assert.Len(t, entries, 2, "the temporary file is in the same directory")
		return Bytes([]byte{1})(w)
	}
	assert.Panics(t, func() {
		_ = Write(path, nil, []Tensor{{"a", U8, nil, during}, {"b", U8, nil, func(io.Writer) error { panic("b") }}})
	})
	assertFiles(t, dir, "x")
	old, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Equal(t, "old", string(old))

	require.NoError(t, Write(path, nil, []Tensor{{"a", U8, nil, during}}))
	assertFiles(t, dir, "x")
	f, err := Open(path)
	require.NoError(t, err)
	assert.Equal(t, []string{"a"}, f.Names())
	require.NoError(t, f.Close())
}

// TestWriteToOwnPath streams the tensors of a file to its own path, as a tool that edits metadata does.
func TestWriteToOwnPath(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("an open file cannot be replaced there")
	}
	path := filepath.Join(t.TempDir(), "x")
	tensors, data := bytesTensors(0)
	require.NoError(t, Write(path, nil, tensors))
	f, err := Open(path)
	require.NoError(t, err)
	defer f.Close()
	require.NoError(t, Write(path, map[string]string{"new": "yes"}, copied(t, f)))
	again, err := Open(path)
	require.NoError(t, err)
	defer again.Close()
	assert.Equal(t, map[string]string{"new": "yes"}, again.Metadata())
	for name, want := range data {
		got := make([]byte, len(want))
		require.NoError(t, again.ReadInto(name, got))
		assert.Equal(t, want, got)
	}
}

// copied returns the tensors of a file for Write. Their data is streamed.
func copied(t testing.TB, f *File) []Tensor {
	var tensors []Tensor
	for _, name := range f.Names() {
		info, ok := f.Info(name)
		require.True(t, ok)
		tensors = append(tensors, Tensor{name, info.DType, info.Shape, func(w io.Writer) error {
			r, err := f.Reader(name)
			if err != nil {
				return err
			}
			_, err = io.Copy(w, r)
			return err
		}})
	}
	return tensors
}

// TestWriteConcurrently writes one path from several goroutines. The result must be one of the files, complete.
func TestWriteConcurrently(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "x")
	var wait sync.WaitGroup
	errs := make([]error, 8)
	for i := range errs {
		wait.Add(1)
		go func() {
			defer wait.Done()
			v := bytes.Repeat([]byte{byte(i)}, 1000+i)
			errs[i] = Write(path, map[string]string{"i": fmt.Sprint(i)}, []Tensor{{"x", U8, []int64{int64(len(v))}, Bytes(v)}})
		}()
	}
	wait.Wait()
	require.NoError(t, errors.Join(errs...))
	assertFiles(t, dir, "x")
	f, err := Open(path)
	require.NoError(t, err)
	defer f.Close()
	got, err := f.ReadUint8("x")
	require.NoError(t, err)
	assert.Len(t, got, 1000+int(got[0]))
	assert.Equal(t, fmt.Sprint(got[0]), f.Metadata()["i"])
	assert.Equal(t, bytes.Repeat(got[:1], len(got)), got)
}

// limitedDisk simulates a disk with space for a number of bytes.
type limitedDisk struct{ space int }

func (d *limitedDisk) Write(b []byte) (int, error) {
	n := min(len(b), d.space)
	d.space -= n
	if n < len(b) {
		return n, errors.New("disk full")
	}
	return n, nil
}

// TestEncodeDiskFull checks that a full disk is an error wherever in the file it happens.
func TestEncodeDiskFull(t *testing.T) {
	head, sorted, err := layout(nil, []Tensor{{"x", U8, []int64{2 << 20}, func(w io.Writer) error {
		return errors.Join(Bytes(make([]byte, 1<<20))(w), Bytes(make([]byte, 1<<20))(w))
	}}})
	require.NoError(t, err)
	size := len(head) + 2<<20
	for _, space := range []int{0, 1, len(head), 1 << 20, 1<<20 + 1, size - 1} {
		assert.ErrorContains(t, encode(&limitedDisk{space}, head, sorted), "disk full", "%d", space)
	}
	assert.NoError(t, encode(&limitedDisk{size}, head, sorted))
}
