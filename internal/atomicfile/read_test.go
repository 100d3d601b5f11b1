//go:build unix

package atomicfile_test

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/atomicfile"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestRead(t *testing.T) {
	dir := t.TempDir()
	file, pipe := filepath.Join(dir, "file"), filepath.Join(dir, "pipe")
	require.NoError(t, os.WriteFile(file, []byte("1234"), 0o644))
	require.NoError(t, syscall.Mkfifo(pipe, 0o644))
	data, err := atomicfile.Read(file, 4)
	require.NoError(t, err)
	assert.Equal(t, "1234", string(data))
	for path, want := range map[string]string{
		file: "file: 4 bytes, want at most 3", pipe: "pipe: mode is prw-r--r--, want a regular file", dir: ": mode is drwx",
		"/dev/zero": "want a regular file", filepath.Join(dir, "none"): "no such file",
	} {
		_, err := atomicfile.Read(path, 3)
		assert.ErrorContains(t, err, want)
	}
	_, err = atomicfile.Lock(pipe)
	assert.Error(t, err, "the lock file is a pipe")
}
