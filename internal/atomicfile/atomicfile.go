// Package atomicfile writes files atomically: a file is replaced as a whole or not at all.
//
// The public Go modules for this do not sync the directory, so a rename may be lost in a power failure, and they do not
// follow symbolic links. Both would have to be added around such a module, so this package does without.
package atomicfile

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
)

// Write writes the concatenation of parts to a file, as WriteFunc does.
func Write(path string, parts ...[]byte) error {
	return WriteFunc(path, func(w io.Writer) error {
		for _, p := range parts {
			if _, err := w.Write(p); err != nil {
				return err
			}
		}
		return nil
	})
}

// WriteFunc writes a file at path and replaces an existing one. write is called once, with an unbuffered writer.
//
// The data goes to a temporary file in the same directory, which is synced and then renamed. If WriteFunc fails or
// write panics, the earlier file is intact and the temporary file is removed. After a power failure path holds either
// the earlier file or the new one. There is one exception: if syncing the directory fails, WriteFunc returns an error
// but the new file is in place.
//
// A process that is killed leaves its temporary file behind. WriteFunc removes such files from the directory first; a
// temporary file is locked while its process lives. Where files cannot be locked, they stay.
//
// A replaced file keeps its permissions; a new file has those that the umask gives. If path is a symbolic link, the
// file that it points to is replaced. Anything else than a regular file at path is an error and is left unchanged.
func WriteFunc(path string, write func(w io.Writer) error) (err error) {
	path, mode, err := target(path)
	if err != nil {
		return err
	}
	dir := filepath.Dir(path)
	removeAbandoned(dir)
	t, err := create(dir)
	if err != nil {
		return err
	}
	renamed := false
	defer func() { // runs also if write panics
		if !renamed {
			t.file.Close() // fails if already closed
			err = errors.Join(err, os.Remove(t.path))
		}
		t.unlock()
	}()
	if mode != 0 {
		if err := t.file.Chmod(mode); err != nil {
			return err
		}
	}
	if err := write(t.file); err != nil {
		return err
	}
	if err := t.file.Sync(); err != nil {
		return err
	}
	if err := t.file.Close(); err != nil {
		return err
	}
	if err := os.Rename(t.path, path); err != nil {
		return err
	}
	renamed = true
	if err := SyncDir(dir); err != nil {
		return fmt.Errorf("the new file is in place, but may be lost in a power failure: %w", err)
	}
	return nil
}

// target resolves a symbolic link at path. It returns the permissions of the existing file, 0 if there is none.
func target(path string) (string, os.FileMode, error) {
	stat, err := os.Lstat(path)
	if err == nil && stat.Mode()&os.ModeSymlink != 0 {
		if path, err = filepath.EvalSymlinks(path); err == nil {
			stat, err = os.Lstat(path)
		}
		if err != nil { // a broken link has no file to replace
			return "", 0, err
		}
	}
	if errors.Is(err, os.ErrNotExist) {
		return path, 0, nil
	}
	if err != nil {
		return "", 0, err
	}
	if !stat.Mode().IsRegular() {
		return "", 0, fmt.Errorf("%s: mode is %v, want a regular file or none", path, stat.Mode())
	}
	return path, stat.Mode().Perm(), nil
}

// SyncDir makes durable which files a directory has. Windows and some file systems do not support it, which is not an
// error.
func SyncDir(path string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	dir, err := os.Open(path)
	if err == nil {
		err = errors.Join(dir.Sync(), dir.Close())
	}
	if err == nil || errors.Is(err, errors.ErrUnsupported) || errors.Is(err, syscall.EINVAL) {
		return nil
	}
	return err
}

// Lock locks the file at path, which it creates if there is none, until unlock or the end of the process. The file stays.
// The error is ErrLocked, or [errors.ErrUnsupported] on systems and file systems without locks.
func Lock(path string) (unlock func(), err error) {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|syscall.O_NONBLOCK, 0o666) // a named pipe must not block
	if err != nil {
		return nil, err
	}
	if err := file.Close(); err != nil {
		return nil, err
	}
	return lock(path)
}
