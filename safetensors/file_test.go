package safetensors

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// raw returns a file with the given header and data, which may be invalid.
func raw(header, data string) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	return append(append(b, header...), data...)
}

// entry is the header entry of a tensor; the arguments are JSON.
func entry(name, dtype, shape, offsets string) string {
	return fmt.Sprintf(`%s:{"dtype":%s,"shape":%s,"data_offsets":%s}`, name, dtype, shape, offsets)
}

func read(b []byte) (*File, error) { return NewReader(bytes.NewReader(b), int64(len(b))) }

func TestMalformed(t *testing.T) {
	f32 := func(name, shape, offsets string) string { return entry(name, `"F32"`, shape, offsets) }
	one := func(name string) string { return f32(name, "[1]", "[0,4]") }
	wrongLength := func(n uint64) []byte { return append(binary.LittleEndian.AppendUint64(nil, n), "{}      "...) }
	most := "9223372036854775807"
	cases := []struct {
		name string
		file []byte
		want string // part of the error
	}{
		{"empty file", nil, "file has 0 bytes, want at least 8 for the header length"},
		{"short file", []byte("1234567"), "file has 7 bytes"},
		{"header beyond the file", wrongLength(9), "header length is 9, but the file has only 8 bytes after it"},
		{"header length at its limit, beyond the file", wrongLength(maxHeader), "but the file has only 8 bytes after it"},
		{"header too long", wrongLength(maxHeader + 1), "header length is 16777217, want at most 16777216"},
		{"header length negative as int64", wrongLength(1 << 63), "header length is 9223372036854775808, want at most"},
		{"header length all ones", wrongLength(math.MaxUint64), "header length is 18446744073709551615, want at most"},

		{"empty header", raw("", ""), `header begins with "", want "{"`},
		{"header of spaces", raw("        ", ""), `header begins with " "`},
		{"header begins with a space", raw(" {}", ""), `header begins with " "`},
		{"header is an array", raw("[]", ""), `header begins with "["`},
		{"only a brace", raw("{", ""), "header is not valid JSON at byte 1: unexpected end of JSON input"},
		{"not JSON", raw("{\"a\" 1}", ""), "header is not valid JSON"},
		{"comma before the end", raw("{"+one(`"a"`)+",}", "1234"), "header is not valid JSON"},
		{"no comma", raw("{"+one(`"a"`)+f32(`"b"`, "[1]", "[4,8]")+"}", "12345678"), "header is not valid JSON"},
		{"comma in an array", raw("{"+f32(`"a"`, "[1,]", "[0,4]")+"}", "1234"), "header is not valid JSON"},
		{"colon missing", raw(`{"a"{}}`, ""), "header is not valid JSON"},
		{"zero bytes at the end", raw("{}\x00\x00", ""), "header is not valid JSON at byte 3: invalid character '\\x00' after top-level value"},
		{"second object", raw("{} {}", ""), "after top-level value"},
		{"second brace", raw("{}}", ""), "after top-level value"},
		{"ends inside a tensor", raw(`{"a":{"dtype":"F32"`, ""), "unexpected end of JSON input"},
		{"ends inside a string", raw(`{"a":{"dtype":"F3`, ""), "unexpected end of JSON input"},
		{"invalid UTF-8 in a name", raw("{"+one("\"a\xff\"")+"}", "1234"), "header is not valid UTF-8"},
		{"encoded surrogate in a name", raw("{"+one("\"\xed\xa0\x80\"")+"}", "1234"), "header is not valid UTF-8"},
		{"high surrogate alone", raw("{"+one(`"\ud800"`)+"}", "1234"), "a lone surrogate at byte 2"},
		{"high surrogate twice", raw("{"+one(`"\uD83D\uD83D"`)+"}", "1234"), "a lone surrogate at byte 2"},
		{"low surrogate alone", raw("{"+one(`"a\\\udc00"`)+"}", "1234"), "a lone surrogate at byte 5"},
		{"bad escape", raw("{"+one(`"\x"`)+"}", "1234"), "header is not valid JSON"},
		{"control character in a name", raw("{"+one("\"\n\"")+"}", "1234"), "header is not valid JSON"},

		{"duplicate name", raw("{"+one(`"a"`)+","+f32(`"a"`, "[1]", "[4,8]")+"}", "12345678"), `header has duplicate key "a"`},
		{"duplicate name, spelled differently", raw("{"+one(`"a"`)+","+one(`"\u0061"`)+"}", "1234"), `header has duplicate key "a"`},
		{"duplicate metadata", raw(`{"__metadata__":{},"__metadata__":{}}`, ""), `header has duplicate key "__metadata__"`},
		{"duplicate metadata key", raw(`{"__metadata__":{"k":"","k":""}}`, ""), `__metadata__ has duplicate key "k"`},
		{"metadata is a string", raw(`{"__metadata__":"x"}`, ""), `__metadata__ is "x", want an object`},
		{"metadata is false", raw(`{"__metadata__":false}`, ""), "__metadata__ is false, want an object"},
		{"duplicate metadata, null", raw(`{"__metadata__":null,"__metadata__":null}`, ""), `header has duplicate key "__metadata__"`},
		{"metadata value is a number", raw(`{"__metadata__":{"k":1}}`, ""), `__metadata__ "k" is 1, want a string`},
		{"metadata value is an object", raw(`{"__metadata__":{"k":{}}}`, ""), `__metadata__ "k" is an object, want a string`},
		{"duplicate field", raw(`{"a":{"dtype":"F32","dtype":"F32"}}`, ""), `tensor "a": entry has duplicate key "dtype"`},

		{"tensor is null", raw(`{"a":null}`, ""), `tensor "a": entry is null, want an object`},
		{"tensor is an array", raw(`{"a":[]}`, ""), `tensor "a": entry is an array, want an object`},
		{"empty tensor", raw(`{"a":{}}`, ""), `tensor "a": dtype is missing`},
		{"dtype missing", raw(`{"a":{"shape":[1],"data_offsets":[0,4]}}`, "1234"), `tensor "a": dtype is missing`},
		{"shape missing", raw(`{"a":{"dtype":"F32","data_offsets":[0,4]}}`, "1234"), `tensor "a": shape is missing`},
		{"offsets missing", raw(`{"a":{"dtype":"F32","shape":[1]}}`, "1234"), `tensor "a": data_offsets is missing`},
		{"duplicate unknown field", raw(`{"a":{"x":0,"dtype":"F32","shape":[1],"data_offsets":[0,4],"\u0078":[1]}}`, "1234"),
			`tensor "a": entry has duplicate key "x"`},
		{"unknown field that is not JSON", raw(`{"a":{"x":tru,"dtype":"F32","shape":[1],"data_offsets":[0,4]}}`, "1234"), "header is not valid JSON at byte 14"},
		{"duplicate shape", raw(`{"a":{"dtype":"F32","shape":[1],"shape":[1],"data_offsets":[0,4]}}`, "1234"), `tensor "a": entry has duplicate key "shape"`},
		{"duplicate offsets", raw(`{"a":{"data_offsets":[0,4],"data_offsets":[0,4]}}`, "1234"), `tensor "a": entry has duplicate key "data_offsets"`},
		{"field in capitals", raw(`{"a":{"DTYPE":"F32","shape":[1],"data_offsets":[0,4]}}`, "1234"), `tensor "a": dtype is missing`},
		{"dtype is a number", raw("{"+entry(`"a"`, "1", "[1]", "[0,4]")+"}", "1234"), `tensor "a": dtype is 1, want a string`},
		{"unknown dtype", raw("{"+entry(`"a"`, `"F4"`, "[8]", "[0,4]")+"}", "1234"), `tensor "a": dtype is "F4", want one of BOOL, U8,`},
		{"empty dtype", raw("{"+entry(`"a"`, `""`, "[1]", "[0,4]")+"}", "1234"), `tensor "a": dtype is missing or empty`},

		{"shape is a number", raw("{"+f32(`"a"`, "1", "[0,4]")+"}", "1234"), `tensor "a": shape is 1, want an array of integers`},
		{"shape is null", raw("{"+f32(`"a"`, "null", "[0,4]")+"}", "1234"), `tensor "a": shape is null, want an array`},
		{"negative dimension", raw("{"+f32(`"a"`, "[2,-1]", "[0,4]")+"}", "1234"), `tensor "a": shape[1] is -1, want an integer from 0`},
		{"fractional dimension", raw("{"+f32(`"a"`, "[1.0]", "[0,4]")+"}", "1234"), `tensor "a": shape[0] is 1.0, want an integer`},
		{"exponent dimension", raw("{"+f32(`"a"`, "[1e0]", "[0,4]")+"}", "1234"), `tensor "a": shape[0] is 1e0, want an integer`},
		{"string dimension", raw("{"+f32(`"a"`, `["1"]`, "[0,4]")+"}", "1234"), `tensor "a": shape[0] is "1", want an integer`},
		{"null dimension", raw("{"+f32(`"a"`, `[null]`, "[0,4]")+"}", "1234"), `tensor "a": shape[0] is null, want an integer`},
		{"boolean dimension", raw("{"+f32(`"a"`, `[true]`, "[0,4]")+"}", "1234"), `tensor "a": shape[0] is true, want an integer`},
		{"nested shape", raw("{"+f32(`"a"`, `[[1]]`, "[0,4]")+"}", "1234"), `tensor "a": shape[0] is an array, want an integer`},
		{"dimension of 2^63", raw("{"+f32(`"a"`, "[9223372036854775808]", "[0,4]")+"}", "1234"), `shape[0] is 9223372036854775808, want`},
		{"shape overflows", raw("{"+f32(`"a"`, "[4294967296,4294967296]", "[0,4]")+"}", "1234"), `tensor "a": shape [4294967296 4294967296] of F32 overflows`},
		{"size wraps around to the expected size", raw("{"+f32(`"a"`, "[4611686018427387905]", "[0,4]")+"}", "1234"), "overflows"},
		{"bytes overflow", raw("{"+f32(`"a"`, "["+most+"]", "[0,4]")+"}", "1234"), "overflows"},
		{"zero dimension, then overflow", raw("{"+f32(`"a"`, "[0,"+most+","+most+"]", "[0,0]")+"}", ""), "overflows"},
		{"overflow, then zero dimension", raw("{"+f32(`"a"`, "["+most+","+most+",0]", "[0,0]")+"}", ""), "overflows"},
		{"65 dimensions", raw("{"+f32(`"a"`, "[1"+strings.Repeat(",1", 64)+"]", "[0,4]")+"}", "1234"), `tensor "a": shape has more than 64 elements`},

		{"one offset", raw("{"+f32(`"a"`, "[1]", "[4]")+"}", "1234"), `tensor "a": data_offsets has 1 elements, want 2`},
		{"three offsets", raw("{"+f32(`"a"`, "[1]", "[0,4,8]")+"}", "1234"), `tensor "a": data_offsets has more than 2 elements`},
		{"negative offset", raw("{"+f32(`"a"`, "[1]", "[-4,0]")+"}", "1234"), `tensor "a": data_offsets[0] is -4, want an integer`},
		{"offsets backwards", raw("{"+f32(`"a"`, "[1]", "[4,0]")+"}", "1234"), `tensor "a": data_offsets are [4 0], want begin <= end`},
		{"offsets too close", raw("{"+f32(`"a"`, "[2]", "[0,4]")+"}", "1234"), `tensor "a": data_offsets [0 4] span 4 bytes, want 8 for F32 [2]`},
		{"offsets too far apart", raw("{"+f32(`"a"`, "[1]", "[0,8]")+"}", "12345678"), `tensor "a": data_offsets [0 8] span 8 bytes, want 4 for F32 [1]`},
		{"scalar without data", raw("{"+f32(`"a"`, "[]", "[0,0]")+"}", ""), `span 0 bytes, want 4 for F32 []`},
		{"empty tensor with data", raw("{"+f32(`"a"`, "[0]", "[0,4]")+"}", "1234"), `span 4 bytes, want 0 for F32 [0]`},
		{"offsets at the limit", raw("{"+f32(`"a"`, "[1]", "[9223372036854775803,"+most+"]")+"}", "1234"), "exceed the 4 bytes of data in the file"},
		{"no data", raw("{"+one(`"a"`)+"}", ""), `tensor "a": data_offsets [0 4] exceed the 0 bytes of data in the file`},
		{"truncated data", raw("{"+one(`"a"`)+"}", "123"), `tensor "a": data_offsets [0 4] exceed the 3 bytes of data in the file`},
		{"trailing bytes", raw("{"+one(`"a"`)+"}", "1234more"), "file has 8 bytes of data, want 4"},
		{"trailing bytes without tensors", raw("{}", "more"), "file has 4 bytes of data, want 0"},
		{"gap at the start", raw("{"+f32(`"a"`, "[1]", "[4,8]")+"}", "12345678"), `tensor "a": data_offsets [4 8] leave a gap, want begin 0`},
		{"gap", raw("{"+one(`"a"`)+","+f32(`"b"`, "[1]", "[8,12]")+"}", "123456789012"), `tensor "b": data_offsets [8 12] leave a gap, want begin 4`},
		{"overlap", raw("{"+f32(`"a"`, "[2]", "[0,8]")+","+f32(`"b"`, "[1]", "[4,8]")+"}", "12345678"),
			`tensor "b": data_offsets [4 8] overlap tensor "a", which ends at 8`},
		{"two tensors with the same offsets", raw("{"+one(`"a"`)+","+one(`"b"`)+"}", "1234"), `tensor "b": data_offsets [0 4] overlap tensor "a"`},
		{"empty tensor inside another", raw("{"+one(`"a"`)+","+f32(`"b"`, "[0]", "[2,2]")+"}", "1234"), `tensor "b": data_offsets [2 2] overlap tensor "a"`},
		{"empty tensor beyond the data", raw("{"+one(`"a"`)+","+f32(`"b"`, "[0]", "[8,8]")+"}", "1234"), `tensor "b": data_offsets [8 8] exceed`},

		{"deep arrays as shape", raw("{"+f32(`"a"`, strings.Repeat("[", 1<<20), "")+"}", ""), `exceeded max depth`},
		{"deep objects as tensor", raw("{"+strings.Repeat(`"a":{`, 1<<18), ""), `exceeded max depth`},
		{"deep objects as metadata", raw(`{"__metadata__":`+strings.Repeat(`{"a":`, 1<<18), ""), `exceeded max depth`},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			_, err := read(c.file)
			require.ErrorContains(t, err, c.want)
			assert.True(t, strings.HasPrefix(err.Error(), "safetensors: "), err)
			assert.NotErrorIs(t, err, io.EOF) // a caller might treat it as success

			path := filepath.Join(t.TempDir(), "bad.safetensors")
			require.NoError(t, os.WriteFile(path, c.file, 0o600))
			_, err = Open(path)
			require.ErrorContains(t, err, c.want)
			assert.Contains(t, err.Error(), path)
		})
	}
}

