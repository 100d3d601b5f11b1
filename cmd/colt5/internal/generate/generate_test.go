package generate

import (
	"bytes"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/cli/commandtest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestUsage(t *testing.T) {
	commandtest.New("colt5", Command).RejectsUsage(t, [][2]string{
		{"generate", "generate needs a folder of checkpoints or a file of weights"},
		{"generate no-such-file x", "no-such-file: no such file"},
		{"generate a b c", `generate takes one prompt, but got "c" too: quote it`},
		{"generate -length 0 a b", "-length is 0, want 1 to"},
		{"generate -top-p 2 a b", "-top-p is 2, want 0 to 1"},
		{"generate -temperature -1 a b", "-temperature is -1, want at least 0"},
	})
}

// TestTerminal requires whole characters, and no control character.
func TestTerminal(t *testing.T) {
	var out bytes.Buffer
	w := &terminal{out: &out}
	for i, want := range []string{"a", "a", "aé", "aé·", "aé·\n"} {
		_, err := w.Write([]byte{'a', 0xc3, 0xa9, 0x1b, '\n'}[i : i+1])
		require.NoError(t, err)
		assert.Equal(t, want, out.String())
	}
	_, err := w.Write([]byte{0xe2, 0x82})
	require.NoError(t, err)
	require.NoError(t, w.flush())
	assert.Equal(t, "aé·\n\uFFFD\uFFFD\n", out.String())
}
