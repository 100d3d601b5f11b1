package safetensors

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestGolden reads the golden cases, which the reference implementation wrote, and writes them again. The data and its
// order must not change.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("../testdata/golden/*.safetensors")
	require.NoError(t, err)
	if len(files) == 0 {
		t.Skip("no golden cases in testdata/golden")
	}
	for _, path := range files {
		t.Run(filepath.Base(path), func(t *testing.T) {
			f, err := Open(path)
			require.NoError(t, err)
			defer func() { assert.NoError(t, f.Close()) }()
			assert.NotEmpty(t, f.Metadata()["module"])
			for _, key := range []string{"config", "call"} {
				assert.True(t, json.Valid([]byte(f.Metadata()[key])), key)
			}
			require.NotEmpty(t, f.Names())
			for _, name := range f.Names() {
				assert.Contains(t, "param in out grad route", strings.SplitN(name, ".", 2)[0])
				checkRead(t, f, name)
			}

			path := filepath.Join(t.TempDir(), "copy")
			require.NoError(t, Write(path, f.Metadata(), copied(t, f)))
			again, err := Open(path)
			require.NoError(t, err)
			defer func() { assert.NoError(t, again.Close()) }()
			assert.Equal(t, f.Names(), again.Names())
			assert.Equal(t, f.Metadata(), again.Metadata())
			want, got := dataOf(t, f.name, f.shards[0].data), dataOf(t, path, again.shards[0].data)
			assert.True(t, bytes.Equal(want, got), "the data changed")
		})
	}
}

// checkRead reads a tensor with the method for its dtype and checks the number of elements.
func checkRead(t *testing.T, f *File, name string) {
	t.Helper()
	info, ok := f.Info(name)
	require.True(t, ok)
	count := int64(1)
	for _, d := range info.Shape {
		count *= d
	}
	var n int
	var err error
	switch info.DType {
	case F32:
		var v []float32
		v, err = f.ReadFloat32(name)
		n = len(v)
	case I32:
		var v []int32
		v, err = f.ReadInt32(name)
		n = len(v)
	default:
		var v []uint8
		v, err = f.ReadUint8(name)
		n = len(v)
	}
	require.NoError(t, err)
	assert.EqualValues(t, count, n, name)
}

func dataOf(t *testing.T, path string, from int64) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	return b[from:]
}
