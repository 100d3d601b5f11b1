package train

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// FuzzCheckpoint: no manifest makes OpenCheckpoint panic, and none with other contents than those of the files is accepted.
func FuzzCheckpoint(f *testing.F) {
	dir := f.TempDir()
	c, err := OpenCheckpoints(dir, CheckpointOptions{Config: newTestConfig()})
	require.NoError(f, err)
	require.NoError(f, c.Save(3, map[string]int{"a": 1}, func(dir string) error {
		return os.WriteFile(filepath.Join(dir, "model.bin"), []byte("model"), 0o666)
	}))
	require.NoError(f, c.Close())
	good, err := os.ReadFile(filepath.Join(dir, checkpointName(3), manifestName))
	require.NoError(f, err)
	f.Add(good, []byte("model"))
	f.Add(good, []byte("Model"))
	f.Add([]byte("{}"), []byte{})
	f.Add([]byte(`{"format":"colt5 checkpoint","version":1,"files":{"../x":{"bytes":-1}},"config":{}}`), []byte("x"))
	f.Fuzz(func(t *testing.T, text, model []byte) {
		dir := t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(dir, manifestName), text, 0o666))
		require.NoError(t, os.WriteFile(filepath.Join(dir, "model.bin"), model, 0o666))
		c, err := OpenCheckpoint(dir)
		if err == nil {
			m, err := readManifest(filepath.Join(dir, manifestName))
			require.NoError(t, err)
			require.Equal(t, hashOf(model), m.Files["model.bin"].SHA256)
			require.EqualValues(t, len(model), m.Files["model.bin"].Bytes)
			require.Equal(t, dir, c.Path)
			return
		}
		assert.LessOrEqual(t, len(err.Error()), 1000)
		assert.False(t, strings.ContainsFunc(err.Error(), func(r rune) bool { return !unicode.IsPrint(r) }), "%q", err)
	})
}
