package vk_test

import (
	"os"
	"regexp"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/colt5-vulkan/colt5/vk"
)

// TestDriversStayLoaded: closing the last device unloads no library, because some cannot be loaded again any number of times.
func TestDriversStayLoaded(t *testing.T) {
	libraries := func() []string {
		maps, err := os.ReadFile("/proc/self/maps")
		require.NoError(t, err)
		list := regexp.MustCompile(`/\S+\.so\S*`).FindAllString(string(maps), -1)
		slices.Sort(list)
		return slices.Compact(list)
	}
	d, err := vk.Open(vk.Options{CacheDir: "-"})
	require.NoError(t, err)
	open := libraries()
	assert.NotEmpty(t, open)
	require.NoError(t, d.Close())
	assert.Subset(t, libraries(), open)
}
