//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package atomicfile

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestMain makes the test binary a writer that stops in the middle of a write, for startWriter.
func TestMain(m *testing.M) {
	path := os.Getenv("ATOMICFILE_TEST_WRITE")
	if path == "" {
		os.Exit(m.Run())
	}
	err := WriteFunc(path, func(w io.Writer) error {
		if _, err := io.WriteString(w, "half, "); err != nil {
			return err
		}
		fmt.Println("half")
		if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
			return err
		}
		_, err := io.WriteString(w, "whole")
		return err
	})
	fmt.Println(err)
}

// writer is another process in the middle of a write.
type writer struct {
	*exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func startWriter(t *testing.T, path string) writer {
	t.Helper()
	w := writer{Cmd: exec.Command(os.Args[0])}
	w.Env = append(os.Environ(), "ATOMICFILE_TEST_WRITE="+path)
	w.Stderr = os.Stderr
	out, err := w.StdoutPipe()
	require.NoError(t, err)
	w.in, err = w.StdinPipe()
	require.NoError(t, err)
	require.NoError(t, w.Start())
	t.Cleanup(func() { w.Process.Kill(); w.Wait() })
	w.out = bufio.NewReader(out)
	line, err := w.out.ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "half\n", line)
	return w
}

func list(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// TestKilledWriter: the temporary file of a killed process is removed by the next write into the directory, that of a
// running process is not.
func TestKilledWriter(t *testing.T) {
	dir := t.TempDir()
	x, y := filepath.Join(dir, "x"), filepath.Join(dir, "y")
	require.NoError(t, Write(x, []byte("old")))
	killed, running := startWriter(t, x), startWriter(t, y)
	require.Len(t, list(t, dir), 3)
	require.NoError(t, killed.Process.Kill()) // SIGKILL
	killed.Wait()
	require.Len(t, list(t, dir), 3, "a killed process cannot remove its file")
	assertContent(t, x, "old")

	require.NoError(t, Write(filepath.Join(dir, "z"), []byte("new")))
	names := list(t, dir)
	require.Len(t, names, 3)
	assert.Regexp(t, pattern, names[0], "the file of the running process")
	assert.Equal(t, []string{"x", "z"}, names[1:])

	_, err := io.WriteString(running.in, "\n")
	require.NoError(t, err)
	line, err := running.out.ReadString('\n')
	require.NoError(t, err)
	assert.Equal(t, "<nil>\n", line)
	assertFiles(t, dir, "x", "y", "z")
	assertContent(t, y, "half, whole")
}

// TestRemoveAbandoned: only files with names of this package are removed, and those of other machines only if they are
// old.
func TestRemoveAbandoned(t *testing.T) {
	dir := t.TempDir()
	own := prefix + machine() + "-"
	other := strings.Replace(own, machine(), fmt.Sprintf("%08x", 1), 1)
	remove := []string{own + "0123456789abcdef.tmp", own + "ffffffffffffffff.tmp", other + "0000000000000001.tmp"}
	keep := []string{
		other + "0000000000000002.tmp", own + "0123456789abcdeg.tmp", own + "0123456789abcde.tmp", own + "0123456789abcdef0.tmp",
		own + "0123456789abcdef.tmp.bak", "x" + own + "0123456789abcdef.tmp", ".colt5-0123456789abcdef.tmp", ".colt5-x.tmp",
	}
	for _, name := range append(remove, keep...) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o600))
	}
	old := time.Now().Add(-25 * time.Hour)
	require.NoError(t, os.Chtimes(filepath.Join(dir, other+"0000000000000001.tmp"), old, old))
	directory, link, pipe := own+"000000000000000d.tmp", own+"000000000000000e.tmp", own+"000000000000000f.tmp"
	require.NoError(t, os.Mkdir(filepath.Join(dir, directory), 0o700))
	require.NoError(t, os.Symlink("x", filepath.Join(dir, link)))
	require.NoError(t, syscall.Mkfifo(filepath.Join(dir, pipe), 0o600))

	require.NoError(t, Write(filepath.Join(dir, "x"), nil))
	assert.ElementsMatch(t, append(keep, directory, link, pipe, "x"), list(t, dir))
}

// TestWriteWhileOthersRemove: writers remove what others abandon and nothing else.
func TestWriteWhileOthersRemove(t *testing.T) {
	dir := t.TempDir()
	var wait sync.WaitGroup
	for i := range 8 {
		wait.Add(1)
		go func() {
			defer wait.Done()
			for range 20 {
				assert.NoError(t, Write(filepath.Join(dir, fmt.Sprint(i)), []byte("data")))
			}
		}()
	}
	wait.Wait()
	assertFiles(t, dir, "0", "1", "2", "3", "4", "5", "6", "7")
}

// TestLock: a lock excludes others until it is unlocked or its process is gone.
func TestLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	unlock, err := Lock(path)
	require.NoError(t, err)
	_, err = Lock(path)
	require.ErrorIs(t, err, ErrLocked)
	unlock()
	unlock, err = Lock(path)
	require.NoError(t, err)
	unlock()
	_, err = Lock(filepath.Join(path, "no folder"))
	assert.Error(t, err)
	_, err = Lock(t.TempDir())
	assert.Error(t, err)
}
