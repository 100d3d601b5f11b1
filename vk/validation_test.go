package vk_test

import (
	"os"
	"testing"

	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestValidationIsSeen misuses Vulkan on purpose: without it, a layer that says nothing would look like a program without faults.
func TestValidationIsSeen(t *testing.T) {
	if os.Getenv("COLT5_VALIDATE") != "1" {
		t.Skip("COLT5_VALIDATE is not 1")
	}
	d := openDevice(t, vk.Options{})
	for name, c := range map[string]struct {
		hazard bool
		says   string
	}{"core": {false, "vkCmdFillBuffer"}, "synchronisation": {true, "SYNC-HAZARD-WRITE-AFTER-WRITE"}} {
		n, text := d.DrainMessages()
		require.Zero(t, n, text)
		require.NoError(t, d.Misuse(c.hazard))
		n, text = d.DrainMessages()
		assert.Positive(t, n, name)
		assert.Contains(t, text, c.says, name)
	}
	n, text := d.DrainMessages()
	assert.Zero(t, n, "messages are forgotten once they are read")
	assert.Empty(t, text)
}

// TestUnreadMessages closes a device that validation complained about, and nobody asked.
func TestUnreadMessages(t *testing.T) {
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
