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
	made := map[planKey]*plan{}
	use := func(i int) {
		key := planKey{lead: i}
		if c.find(key) == nil {
			list, err := gputest.Device(t).NewCommandList(vk.CommandListConfig{})
			require.NoError(t, err)
			made[key] = &plan{list: list}
			require.NoError(t, c.add(key, made[key]))
		}
		assert.Same(t, made[key], c.find(key))
	}
	for key := range plansKept {
		use(key)
	}
	use(0)
	use(plansKept)
	assert.Same(t, made[planKey{}], c.find(planKey{}))
	assert.Nil(t, c.find(planKey{lead: 1}))
	require.NoError(t, c.close())
}
