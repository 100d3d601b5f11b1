package colt5

import (
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestPlanCacheLRU: a full plan cache evicts the least recently used plan, not the oldest.
func TestPlanCacheLRU(t *testing.T) {
	var c planCache
	plans := map[planKey]*plan{}
	key := func(tokens int) planKey { return planKey{counts: [maxCounts]int{tokens}} }
	use := func(k planKey) {
		if c.find(k) == nil {
			list, err := gputest.Device(t).NewCommandList(vk.CommandListConfig{})
			require.NoError(t, err)
			plans[k] = &plan{list: list}
			require.NoError(t, c.add(k, plans[k]))
		}
		assert.Same(t, plans[k], c.find(k))
	}
	for i := range plansKept {
		use(key(i))
	}
	use(key(0))
	use(key(plansKept)) // evicts key 1
	assert.Same(t, plans[key(0)], c.find(key(0)))
	assert.Nil(t, c.find(key(1)))
	require.NoError(t, c.close())
}
