package input

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestReadFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	require.NoError(t, os.WriteFile(path, []byte("12345"), 0o644))
	data, err := ReadFile(path, 5)
	require.NoError(t, err)
	assert.Equal(t, "12345", string(data))
	_, err = ReadFile(path, 4)
	assert.EqualError(t, err, path+" has 5 B, want at most 4 B")

	large := filepath.Join(dir, "large") // sparse: it takes no space
	require.NoError(t, os.WriteFile(large, nil, 0o644))
	require.NoError(t, os.Truncate(large, 200<<30))
	_, err = ReadFile(large, ResultsLimit)
	assert.EqualError(t, err, large+" has 200 GiB, want at most 256 MiB")

	_, err = ReadFile(dir, 5)
	assert.EqualError(t, err, dir+" is a folder, want a regular file")
	_, err = ReadFile(filepath.Join(dir, "none"), 5)
	assert.ErrorIs(t, err, os.ErrNotExist)
}

func TestReadAll(t *testing.T) {
	data, err := ReadAll(strings.NewReader("12345"), "it", 5)
	require.NoError(t, err)
	assert.Equal(t, "12345", string(data))
	_, err = ReadAll(endless{}, "the input", 1<<20)
	assert.EqualError(t, err, "the input has more, want at most 1 MiB")
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }
