package pipelines

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A DType has the same name everywhere, and JSON accepts the names of earlier versions.
func TestDTypeNames(t *testing.T) {
	for _, test := range []struct {
		d         DType
		name, old string
		size      int
	}{{F32, "f32", "float32", 4}, {F16, "f16", "float16", 2}, {BF16, "bf16", "bfloat16", 2}, {I32, "i32", "int32", 4}, {U8, "u8", "uint8", 1}} {
		assert.Equal(t, test.name, test.d.String())
		assert.Equal(t, test.size, test.d.Size())
		raw, err := json.Marshal(test.d)
		require.NoError(t, err)
		assert.Equal(t, `"`+test.name+`"`, string(raw))
		for _, name := range []string{test.name, test.old} {
			got := DType(9)
			require.NoError(t, json.Unmarshal([]byte(`"`+name+`"`), &got))
			assert.Equal(t, test.d, got)
		}
	}
	assert.Equal(t, "DType(9)", DType(9).String())
	assert.Zero(t, DType(9).Size())
	_, err := DType(9).MarshalText()
	assert.ErrorContains(t, err, "dtype is DType(9), want f32, f16, bf16, i32 or u8")
	var d DType
	assert.ErrorContains(t, d.UnmarshalText([]byte("F32")), `dtype is "F32", want f32`)
}
