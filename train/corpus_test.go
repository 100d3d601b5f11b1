package train

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// writeTree writes files below a new folder.
func writeTree(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		file := filepath.Join(dir, filepath.FromSlash(name))
		require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o777))
		require.NoError(t, os.WriteFile(file, []byte(content), 0o666))
	}
	return dir
}

func paths(c *Corpus) (list []string) {
	for _, f := range c.Files() {
		list = append(list, f.Path)
	}
	return list
}

func content(t *testing.T, c *Corpus) string {
	t.Helper()
	data := make([]byte, c.Size())
	n, err := c.ReadAt(data, 0)
	require.NoError(t, err)
	require.Equal(t, len(data), n)
	return string(data)
}

func TestHeldOut(t *testing.T) {
	// FNV-1a of "" is 2166136261, of "a" 3826002220, of "foobar" 3214735720: the values of its authors.
	for key, hash := range map[string]uint32{"": 2166136261, "a": 3826002220, "foobar": 3214735720} {
		for _, n := range []uint32{1, 2, 3, 5, 7, 20, 41} {
			assert.Equal(t, hash%n == 0, HeldOut(key, n), "%q mod %d", key, n)
		}
		assert.False(t, HeldOut(key, 0))
	}
}

func TestSplitMix64(t *testing.T) { // the first values of the generator with seed 1234567
	state := uint64(1234567)
	for _, want := range []uint64{6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821} {
		assert.Equal(t, want, splitMix64(state))
		state += 0x9E3779B97F4A7C15
	}
}

func TestCorpus(t *testing.T) {
	dir := writeTree(t, map[string]string{
		"b/2.go": "two", "b/10.go": "ten", "a.go": "first", "b.go": "between", "empty.go": "", "b/c/d.txt": "text", "z/testdata/x.go": "no",
	})
	single := filepath.Join(writeTree(t, map[string]string{"single.txt": "alone"}), "single.txt")
	require.NoError(t, os.Symlink(single, filepath.Join(dir, "link.go")))
	training, heldOut, err := OpenCorpus(CorpusOptions{Include: func(f CorpusFile) (bool, error) {
		assert.NotZero(t, f.Name)
		return strings.HasSuffix(f.Path, ".go") && !strings.Contains(f.Path, "testdata/"), nil
	}}, dir, single)
	require.NoError(t, err)
	assert.Zero(t, heldOut.Size())
	assert.Equal(t, []string{"a.go", "b/10.go", "b/2.go", "b.go", "single.txt"}, paths(training))
	assert.Equal(t, "firsttentwobetweenalone", content(t, training))
	require.NoError(t, iotest.TestReader(io.NewSectionReader(training, 0, training.Size()), []byte("firsttentwobetweenalone")))

	all, _, err := OpenCorpus(CorpusOptions{}, dir)
	require.NoError(t, err)
	assert.Equal(t, []string{"a.go", "b/10.go", "b/2.go", "b/c/d.txt", "b.go", "z/testdata/x.go"}, paths(all))
	assert.NotEqual(t, training.Fingerprint(), all.Fingerprint())
	again, _, err := OpenCorpus(CorpusOptions{}, dir)
	require.NoError(t, err)
	assert.Equal(t, all.Fingerprint(), again.Fingerprint())
	n, err := all.ReadAt(make([]byte, 10), all.Size()-3)
	assert.Equal(t, 3, n)
	assert.Equal(t, io.EOF, err)
	n, err = all.ReadAt(make([]byte, 1), all.Size()+5)
	assert.Zero(t, n)
	assert.Equal(t, io.EOF, err)

	link := filepath.Join(t.TempDir(), "link")
	require.NoError(t, os.Symlink(dir, link))
	linked, _, err := OpenCorpus(CorpusOptions{}, link)
	require.NoError(t, err)
	assert.Equal(t, all.Fingerprint(), linked.Fingerprint(), "a link that is given is followed")
}

