package atomicfile

import (
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"syscall"
	"time"
)

// Names of temporary files are prefix, eight digits that identify the machine, "-", 16 random digits, and suffix. On a
// network file system a lock may be known only to the machine that holds it, so the files of other machines must also be
// unchanged for a day before they are removed.
const (
	prefix    = ".colt5-"
	suffix    = ".tmp"
	foreign   = 24 * time.Hour
	maxListed = 10_000 // entries of a directory that removeAbandoned examines
)

var pattern = regexp.MustCompile(`^\.colt5-([0-9a-f]{8})-[0-9a-f]{16}\.tmp$`)

func machine() string {
	name, _ := os.Hostname() // "" if unknown: then no other machine is told from this one
	h := fnv.New32a()
	io.WriteString(h, name)
	return fmt.Sprintf("%08x", h.Sum32())
}

// temporary is a new temporary file, which is locked until unlock.
type temporary struct {
	path   string
	file   *os.File
	unlock func()
}

// create creates a temporary file. os.CreateTemp is not used, because its files have mode 0600.
func create(dir string) (temporary, error) {
	for range 100 {
		path := filepath.Join(dir, fmt.Sprintf("%s%s-%016x%s", prefix, machine(), rand.Uint64(), suffix))
		file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
		if errors.Is(err, os.ErrExist) {
			continue
		}
		if err != nil {
			return temporary{}, err
		}
		unlock, err := lock(path)
		switch {
		case err == nil && same(file, path):
			return temporary{path, file, unlock}, nil
		case err == nil: // removeAbandoned of another process was faster than the lock
			unlock()
		case errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE):
			return temporary{}, errors.Join(err, file.Close(), os.Remove(path))
		case !errors.Is(err, ErrLocked) && !errors.Is(err, os.ErrNotExist): // the file system has no locks
			return temporary{path, file, func() {}}, nil
		}
		if err := file.Close(); err != nil {
			return temporary{}, err
		}
	}
	return temporary{}, fmt.Errorf("%s: every new temporary file was removed at once", dir)
}

// same reports whether path is still an open file.
func same(file *os.File, path string) bool {
	opened, err := file.Stat()
	if err != nil {
		return false
	}
	now, err := os.Lstat(path)
	return err == nil && os.SameFile(opened, now)
}

// removeAbandoned removes the temporary files of killed processes. Errors do not matter: the files stay.
func removeAbandoned(dir string) {
	d, err := os.Open(dir)
	if err != nil {
		return
	}
	names, _ := d.Readdirnames(maxListed)
	d.Close()
	for _, name := range names {
		parts := pattern.FindStringSubmatch(name)
		if parts == nil {
			continue
		}
		path, age := filepath.Join(dir, name), time.Duration(0)
		if parts[1] != machine() {
			age = foreign
		}
		if stat, err := os.Lstat(path); err == nil && stat.Mode().IsRegular() && time.Since(stat.ModTime()) >= age {
			removeUnlocked(path)
		}
	}
}