func TestWellFormed(t *testing.T) {
	f32 := func(name, shape, offsets string) string { return entry(name, `"F32"`, shape, offsets) }
	cases := []struct {
		name  string
		file  []byte
		names []string
	}{
		{"no tensors", raw("{}", ""), []string{}},
		{"other white space at the end", raw("{}\r \t\n", ""), []string{}},
		{"metadata only", raw(`{"__metadata__":{"k":"v"}}   `, ""), []string{}},
		{"scalar", raw("{"+f32(`"a"`, "[]", "[0,4]")+"}", "1234"), []string{"a"}},
		{"out of order", raw("{"+f32(`"a"`, "[1]", "[4,8]")+","+f32(`"b"`, "[1]", "[0,4]")+"}", "12345678"), []string{"b", "a"}},
		{"empty tensors between others", raw("{"+f32(`"a"`, "[1]", "[4,8]")+","+f32(`"d"`, "[0]", "[8,8]")+","+f32(`"c"`, "[2,0]", "[4,4]")+","+
			f32(`"b"`, "[1]", "[0,4]")+","+f32(`"e"`, "[0,9]", "[0,0]")+"}", "12345678"), []string{"e", "b", "c", "a", "d"}},
		{"empty name", raw("{"+f32(`""`, "[1]", "[0,4]")+"}", "1234"), []string{""}},
		{"escapes", raw("{"+f32(`"\"\\\/\u00e9\ud83d\ude00\\ud800"`, "[1]", "[0,4]")+"}", "1234"), []string{"\"\\/é😀\\ud800"}},
		{"64 dimensions", raw("{"+f32(`"a"`, "[1"+strings.Repeat(",1", 63)+"]", "[0,4]")+"}", "1234"), []string{"a"}},
		{"fields in another order", raw(`{ "a" : { "data_offsets" : [0, 4], "shape" : [ 1 ], "dtype" : "F32" } }`, "1234"), []string{"a"}},
		{"metadata is null", raw(`{"__metadata__":null,`+f32(`"a"`, "[1]", "[0,4]")+"}", "1234"), []string{"a"}},
		{"unknown fields", raw(`{"a":{"strides":[1,{"a":["}"]}],"dtype":"F32","DTYPE":1e5,"shape":[1],"":"\"","data_offsets":[0,4],"x":null}}`, "1234"), []string{"a"}},
		{"unaligned", raw("{"+entry(`"a"`, `"U8"`, "[3]", "[0,3]")+","+f32(`"b"`, "[1]", "[3,7]")+"} ", "1234567"), []string{"a", "b"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			f, err := read(c.file)
			require.NoError(t, err)
			assert.Equal(t, c.names, f.Names())
			for _, name := range f.Names() {
				info, ok := f.Info(name)
				require.True(t, ok)
				assert.NoError(t, f.ReadInto(name, make([]byte, info.Size())))
			}
			assert.NoError(t, f.Close())
		})
	}
}

