package dims

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestParseList(t *testing.T) {
	sizes, err := ParseList("2x8192,16384x512")
	require.NoError(t, err)
	assert.Equal(t, [][]int{{2, 8192, 512}, {2, 16384, 512}}, sizes)
	for text, want := range map[string]string{
		"": "want numbers up to", "2x": "want numbers up to", "2,x3": "want numbers up to", "2,-1": "want numbers up to", "2,99999999999": "want numbers up to",
		"1x2,topk=3": "for another case -size again", strings.Repeat("1,2x", 20) + "3": "want at most 10000 sizes",
	} {
		_, err := ParseList(text)
		assert.ErrorContains(t, err, want, text)
	}
}
