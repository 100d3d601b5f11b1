// Package input reads files up to a limit.
package input

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/colt5-vulkan/colt5/internal/cli/table"
)

// Limits of ReadFile in bytes: for configurations, and for rows that vkbench wrote.
const (
	ConfigLimit  = 1 << 20
	ResultsLimit = 256 << 20
)

// ReadFile reads a regular file of at most limit bytes. Other files, such as pipes and devices, may be endless or block
// for ever.
func ReadFile(path string, limit int64) ([]byte, error) {
	stat, err := os.Stat(path) // before the file is opened, which blocks for a pipe
	if err != nil {
		return nil, err
	}
	if !stat.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is %s, want a regular file", path, kindOf(stat.Mode()))
	}
	if stat.Size() > limit {
		return nil, tooLarge(path, table.Size(stat.Size()).String(), limit)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	data, err := ReadAll(f, path, limit)
	return data, errors.Join(err, f.Close())
}

// ReadAll reads at most limit bytes. More of them are an error, which calls the source name.
func ReadAll(r io.Reader, name string, limit int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(data)) > limit {
		return nil, tooLarge(name, "more", limit)
	}
	return data, err
}

func tooLarge(name, size string, limit int64) error {
	return fmt.Errorf("%s has %s, want at most %v", name, size, table.Size(limit))
}

// kindOf describes a file that is not regular.
func kindOf(mode os.FileMode) string {
	switch {
	case mode.IsDir():
		return "a folder"
	case mode&os.ModeNamedPipe != 0:
		return "a pipe"
	case mode&os.ModeDevice != 0:
		return "a device"
	case mode&os.ModeSocket != 0:
		return "a socket"
	}
	return "no regular file"
}
