package vk_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestSelectDevice(t *testing.T) {
	const uuid, dashed = "00112233445566778899aabbccddeeff", "00112233-4455-6677-8899-AABBCCDDEEFF"
	list := []vk.Info{
		{Index: 0, Name: "llvmpipe (LLVM 15)", Type: "cpu", UUID: "ff"},
		{Index: 1, Name: "Virtio GPU", Type: "virtual", UUID: "fe"},
		{Index: 2, Name: "Old Discrete", Type: "discrete", UUID: "fd", Unusable: "Vulkan 1.1.0, want 1.2"},
		{Index: 3, Name: "Intel Arc 3", Type: "integrated", UUID: "fc"},
		{Index: 4, Name: "NVIDIA H200", Type: "discrete", UUID: uuid},
		{Index: 5, Name: "NVIDIA H200", Type: "discrete", UUID: "fb"},
		{Index: 6, Name: "Strange", Type: "other", UUID: "fa"},
	}
	pick := func(places ...int) (some []vk.Info) {
		for _, i := range places {
			some = append(some, list[i])
		}
		return some
	}
	for _, c := range []struct {
		name      string
		infos     []vk.Info
		want, env string
		found     int // in infos
		err       error
		message   []string
	}{
		{name: "discrete first", infos: list, found: 4},
		{name: "then integrated", infos: pick(0, 1, 2, 3, 6), found: 3},
		{name: "then virtual", infos: pick(0, 6, 1, 2), found: 2},
		{name: "then other", infos: pick(0, 6), found: 1},
		{name: "cpu last", infos: pick(2, 0), found: 1},
		{name: "none usable", infos: pick(2), err: vk.ErrNoDevice, message: []string{"Old Discrete", "want 1.2"}},
		{name: "none", err: vk.ErrNoDevice, message: []string{"no driver", "install"}},
		{name: "none, one requested", want: "H200", err: vk.ErrNoDevice, message: []string{"no driver", "install"}},
		{name: "index", infos: list, want: "5", found: 5},
		{name: "index before name", infos: list, want: "3", found: 3}, // although "Arc 3" contains it too
		{name: "digits of a name", infos: list, want: "20", err: vk.ErrNoDevice, message: []string{`"20"`, "want an index"}},
		{name: "uuid", infos: list, want: uuid, found: 4},
		{name: "uuid with dashes", infos: list, want: dashed, found: 4},
		{name: "part of a uuid", infos: list, want: "00112233", err: vk.ErrNoDevice},
		{name: "part of the name", infos: list, want: "nvidia", found: 4},
		{name: "no such", infos: list, want: "Radeon", err: vk.ErrNoDevice, message: []string{"Options.Device", `"Radeon"`, "Virtio GPU"}},
		{name: "unusable", infos: list, want: "old", err: vk.ErrUnsupported, message: []string{"Old Discrete", "want 1.2"}},
		{name: "environment", infos: list, env: "arc", found: 3},
		{name: "environment, no such", infos: list, env: "Radeon", err: vk.ErrNoDevice, message: []string{"COLT5_DEVICE"}},
		{name: "option before environment", infos: list, want: "llvm", env: "arc", found: 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Setenv("COLT5_DEVICE", c.env)
			i, err := vk.SelectDevice(c.infos, c.want)
			if c.err == nil {
				require.NoError(t, err)
				assert.Equal(t, c.found, i)
				return
			}
			require.ErrorIs(t, err, c.err)
			for _, part := range c.message {
				assert.ErrorContains(t, err, part)
			}
		})
	}
}

func TestList(t *testing.T) {
	d := gputest.Device(t)
	gputest.CountCase()
	list, err := vk.List()
	require.NoError(t, err)
	for i, info := range list {
		assert.Equal(t, i, info.Index)
		assert.NotEmpty(t, info.Name)
		assert.Len(t, info.UUID, 32)
	}
	mine := d.Info()
	require.Less(t, mine.Index, len(list))
	assert.Equal(t, list[mine.Index], mine)
	c := d.Caps()
	assert.Empty(t, mine.Unusable)
	assert.GreaterOrEqual(t, c.MaxWorkgroupInvocations, uint32(128))
	assert.GreaterOrEqual(t, c.MaxSharedBytes, uint32(16<<10))
	assert.GreaterOrEqual(t, c.MaxPushBytes, uint32(128))
	assert.LessOrEqual(t, c.SubgroupMin, c.SubgroupSize)
	assert.LessOrEqual(t, c.SubgroupSize, c.SubgroupMax)
	assert.Greater(t, c.MemoryBytes, uint64(1<<26))
	assert.Greater(t, c.TimestampNanoseconds, 0.0)
}

func TestNoLoader(t *testing.T) {
	err := vk.Load([]string{"libcolt5-no-such.so.1", "libcolt5-none.so"})
	require.ErrorIs(t, err, vk.ErrNoDevice)
	assert.ErrorContains(t, err, "libcolt5-no-such.so.1 or libcolt5-none.so")
	assert.ErrorContains(t, err, "install")
}

// TestNoDriver runs itself in a process whose loader finds no driver.
func TestNoDriver(t *testing.T) {
	const inside = "COLT5_TEST_NO_DRIVER"
	if os.Getenv(inside) == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestNoDriver$", "-test.v")
		cmd.Env = append(os.Environ(), inside+"=1", "VK_DRIVER_FILES=/no/such.json", "VK_ICD_FILENAMES=/no/such.json", "COLT5_VALIDATE=", "COLT5_GPU_CASES_FILE=")
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
		assert.Contains(t, string(out), "--- PASS: TestNoDriver")
		return
	}
	_, err := vk.List()
	if err == nil { // some loaders create instances without drivers
		_, err = vk.Open(vk.Options{})
	}
	require.ErrorIs(t, err, vk.ErrNoDevice)
	assert.ErrorContains(t, err, "install")
	_, err = vk.Open(vk.Options{Device: "0"})
	require.ErrorIs(t, err, vk.ErrNoDevice)
	assert.ErrorContains(t, err, "install")
}

// Caps in JSON have snake_case keys; the keys of earlier versions are still read.
func TestCapsJSON(t *testing.T) {
	c := vk.Caps{MaxSharedBytes: 1, Float16: true, MemoryModel: true, CooperativeMatrix2: true, MatrixShapes: []vk.MatrixShape{{M: 16}}, PipelineStatistics: true}
	text, err := json.Marshal(c)
	require.NoError(t, err)
	assert.NotRegexp(t, `"(Float|Memory|Cooperative|Pipeline|shapes)`, string(text))
	old := strings.NewReplacer(`"float16"`, `"Float16"`, `"memory_model"`, `"MemoryModel"`, `"cooperative_matrix2"`, `"CooperativeMatrix2"`,
		`"matrix_shapes"`, `"shapes"`, `"pipeline_statistics"`, `"PipelineStatistics"`, `"cooperative_matrix":false,`, ``).Replace(string(text))
	assert.NotEqual(t, string(text), old)
	for _, text := range []string{string(text), old} {
		var got vk.Caps
		require.NoError(t, json.Unmarshal([]byte(text), &got))
		assert.Equal(t, c, got)
	}
	assert.Error(t, json.Unmarshal([]byte(`[]`), &c))
}
