//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package atomicfile

import (
	"errors"
	"os"
	"syscall"
)

// ErrLocked: another process, or another caller in this one, has locked the file.
var ErrLocked = errors.New("the file is locked")

// lock locks a regular file against the other processes and the other callers in this one. The lock ends with the
// process. It needs a descriptor of its own, because it must last until the file, closed, has been renamed.
func lock(path string) (unlock func(), err error) {
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if stat, err := file.Stat(); err != nil || !stat.Mode().IsRegular() {
		return nil, errors.Join(errors.New("not a regular file"), err, file.Close())
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		file.Close()
		if err == syscall.EWOULDBLOCK {
			err = ErrLocked
		}
		return nil, err
	}
	return func() { file.Close() }, nil
}

// removeUnlocked removes a file that no process has locked.
func removeUnlocked(path string) {
	if unlock, err := lock(path); err == nil {
		os.Remove(path)
		unlock()
	}
}
