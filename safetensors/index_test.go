package safetensors

import (
	"archive/zip"
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// byteTensors returns a file with a U8 tensor of one element for each name: its first byte.
func byteTensors(t *testing.T, metadata map[string]string, names ...string) string {
	t.Helper()
	var tensors []Tensor
	for _, n := range names {
		tensors = append(tensors, Tensor{n, U8, []int64{1}, Bytes([]byte(n)[:1])})
	}
	var b bytes.Buffer
	require.NoError(t, WriteTo(&b, metadata, tensors))
	return b.String()
}

// checkpoint returns the files of a checkpoint of two shards, changed by edits.
func checkpoint(t *testing.T, edits map[string]string) fstest.MapFS {
	files := map[string]string{
		"m/model.safetensors.index.json": "{\n  \"metadata\": {\"total_size\": 3, \"x\": [1.5]},\n" +
			`  "weight_map": {"c": "model-1.safetensors", "a": "model-2.safetensors", "b": "model-1.safetensors"}}`,
		"m/model-1.safetensors": byteTensors(t, map[string]string{"format": "pt", "n": "1"}, "b", "c"),
		"m/model-2.safetensors": byteTensors(t, map[string]string{"n": "2", "m": "3"}, "a"),
	}
	for name, text := range edits {
		files[name] = text
	}
	m := fstest.MapFS{}
	for name, text := range files {
		if text != "none" {
			m[name] = &fstest.MapFile{Data: []byte(text)}
		}
	}
	return m
}

// zipped returns the files in a zip archive, whose files can only be read forwards.
func zipped(t *testing.T, files fstest.MapFS) fs.FS {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for name, f := range files {
		to, err := w.Create(name)
		require.NoError(t, err)
		_, err = to.Write(f.Data)
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	r, err := zip.NewReader(bytes.NewReader(b.Bytes()), int64(b.Len()))
	require.NoError(t, err)
	return r
}

const indexName = "m/model.safetensors.index.json"

func TestShards(t *testing.T) {
	files := checkpoint(t, nil)
	dir := t.TempDir()
	require.NoError(t, os.CopyFS(dir, files))
	for name, open := range map[string]func() (*File, error){
		"path":        func() (*File, error) { return Open(filepath.Join(dir, indexName)) },
		"directory":   func() (*File, error) { return OpenFS(os.DirFS(dir), indexName) },
		"file system": func() (*File, error) { return OpenFS(files, indexName) },
		"zip archive": func() (*File, error) { return OpenFS(zipped(t, files), indexName) },
	} {
		t.Run(name, func(t *testing.T) {
			f, err := open()
			require.NoError(t, err)
			assert.Equal(t, []string{"b", "c", "a"}, f.Names())
			assert.Equal(t, map[string]string{"format": "pt", "n": "1", "m": "3"}, f.Metadata())
			for _, name := range []string{"a", "c", "b", "a"} { // backwards, too
				got, err := f.ReadUint8(name)
				require.NoError(t, err)
				assert.Equal(t, []uint8{name[0]}, got)
				r, err := f.Reader(name)
				require.NoError(t, err)
				assert.EqualValues(t, 1, r.Size())
			}
			_, err = f.ReadFloat32("c")
			assert.ErrorContains(t, err, `index.json: shard "model-1.safetensors": tensor "c": dtype is U8`)
			_, err = f.ReadUint8("no")
			assert.ErrorContains(t, err, `index.json: tensor "no" does not exist; the file has 3 tensors`)
			require.NoError(t, f.Close())
			require.NoError(t, f.Close())
			if name != "file system" { // whose files do not notice
				_, err = f.ReadUint8("a")
				assert.ErrorIs(t, err, os.ErrClosed)
			}
		})
	}
}

func TestShardErrors(t *testing.T) {
	index := func(pairs ...string) map[string]string {
		return map[string]string{indexName: `{"weight_map": {` + strings.Join(pairs, ",") + "}}"}
	}
	a, b, c := `"a":"model-2.safetensors"`, `"b":"model-1.safetensors"`, `"c":"model-1.safetensors"`
	var thousand, names []string
	for i := range 1001 {
		thousand = append(thousand, fmt.Sprintf(`"%d":"%d"`, i, i))
		names = append(names, fmt.Sprintf(`"x%03d":"model-1.safetensors"`, i))
	}
	for _, c := range []struct {
		name  string
		edits map[string]string
		want  string
	}{
		{"no shard", map[string]string{"m/model-1.safetensors": "none"}, `shard "model-1.safetensors": file does not exist`},
		{"truncated shard", map[string]string{"m/model-1.safetensors": byteTensors(t, nil, "b", "c")[:100]}, `shard "model-1.safetensors": header length is`},
		{"shard is an index", index(a, `"b":"model.safetensors.index.json"`), `shard "model.safetensors.index.json": it is the index of a sharded checkpoint`},
		{"shard is a pickle", map[string]string{"m/model-2.safetensors": "PK\x03\x04 model/data.pkl"}, `shard "model-2.safetensors": it is a PyTorch pickle`},
		{"missing tensor", index(a, b, c, `"d":"model-2.safetensors"`), `tensor "d" is missing in shard "model-2.safetensors"`},
		{"in another shard", index(a, b, `"c":"model-2.safetensors"`), `"model-1.safetensors" has tensor "c", which the index does not list there; tensor "c" is missing in shard "model-2.safetensors"`},
		{"unlisted tensor", index(a, b), `shard "model-1.safetensors" has tensor "c", which the index does not list there`},
		{"many missing tensors", index(append(names, a, b, c)...), "; ... and 998 more"},
		{"outside", index(a, `"b":"../m/model-1.safetensors"`), `weight_map "b" is "../m/model-1.safetensors", want a file in the directory of the index`},
		{"absolute", index(`"b":"/etc/passwd"`), `weight_map "b" is "/etc/passwd", want a file in the directory`},
		{"directory", index(`"b":"."`), `weight_map "b" is ".", want a file`},
		{"empty name", index(`"b":""`), `weight_map "b" is "", want a file`},
		{"escape sequence", index(`"b":"\u001b[31m"`), `weight_map "b" is "\x1b[31m", want a file`},
		{"long name", index(`"b":"` + strings.Repeat("x", 256) + `"`), `want a file in the directory of the index`},
		{"not a string", index(`"b":null`), `weight_map "b" is null, want a string`},
		{"duplicate", index(a, a), `weight_map has duplicate key "a"`},
		{"too many shards", index(thousand...), "weight_map has more than 1000 files"},
		{"empty", index(), "weight_map is empty, want at least one tensor"},
		{"two maps", map[string]string{indexName: `{"weight_map":{},"weight_map":{}}`}, "index has duplicate key weight_map"},
		{"array", map[string]string{indexName: `{"weight_map":[]}`}, "weight_map is an array, want an object"},
		{"truncated", map[string]string{indexName: `{"weight_map":{"a":"b"`}, "index is not valid JSON at byte 22"},
		{"config", map[string]string{indexName: `{"dim":64}   `}, "it is a JSON document without a weight_map, want a safetensors file or the index of a sharded checkpoint"},
		{"large", map[string]string{indexName: `{"weight_map":{}}` + strings.Repeat(" ", maxIndex)}, "it is JSON of 33554449 bytes, want at most 33554432 for an index"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := OpenFS(checkpoint(t, c.edits), indexName)
			require.ErrorContains(t, err, c.want)
			assert.True(t, strings.HasPrefix(err.Error(), "safetensors: "+indexName+": "), err)
			assert.Equal(t, 1, strings.Count(err.Error(), indexName+": "), err)
			assert.Less(t, len(err.Error()), 500)
		})
	}
	f := checkpoint(t, nil)[indexName].Data
	_, err := read(f)
	assert.ErrorContains(t, err, "it is the index of a sharded checkpoint, want a safetensors file; open it with Open or OpenFS")
}

// TestOpenFS opens single files of file systems.
func TestOpenFS(t *testing.T) {
	files := fstest.MapFS{"x": {Data: []byte(byteTensors(t, nil, "a", "b"))}, "bad": {Data: []byte("1234567")}, "d/x": {}}
	for name, fsys := range map[string]fs.FS{"map": files, "zip": zipped(t, files)} {
		f, err := OpenFS(fsys, "x")
		require.NoError(t, err, name)
		got, err := f.ReadUint8("b")
		require.NoError(t, err)
		assert.Equal(t, []uint8{'b'}, got)
		require.NoError(t, f.Close())
		_, err = OpenFS(fsys, "bad")
		assert.EqualError(t, err, "safetensors: bad: file has 7 bytes, want at least 8 for the header length")
		_, err = OpenFS(fsys, "no")
		assert.ErrorIs(t, err, fs.ErrNotExist)
		_, err = OpenFS(fsys, "d")
		assert.ErrorContains(t, err, "want a regular file")
		_, err = OpenFS(fsys, "../x")
		assert.Error(t, err)
	}
	_, err := OpenFS(nil, "x")
	assert.EqualError(t, err, "safetensors: fsys is nil, want a file system")
	_, err = NewReader(nil, 8)
	assert.EqualError(t, err, "safetensors: r is nil, want an io.ReaderAt")
}

// counted counts how often files are opened.
type counted struct {
	fs.FS
	opened int
}

func (c *counted) Open(name string) (fs.File, error) {
	c.opened++
	return c.FS.Open(name)
}

// TestForwardOnly reads a large file that can only be read forwards: in the order of Names it is read once.
func TestForwardOnly(t *testing.T) {
	var tensors []Tensor
	data := map[string][]byte{}
	for i := range 20 {
		name := fmt.Sprint(i)
		data[name] = bytes.Repeat([]byte{byte(i)}, 10_000*i)
		tensors = append(tensors, Tensor{name, U8, []int64{int64(len(data[name]))}, Bytes(data[name])})
	}
	var b bytes.Buffer
	require.NoError(t, WriteTo(&b, nil, tensors))
	fsys := &counted{FS: zipped(t, fstest.MapFS{"x": {Data: b.Bytes()}})}
	f, err := OpenFS(fsys, "x")
	require.NoError(t, err)
	before := fsys.opened
	for _, name := range f.Names() {
		got, err := f.ReadUint8(name)
		require.NoError(t, err)
		assert.True(t, bytes.Equal(data[name], got))
	}
	assert.LessOrEqual(t, fsys.opened, before+1, "the file was read from its start more than once")
	require.NoError(t, f.Close())
}
