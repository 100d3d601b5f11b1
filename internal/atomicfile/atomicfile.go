// Package atomicfile writes files whole or not at all.
//
// Of the public modules for this none syncs the directory, without which a rename may not outlast a power failure, and none follows
// a symbolic link to the file that it stands for: what would be left to add is most of this package.
package atomicfile

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
)

// Write writes a file of parts, one after the other, as WriteFunc does.
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

// WriteFunc writes a file at path, replacing one that is there, with what write writes, once, to w, which is not buffered.
//
// The data goes to a temporary file in the same directory, which is synced and then renamed. When WriteFunc fails, or panics because write
// does, the earlier file is there, whole, and the temporary one is removed; when the machine fails, the earlier file or the new one is
// there. (One failure comes later: when the directory cannot be synced, the error says so and the new file is in place.)
//
// A replaced file's permissions are kept, a new one's are those of any file: the umask decides. If path is a symbolic link, the file it points
// to is replaced. What is there and is no regular file stays, and is an error.
func WriteFunc(path string, write func(w io.Writer) error) (err error) {
	path, mode, err := target(path)
	if err != nil {
		return err
	}
	dir := filepath.Dir(path)
	// Not os.CreateTemp, which lets only the owner read the file.
	temporary := filepath.Join(dir, fmt.Sprintf(".colt5-%016x.tmp", rand.Uint64()))
	file, err := os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return err
	}
	renamed := false
	defer func() { // also when write panics
		if !renamed {
			file.Close() // fails when it was closed already
			err = errors.Join(err, os.Remove(temporary))
		}
	}()
	if mode != 0 {
		if err := file.Chmod(mode); err != nil {
			return err
		}
	}
	if err := write(file); err != nil {
		return err
	}
	if err := file.Sync(); err != nil {
		return err
	}
	if err := file.Close(); err != nil {
		return err
	}
	if err := os.Rename(temporary, path); err != nil {
		return err
	}
	renamed = true
	return syncDir(dir)
}

// target follows a symbolic link at path, and returns the permissions of the file that is there, or 0 for none.
func target(path string) (string, os.FileMode, error) {
	stat, err := os.Lstat(path)
	if err == nil && stat.Mode()&os.ModeSymlink != 0 {
		if path, err = filepath.EvalSymlinks(path); err == nil {
			stat, err = os.Lstat(path)
		}
		if err != nil { // a link to nothing: there is no telling where the file belongs
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

// syncDir makes a rename last. Windows has no such call, and some file systems refuse it; then nothing is left to do.
func syncDir(path string) error {
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
	return fmt.Errorf("the new file is in place, but may not outlast a power failure: %w", err)
}
