package devices

import (
	"encoding/csv"
	"encoding/json"
	"strings"
	"testing"

	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/platforms"
	"github.com/colt5-vulkan/colt5/internal/cli/commandtest"
	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestMain(m *testing.M) { gputest.Main(m) }

var program = commandtest.New("vkbench", ListCommand, InfoCommand)

func TestUsage(t *testing.T) {
	program.RejectsUsage(t, [][2]string{
		{"devices nonsense", `takes no arguments, but got "nonsense"`},
		{"info -nonsense", "-nonsense"},
		{"info -device", "needs an argument"},
	})
}

func TestDevices(t *testing.T) {
	dev := gputest.Device(t)
	list := commandtest.Objects(t, program.OK(t, "devices", "-o", "json"))
	selected := 0
	for _, d := range list {
		if d["selected"] == true {
			selected++
			assert.Equal(t, dev.Info().Name, d["name"])
			assert.Equal(t, dev.Info().UUID, d["uuid"])
			assert.Empty(t, d["unusable"])
			assert.Equal(t, platforms.Of(dev.Info()).String(), d["tested"])
		}
	}
	assert.Equal(t, 1, selected)
	text := program.OK(t, "devices")
	assert.Contains(t, text, dev.Info().Name+": "+platforms.Of(dev.Info()).String())
	assert.NotContains(t, text, "| tested")
}

// TestInfoObject requires one object that vk.Info reads.
func TestInfoObject(t *testing.T) {
	dev := gputest.Device(t)
	for _, format := range []string{"json", "jsonl"} {
		out := program.OK(t, "info", "-o", format, "-device", dev.Info().UUID)
		var got vk.Info
		require.NoError(t, json.Unmarshal([]byte(out), &got), out)
		want, err := json.Marshal(dev.Info())
		require.NoError(t, err)
		assert.JSONEq(t, string(want), out)
		assert.Equal(t, dev.Info().Name, got.Name)
		assert.Equal(t, dev.Caps().MemoryBytes, got.Caps.MemoryBytes)
		assert.Equal(t, format == "jsonl", strings.Count(out, "\n") == 1)
	}
}

func TestInfo(t *testing.T) {
	dev := gputest.Device(t)
	rows, err := csv.NewReader(strings.NewReader(program.OK(t, "info", "-o", "csv", "-device", dev.Info().UUID))).ReadAll()
	require.NoError(t, err)
	found := map[string]string{}
	for _, r := range rows {
		found[r[0]] = r[1]
	}
	assert.Equal(t, "value", found["property"])
	assert.Equal(t, dev.Info().Name, found["name"])
	assert.Equal(t, dev.Info().UUID, found["UUID"])
	assert.Regexp(t, "^[0-9]+$", found["device memory"])
	shapes := 0
	for _, r := range rows {
		if r[0] == "cooperative matrix" {
			shapes++
			assert.Regexp(t, `^M \d+ N \d+ K \d+: \w+ x \w+ \+ \w+ -> \w+`, r[1])
		}
	}
	assert.Equal(t, len(dev.Caps().MatrixShapes), shapes)
}
