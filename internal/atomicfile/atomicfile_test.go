package atomicfile

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// assertFiles checks the names of the files in a directory, to find temporary files left behind.
func assertFiles(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	assert.Equal(t, want, got)
}

func assertContent(t *testing.T, path, want string) {
	t.Helper()
	got, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Equal(t, want, string(got))
}

func mode(t *testing.T, path string) os.FileMode {
	t.Helper()
	stat, err := os.Stat(path)
	require.NoError(t, err)
	return stat.Mode()
}

func TestWrite(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "x")
	for _, parts := range []string{"", "one", "one,two", ",a shorter one,"} {
		var p [][]byte
		for _, s := range strings.Split(parts, ",") {
			p = append(p, []byte(s))
		}
		require.NoError(t, Write(path, p...))
		assertContent(t, path, strings.ReplaceAll(parts, ",", ""))
	}
	require.NoError(t, Write(path))
	assertContent(t, path, "")
	assertFiles(t, dir, "x")
}

// TestWriteLongName writes a file whose name has the maximum length, so a temporary name must not be derived from it.
func TestWriteLongName(t *testing.T) {
	dir, name := t.TempDir(), strings.Repeat("n", 255)
	require.NoError(t, Write(filepath.Join(dir, name), []byte("x")))
	assertFiles(t, dir, name)
}

// TestWriteRelative writes to a path without a directory.
func TestWriteRelative(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	require.NoError(t, Write("x", []byte("data")))
	assertFiles(t, dir, "x")
}

// TestWriteIsAtomic checks the directory during a write, after an error and after a panic.
func TestWriteIsAtomic(t *testing.T) {
	failure := errors.New("failure")
	for _, c := range []struct {
		name string
		end  func() error
	}{
		{"fails", func() error { return failure }},
		{"panics", func() error { panic(failure) }},
		{"succeeds", func() error { return nil }},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "x")
			for _, old := range []bool{false, true} {
				files := []string(nil)
				if old {
					require.NoError(t, os.WriteFile(path, []byte("old"), 0o600))
					files = []string{"x"}
				}
				write := func() error {
					return WriteFunc(path, func(w io.Writer) error {
						_, err := w.Write(bytes.Repeat([]byte("new"), 1<<20))
						require.NoError(t, err)
						if entries, err := os.ReadDir(dir); assert.NoError(t, err) {
							assert.Len(t, entries, len(files)+1, "the temporary file is in the same directory")
						}
						if old {
							assertContent(t, path, "old")
						}
						return c.end()
					})
				}
				switch c.name {
				case "fails":
					assert.ErrorIs(t, write(), failure)
				case "panics":
					assert.PanicsWithError(t, "failure", func() { _ = write() })
				default:
					require.NoError(t, write())
					assertContent(t, path, strings.Repeat("new", 1<<20))
					assertFiles(t, dir, "x")
					continue
				}
				assertFiles(t, dir, files...)
				if old {
					assertContent(t, path, "old")
				}
			}
		})
	}
}

func TestWriteTarget(t *testing.T) {
	t.Run("directory does not exist", func(t *testing.T) {
		assert.ErrorIs(t, Write(filepath.Join(t.TempDir(), "no", "x"), nil), os.ErrNotExist)
	})
	t.Run("parent is a file", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "x")
		require.NoError(t, os.WriteFile(path, nil, 0o600))
		assert.ErrorContains(t, Write(filepath.Join(path, "y"), nil), path)
	})
	t.Run("path is a directory", func(t *testing.T) {
		dir := t.TempDir()
		assert.ErrorContains(t, Write(dir, nil), dir+": mode is drwxr-xr-x, want a regular file or none")
		assertFiles(t, dir)
	})
	t.Run("rename fails", func(t *testing.T) {
		dir := t.TempDir()
		path := filepath.Join(dir, "x")
		assert.Error(t, WriteFunc(path, func(io.Writer) error { return os.Mkdir(path, 0o700) }))
		assertFiles(t, dir, "x")
	})
	if runtime.GOOS == "windows" {
		return
	}
	t.Run("permissions", func(t *testing.T) {
		dir := t.TempDir()
		fresh, ordinary := filepath.Join(dir, "fresh"), filepath.Join(dir, "ordinary")
		require.NoError(t, os.WriteFile(ordinary, nil, 0o666))
		require.NoError(t, Write(fresh, []byte("1")))
		assert.Equal(t, mode(t, ordinary), mode(t, fresh), "a new file has the permissions of the umask")
		for _, perm := range []os.FileMode{0o640, 0o600, 0o666, 0o444} {
			require.NoError(t, os.Chmod(fresh, perm))
			require.NoError(t, Write(fresh, []byte("2")))
			assert.Equal(t, perm, mode(t, fresh))
		}
	})
	t.Run("symbolic link", func(t *testing.T) {
		dir := t.TempDir()
		require.NoError(t, os.Mkdir(filepath.Join(dir, "real"), 0o700))
		real, middle, link := filepath.Join(dir, "real", "x"), filepath.Join(dir, "middle"), filepath.Join(dir, "link")
		require.NoError(t, os.Symlink(real, middle))
		require.NoError(t, os.Symlink("middle", link)) // relative, and to a link
		assert.ErrorIs(t, Write(link, nil), os.ErrNotExist, "a broken link")
		require.NoError(t, os.WriteFile(real, nil, 0o600))
		require.NoError(t, Write(link, []byte("new")))
		for _, l := range []string{middle, link} {
			stat, err := os.Lstat(l)
			require.NoError(t, err)
			assert.NotZero(t, stat.Mode()&os.ModeSymlink, l)
		}
		assertContent(t, real, "new")
		assertFiles(t, filepath.Join(dir, "real"), "x")
	})
	t.Run("reader of the replaced file", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "x")
		require.NoError(t, Write(path, []byte("old")))
		f, err := os.Open(path)
		require.NoError(t, err)
		defer f.Close()
		require.NoError(t, Write(path, []byte("new")))
		got, err := io.ReadAll(f)
		require.NoError(t, err)
		assert.Equal(t, "old", string(got))
	})
}

// TestWriteConcurrently writes one path from several goroutines. The result must be one of the files, complete.
func TestWriteConcurrently(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "x")
	var wait sync.WaitGroup
	errs := make([]error, 8)
	for i := range errs {
		wait.Add(1)
		go func() {
			defer wait.Done()
			b := []byte{byte(i)}
			errs[i] = Write(path, b, bytes.Repeat(b, 1000), b)
		}()
	}
	wait.Wait()
	require.NoError(t, errors.Join(errs...))
	assertFiles(t, dir, "x")
	got, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Equal(t, bytes.Repeat(got[:1], 1002), got)
}

// TestSyncDir checks the error when the directory cannot be synced.
func TestSyncDir(t *testing.T) {
	require.NoError(t, SyncDir(t.TempDir()))
	if runtime.GOOS != "windows" {
		assert.ErrorIs(t, SyncDir(filepath.Join(t.TempDir(), "no")), os.ErrNotExist)
	}
}