func TestRead(t *testing.T) {
	head := "{" + strings.Join([]string{
		`"__metadata__":{"format":"pt","é":""}`,
		entry(`"f32"`, `"F32"`, "[2,1]", "[0,8]"),
		entry(`"f16"`, `"F16"`, "[2]", "[8,12]"),
		entry(`"bf16"`, `"BF16"`, "[]", "[12,14]"),
		entry(`"u8"`, `"U8"`, "[2]", "[14,16]"),
		entry(`"bool"`, `"BOOL"`, "[2]", "[16,18]"),
		entry(`"i32"`, `"I32"`, "[1]", "[18,22]"),
		entry(`"f64"`, `"F64"`, "[1]", "[22,30]"),
		entry(`"empty"`, `"F32"`, "[3,0]", "[30,30]"),
	}, ",") + "}"
	data := "\x00\x00\x80\x3f\x00\x00\x20\xc0" + "\x00\x3c\x01\x80" + "\x40\x40" + "\x07\xff" + "\x00\x01" + "\xfe\xff\xff\xff" + "12345678"
	path := filepath.Join(t.TempDir(), "x.safetensors")
	require.NoError(t, os.WriteFile(path, raw(head, data), 0o600))
	f, err := Open(path)
	require.NoError(t, err)
	defer func() { assert.NoError(t, f.Close()) }()

	assert.Equal(t, map[string]string{"format": "pt", "é": ""}, f.Metadata())
	info, ok := f.Info("f32")
	require.True(t, ok)
	assert.Equal(t, "f32", info.Name)
	assert.Equal(t, F32, info.DType)
	assert.Equal(t, []int64{2, 1}, info.Shape)
	assert.EqualValues(t, 8, info.Size())
	info.Shape[0] = 99
	again, _ := f.Info("f32")
	assert.Equal(t, []int64{2, 1}, again.Shape, "Info returns a copy")

	for name, want := range map[string][]float32{"f64": {6.82132e-38}, "f32": {1, -2.5}, "f16": {1, -0x1p-24}, "bf16": {3}, "empty": {}} {
		got, err := f.ReadFloat32(name)
		require.NoError(t, err)
		assert.Equal(t, want, got, name)
	}
	for name, want := range map[string][]uint8{"u8": {7, 255}, "bool": {0, 1}} {
		got, err := f.ReadUint8(name)
		require.NoError(t, err)
		assert.Equal(t, want, got, name)
	}
	integers, err := f.ReadInt32("i32")
	require.NoError(t, err)
	assert.Equal(t, []int32{-2}, integers)

	dst := make([]byte, 8)
	require.NoError(t, f.ReadInto("f64", dst))
	assert.Equal(t, "12345678", string(dst))
	r, err := f.Reader("f64")
	require.NoError(t, err)
	assert.EqualValues(t, 8, r.Size())
	all, err := io.ReadAll(r)
	require.NoError(t, err)
	assert.Equal(t, "12345678", string(all))

	for name, c := range map[string]struct {
		err  func() error
		want string
	}{
		"float32 of I32":  {func() error { _, err := f.ReadFloat32("i32"); return err }, `tensor "i32": dtype is I32, want F64, F32, F16 or BF16`},
		"int32 of F32":    {func() error { _, err := f.ReadInt32("f32"); return err }, `tensor "f32": dtype is F32, want I32`},
		"uint8 of I32":    {func() error { _, err := f.ReadUint8("i32"); return err }, `tensor "i32": dtype is I32, want U8 or BOOL`},
		"missing float32": {func() error { _, err := f.ReadFloat32("no"); return err }, `tensor "no" does not exist; the file has 8 tensors`},
		"missing int32":   {func() error { _, err := f.ReadInt32("no"); return err }, `tensor "no" does not exist`},
		"missing uint8":   {func() error { _, err := f.ReadUint8("no"); return err }, `tensor "no" does not exist`},
		"missing reader":  {func() error { _, err := f.Reader("no"); return err }, `tensor "no" does not exist`},
		"missing into":    {func() error { return f.ReadInto("__metadata__", nil) }, `tensor "__metadata__" does not exist`},
		"short dst":       {func() error { return f.ReadInto("f32", make([]byte, 7)) }, `tensor "f32": dst has 7 bytes, want 8 for F32 [2 1]`},
		"long dst":        {func() error { return f.ReadInto("f32", make([]byte, 9)) }, `tensor "f32": dst has 9 bytes, want 8 for F32 [2 1]`},
	} {
		err := c.err()
		require.ErrorContains(t, err, c.want, name)
		assert.True(t, strings.HasPrefix(err.Error(), "safetensors: "+path+": "), err)
	}
	_, ok = f.Info("no")
	assert.False(t, ok)
}

