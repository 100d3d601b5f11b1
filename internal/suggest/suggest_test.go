package suggest

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestNearest(t *testing.T) {
	names := []string{"dim", "depth", "eps", "eps_init", "light_heads", "heavy_heads", "num_heavy_tokens_q", "use_null_q_tokens", "bench"}
	for word, want := range map[string]string{
		"dim": "dim", "dims": "dim", "DIM": "dim", "dmi": "dim", "epsinit": "eps_init", "eps-init": "eps_init", "epsilon": "eps",
		"heads": "light_heads", "num_heavy_token_q": "num_heavy_tokens_q", "use_null_tokens": "use_null_q_tokens", "benhc": "bench",
		"": "", "x": "", "foo": "", "zzz": "", "learning_rate": "", strings.Repeat("dim", 1000): "",
	} {
		assert.Equal(t, want, Nearest(word, names), word)
	}
	assert.Empty(t, Nearest("dim", nil))
	assert.Equal(t, `, did you mean "dim"?`, Phrase("dims", names))
	assert.Empty(t, Phrase("foo", names))
}
