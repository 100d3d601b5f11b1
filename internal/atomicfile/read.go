package atomicfile

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
)

// Read reads a regular file of at most so many bytes. Anything else is an error at once: opening a named pipe would wait
// for a writer, and the size of a device or of a sparse file has no bound.
func Read(path string, most int64) (data []byte, err error) {
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	stat, err := file.Stat()
	switch {
	case err != nil:
		return nil, err
	case !stat.Mode().IsRegular():
		return nil, fmt.Errorf("%s: mode is %v, want a regular file", path, stat.Mode())
	case stat.Size() > most:
		return nil, fmt.Errorf("%s: %d bytes, want at most %d", path, stat.Size(), most)
	}
	data, err = io.ReadAll(io.LimitReader(file, most+1)) // the file may grow
	if int64(len(data)) > most {
		return nil, fmt.Errorf("%s: more than %d bytes", path, most)
	}
	return data, err
}