// TestReadChunks reads tensors of about the size of the buffer of readAs.
func TestReadChunks(t *testing.T) {
	for _, n := range []int{1, 16<<10 - 1, 16 << 10, 16<<10 + 1, 50_000} {
		want := make([]float32, n)
		for i := range want {
			want[i] = float32(i) - 0.5
		}
		path := filepath.Join(t.TempDir(), "x.safetensors")
		require.NoError(t, Write(path, nil, []Tensor{{Name: "x", DType: F32, Shape: []int64{int64(n)}, Data: Float32s(want)}}))
		f, err := Open(path)
		require.NoError(t, err)
		got, err := f.ReadFloat32("x")
		require.NoError(t, err)
		assert.Equal(t, want, got)
		require.NoError(t, f.Close())
	}
}

func TestOpenErrors(t *testing.T) {
	dir := t.TempDir()
	_, err := Open(filepath.Join(dir, "none"))
	assert.ErrorIs(t, err, os.ErrNotExist)
	_, err = Open(dir)
	assert.ErrorContains(t, err, "want a regular file")
	_, err = NewReader(bytes.NewReader(nil), -1)
	assert.ErrorContains(t, err, "file has -1 bytes")
}

func TestClose(t *testing.T) {
	var none *File
	assert.NoError(t, none.Close())
	path := filepath.Join(t.TempDir(), "x.safetensors")
	require.NoError(t, os.WriteFile(path, raw("{"+entry(`"a"`, `"U8"`, "[1]", "[0,1]")+"}", "1"), 0o600))
	f, err := Open(path)
	require.NoError(t, err)
	assert.NoError(t, f.Close())
	assert.NoError(t, f.Close())
	_, err = f.ReadUint8("a")
	assert.ErrorIs(t, err, os.ErrClosed)
	assert.ErrorContains(t, err, `read tensor "a"`)
}

