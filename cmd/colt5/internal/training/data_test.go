package training

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/colt5-vulkan/colt5/cmd/colt5/internal/settings"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Where the hash holds no file out, the remark about the data says what to do. Without -held-out that is what was asked for.
func TestNothingHeldOut(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "text")
	require.NoError(t, os.WriteFile(file, []byte("some text"), 0o644))
	for heldOut, want := range map[uint32]string{
		0:       "1 file of 9 B to train with, 0 files of 0 B held out",
		1 << 31: "1 file of 9 B to train with, 0 files of 0 B held out" + nothingHeldOut,
	} {
		c := settings.Config{Batch: 1, Length: 4, Run: &settings.Run{}, Data: settings.Data{HeldOut: heldOut}}
		d, err := openText(&c, []string{file}, dir)
		require.NoError(t, err)
		assert.Equal(t, want, d.about)
	}
}
