package vk_test

import (
	"os"
	"testing"

	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestValidationReports misuses Vulkan: it proves that an absence of messages means an absence of errors.
func TestValidationReports(t *testing.T) {
	if os.Getenv("COLT5_VALIDATE") != "1" {
		t.Skip("COLT5_VALIDATE is not 1")
	}
	d := openDevice(t, vk.Options{})
	for name, c := range map[string]struct {
		hazard bool
		want   string
	}{"core": {false, "vkCmdFillBuffer"}, "synchronisation": {true, "SYNC-HAZARD-WRITE-AFTER-WRITE"}} {
		n, text := d.DrainMessages()
		require.Zero(t, n, text)
		require.NoError(t, d.Misuse(c.hazard))
		n, text = d.DrainMessages()
		assert.Positive(t, n, name)
		assert.Contains(t, text, c.want, name)
	}
	n, text := d.DrainMessages()
	assert.Zero(t, n, "DrainMessages clears the messages")
	assert.Empty(t, text)
}

// TestUndrainedMessages: Close reports validation messages that were not drained.
func TestUndrainedMessages(t *testing.T) {
	if os.Getenv("COLT5_VALIDATE") != "1" {
		t.Skip("COLT5_VALIDATE is not 1")
	}
	d, err := vk.Open(vk.Options{CacheDir: "-"})
	require.NoError(t, err)
	require.NoError(t, d.Misuse(false))
	err = d.Close()
	assert.ErrorContains(t, err, "validation messages:")
	assert.ErrorContains(t, err, "vkCmdFillBuffer")
}

func TestNoValidationLayer(t *testing.T) {
	_ = openDevice(t, vk.Options{})
	t.Setenv("COLT5_VALIDATE", "")
	t.Setenv("VK_LAYER_PATH", t.TempDir())
	_, err := vk.Open(vk.Options{CacheDir: "-", Validation: true})
	require.ErrorIs(t, err, vk.ErrUnsupported)
	assert.ErrorContains(t, err, "VK_LAYER_KHRONOS_validation is not installed")
	assert.ErrorContains(t, err, "vulkan-validationlayers")
	quiet, err := vk.Open(vk.Options{CacheDir: "-"})
	require.NoError(t, err)
	n, _ := quiet.DrainMessages()
	assert.Zero(t, n)
	closeAll(t, quiet)
}
