//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd)

package atomicfile

import (
	"errors"
	"os"
	"time"
)

// ErrLocked: another process, or another caller in this one, has locked the file.
var ErrLocked = errors.New("the file is locked")

// lock fails: the systems of this file have no flock.
func lock(string) (unlock func(), err error) { return nil, errors.ErrUnsupported }

// removeUnlocked removes a file that has not changed for a day. Windows does not remove an open file.
func removeUnlocked(path string) {
	if stat, err := os.Lstat(path); err == nil && time.Since(stat.ModTime()) > foreign {
		os.Remove(path)
	}
}
