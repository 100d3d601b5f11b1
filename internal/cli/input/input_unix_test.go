//go:build unix

package input

import (
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestReadFileEndless has files that would block, or never end.
func TestReadFileEndless(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "pipe")
	require.NoError(t, syscall.Mkfifo(pipe, 0o600))
	_, err := ReadFile(pipe, 5)
	assert.EqualError(t, err, pipe+" is a pipe, want a regular file")
	_, err = ReadFile("/dev/zero", 5)
	assert.EqualError(t, err, "/dev/zero is a device, want a regular file")
}
