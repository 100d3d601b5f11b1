package bench

import (
	"testing"

	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/cases"
	"github.com/colt5-vulkan/colt5/internal/cli/command"
	"github.com/colt5-vulkan/colt5/internal/cli/commandtest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestList requires a row with a meaning for every number of every case. It needs no device.
func TestList(t *testing.T) {
	code, out, remarks := program.Run("bench", "-list", "-o", "json")
	require.Equal(t, command.ExitOK, code, remarks)
	rows := commandtest.Objects(t, out)
	for _, c := range cases.All() {
		require.GreaterOrEqual(t, len(rows), len(c.Dims))
		for i, name := range c.Dims {
			assert.Equal(t, c.Name, rows[i]["case"])
			assert.Equal(t, float64(i+1), rows[i]["position"])
			assert.Equal(t, name, rows[i]["number"])
			assert.NotEmpty(t, rows[i]["meaning"], "%s of %s has no meaning: add it to numbers in package cases", name, c.Name)
			assert.NotEmpty(t, rows[i]["default"])
			assert.NotEmpty(t, rows[i]["cpu_default"])
		}
		rows = rows[len(c.Dims):]
	}
	assert.Empty(t, rows)

	_, out, _ = program.Run("bench", "-list", "-only", "cross,topk")
	assert.Contains(t, out, "| cross |   5 | routes       | 2, 2, 1                           | 2, 2, 1              | routing tokens,")
	assert.Contains(t, out, "| topk  |   1 | rows         | 8, 252, 1024, 1, 2                | 1, 2                 | independent rows")
	assert.Contains(t, out, "-size cross=1x1024x1048576x512x2x131072.")
	assert.NotContains(t, out, "linear")
}