// Both parts of a split are all files, and a folder is in one of them.
func TestCorpusSplit(t *testing.T) {
	files := map[string]string{}
	for _, folder := range strings.Split("abcdefghijklmnopqrstuvwxyz", "") {
		files[folder+"/1"], files[folder+"/2"] = folder, strings.ToUpper(folder)
	}
	dir := writeTree(t, files)
	training, heldOut, err := OpenCorpus(CorpusOptions{HeldOut: 4, Key: func(f CorpusFile) string { return path.Dir(f.Path) }}, dir)
	require.NoError(t, err)
	assert.EqualValues(t, 52, training.Size()+heldOut.Size())
	assert.Positive(t, heldOut.Size())
	assert.Positive(t, training.Size())
	for _, f := range training.Files() {
		assert.False(t, HeldOut(path.Dir(f.Path), 4))
	}
	for _, f := range heldOut.Files() {
		assert.True(t, HeldOut(path.Dir(f.Path), 4))
	}
	_, heldOut, err = OpenCorpus(CorpusOptions{HeldOut: 1}, dir)
	require.NoError(t, err)
	assert.EqualValues(t, 52, heldOut.Size())
}

func TestCorpusErrors(t *testing.T) {
	dir := writeTree(t, map[string]string{"a": "12345", "b": "67890"})
	open := func() *Corpus {
		c, _, err := OpenCorpus(CorpusOptions{}, dir)
		require.NoError(t, err)
		return c
	}
	a := filepath.Join(dir, "a")
	past := time.Now().Add(-time.Hour)
	require.NoError(t, os.Chtimes(a, past, past))
	for name, change := range map[string]func() error{
		"longer":   func() error { return os.WriteFile(a, []byte("123456"), 0o666) },
		"shorter":  func() error { return os.Truncate(a, 2) },
		"modified": func() error { return os.WriteFile(a, []byte("54321"), 0o666) },
	} {
		require.NoError(t, os.WriteFile(a, []byte("12345"), 0o666))
		require.NoError(t, os.Chtimes(a, past, past))
		c := open()
		require.NoError(t, change())
		n, err := c.ReadAt(make([]byte, 10), 0)
		assert.ErrorContains(t, err, "a changed: it has ", name)
		assert.Zero(t, n)
		_, err = c.ReadAt(make([]byte, 5), 5)
		assert.NoError(t, err, "b has not changed")
	}
	c := open()
	require.NoError(t, os.Remove(a))
	_, err := c.ReadAt(make([]byte, 6), 0)
	assert.ErrorIs(t, err, fs.ErrNotExist)
	_, err = c.ReadAt(make([]byte, 6), -1)
	assert.ErrorContains(t, err, "off is -1, want at least 0")

	_, _, err = OpenCorpus(CorpusOptions{}, filepath.Join(dir, "none"))
	assert.ErrorIs(t, err, fs.ErrNotExist)
	_, _, err = OpenCorpus(CorpusOptions{})
	assert.ErrorContains(t, err, "0 names have no file that is not empty")
	_, _, err = OpenCorpus(CorpusOptions{}, os.DevNull)
	assert.ErrorContains(t, err, "want a regular file or a folder")
	broken := errors.New("broken")
	_, _, err = OpenCorpus(CorpusOptions{Include: func(CorpusFile) (bool, error) { return false, broken }}, dir)
	assert.ErrorIs(t, err, broken)
}

// A corpus is not read into memory: a file of 1 TB that has no blocks is opened, and read at its end.
func TestCorpusLarge(t *testing.T) {
	name := filepath.Join(t.TempDir(), "large")
	file, err := os.Create(name)
	require.NoError(t, err)
	const size = 1 << 40
	if err := file.Truncate(size); err != nil {
		file.Close()
		t.Skip(err)
	}
	_, err = file.WriteAt([]byte("end"), size-3)
	require.NoError(t, err)
	require.NoError(t, file.Close())
	c, _, err := OpenCorpus(CorpusOptions{}, name)
	require.NoError(t, err)
	data := make([]byte, 4)
	_, err = c.ReadAt(data, size-4)
	require.NoError(t, err)
	assert.True(t, bytes.Equal([]byte("\x00end"), data))
}
