package safetensors

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
)

// opened is a file that can be read at any offset.
type opened struct {
	r      io.ReaderAt
	closer io.Closer
	size   int64
}

// openFile opens a file of the operating system.
func openFile(path string) (opened, error) {
	// Checked before os.Open, because opening a named pipe blocks until it has a writer.
	if stat, err := os.Stat(path); err != nil {
		return opened{}, err
	} else if !stat.Mode().IsRegular() {
		return opened{}, fmt.Errorf("mode is %v, want a regular file", stat.Mode())
	}
	file, err := os.Open(path)
	if err != nil {
		return opened{}, err
	}
	stat, err := file.Stat()
	if err != nil {
		return opened{}, errors.Join(err, file.Close())
	}
	return opened{file, file, stat.Size()}, nil
}

// openInFS opens a file of a file system.
func openInFS(fsys fs.FS, name string) (opened, error) {
	if stat, err := fs.Stat(fsys, name); err != nil {
		return opened{}, err
	} else if !stat.Mode().IsRegular() {
		return opened{}, fmt.Errorf("mode is %v, want a regular file", stat.Mode())
	}
	file, err := fsys.Open(name)
	if err != nil {
		return opened{}, err
	}
	stat, err := file.Stat()
	if err != nil {
		return opened{}, errors.Join(err, file.Close())
	}
	if r, ok := file.(io.ReaderAt); ok {
		return opened{r, file, stat.Size()}, nil
	}
	s := &sequential{fsys: fsys, name: name, file: file}
	return opened{s, s, stat.Size()}, nil
}

// sequential reads at any offset from a file that only reads forwards. To go back it opens the file again.
type sequential struct {
	fsys fs.FS
	name string

	mu     sync.Mutex
	file   fs.File // nil after an error
	at     int64
	closed bool
}

func (s *sequential) ReadAt(b []byte, at int64) (n int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return 0, os.ErrClosed
	}
	if at < s.at || s.file == nil {
		if err := s.reopen(); err != nil {
			return 0, err
		}
	}
	skipped, err := io.CopyN(io.Discard, s.file, at-s.at)
	s.at += skipped
	if err == nil {
		n, err = io.ReadFull(s.file, b)
		s.at += int64(n)
	}
	if err == io.ErrUnexpectedEOF {
		err = io.EOF
	}
	return n, err
}

func (s *sequential) reopen() error {
	var err error
	if s.file != nil {
		err = s.file.Close()
	}
	s.file, s.at = nil, 0
	if err == nil {
		s.file, err = s.fsys.Open(s.name)
	}
	return err
}

func (s *sequential) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if s.file == nil {
		return nil
	}
	file := s.file
	s.file = nil
	return file.Close()
}

// cause returns an error without the path, which the caller adds.
func cause(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}