// TestTruncatedAfterOpen reads a file that was truncated after Open.
func TestTruncatedAfterOpen(t *testing.T) {
	file := raw("{"+entry(`"a"`, `"U8"`, "[4]", "[0,4]")+"}", "1234")
	path := filepath.Join(t.TempDir(), "x.safetensors")
	require.NoError(t, os.WriteFile(path, file, 0o600))
	f, err := Open(path)
	require.NoError(t, err)
	defer f.Close()
	require.NoError(t, os.Truncate(path, int64(len(file)-1)))
	_, err = f.ReadUint8("a")
	assert.ErrorIs(t, err, io.ErrUnexpectedEOF)
	assert.ErrorIs(t, f.ReadInto("a", make([]byte, 4)), io.ErrUnexpectedEOF)
}

// TestReadFloat64 rounds to float32; a finite value must not become infinite.
func TestReadFloat64(t *testing.T) {
	write := func(values ...float64) *File {
		var data []byte
		for _, v := range values {
			data = binary.LittleEndian.AppendUint64(data, math.Float64bits(v))
		}
		var b bytes.Buffer
		require.NoError(t, WriteTo(&b, nil, []Tensor{{"x", F64, []int64{int64(len(values))}, Bytes(data)}}))
		f, err := read(b.Bytes())
		require.NoError(t, err)
		return f
	}
	inf := math.Inf(1)
	got, err := write(0.1, -math.MaxFloat32, 0x1.ffffffp0, 0x1.fffffefffffffp127, 1e-300, inf, -inf).ReadFloat32("x")
	require.NoError(t, err)
	infinite := float32(inf)
	assert.Equal(t, []float32{0.1, -math.MaxFloat32, 2, math.MaxFloat32, 0, infinite, -infinite}, got)
	got, err = write(math.NaN()).ReadFloat32("x")
	require.NoError(t, err)
	assert.True(t, got[0] != got[0])
	long := make([]float64, 20_000)
	long[9_000], long[15_000] = -1e39, 1e300
	_, err = write(long...).ReadFloat32("x")
	assert.EqualError(t, err, `safetensors: tensor "x": element 9000 is -1e+39, beyond the range of float32`)
}

func TestNilFile(t *testing.T) {
	var f *File
	assert.Empty(t, f.Names())
	assert.Nil(t, f.Metadata())
	_, ok := f.Info("x")
	assert.False(t, ok)
	_, err := f.ReadFloat32("x")
	assert.EqualError(t, err, "safetensors: the file is nil, want one of Open")
	_, err = f.Reader("x")
	assert.Error(t, err)
	assert.Error(t, f.ReadInto("x", nil))
}
