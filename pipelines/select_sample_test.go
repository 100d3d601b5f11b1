package pipelines

import (
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Results are exact also with misleading samples, and with equal entries everywhere in a long row.
func TestSelectBadSamples(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles kernels for 5 s on CPU drivers; TestSelectWithoutValues samples")
	}
	const n, k = 60000, 1000
	plan := newSelectPlan(newSelectLimits(gputest.Device(t).Caps()), true, selectSizes{rows: 2, n: n, k: k})
	require.True(t, plan.sampled)
	sampled := func(i int) bool { // the hash of select_sample.comp
		entry := uint32(i % n)
		h := entry / uint32(plan.sampleStride) * 0x9e3779b1
		h = (h ^ h>>15) * 0x85ebca6b
		return uint64(entry)%plan.sampleStride == uint64(h^h>>13)*plan.sampleStride>>32
	}
	samples := 0
	for i := range n {
		if sampled(i) {
			samples++
		}
	}
	require.Greater(t, n-samples, int(plan.maxCandidates), "the entries that are not sampled fit the candidates")
	require.Less(t, int(plan.sampleRank*9/8), k, "the sampled entries would suffice")
	mixed := func(i int) float32 { return float32(i * 7919 % n) }
	for name, c := range map[string]selectCase{
		"samples too low":         {logits: func(i int) float32 { return mixed(i) - map[bool]float32{true: n}[sampled(i)] }},
		"samples too high":        {logits: func(i int) float32 { return mixed(i) + map[bool]float32{true: n}[sampled(i)] }},
		"samples equal":           {logits: func(i int) float32 { return map[bool]float32{true: 1}[sampled(i)] }},
		"samples masked":          {valid: func(i int) bool { return !sampled(i) }},
		"only samples valid":      {valid: sampled},
		"few valid":               {valid: func(i int) bool { return sampled(i) && i%64 == 5 }, emptyIndex: -1},
		"equal, far apart":        {valid: oneIn(43, 3), logits: func(int) float32 { return -7 }},
		"equal, after few larger": {valid: oneIn(41, 2), logits: func(i int) float32 { return float32(max(i%n-55000, 0)) }},
	} {
		if gputest.Reduced() && name != "samples too low" { // all take 15 s
			continue
		}
		c.rows, c.n, c.k, c.routes = 2, n, k, 1
		t.Run(name, func(t *testing.T) {
			runSortedAndUnsorted(t, c, nil)
		})
	}
}

// Masked entries are not sampled. The larger half of the entries is masked; still at least k candidates lie above the
// threshold, and they fit.
func TestSelectMaskedSamples(t *testing.T) {
	if gputest.Reduced() {
		t.Skip("takes 2 s")
	}
	gpu := gputest.New(t)
	c := selectCase{rows: 1, n: 60000, k: 1000, routes: 1, valid: oneIn(2, 0), logits: func(i int) float32 { return float32(i*7919%60000 + i%2*60000) }}
	logits, mask := c.input()
	s, err := NewSelect(gpu.Dev, SelectConfig{Sorted: true})
	require.NoError(t, err)
	defer s.Close()
	plan := newSelectPlan(s.limits, true, c.sizes())
	require.True(t, plan.sampled)
	a := SelectArgs{
		Logits: gpu.In("logits", logits), Mask: gpu.In("mask", mask), Indices: gpu.Out("indices", 4000), Valid: gpu.Out("valid", 4000),
		Scratch: guardedScratch(t, gpu, plan.scratch()), Rows: 1, N: c.n, K: c.k,
	}
	gpu.Run(func(list *vk.CommandList) error { return s.Record(list, a) })
	state := make([]uint32, 3) // as in select_gather.comp
	require.NoError(t, gpu.Dev.Download(t.Context(), vk.Transfer{Range: a.Scratch.Slice(0, 12), Data: vk.Bytes(state)}))
	assert.GreaterOrEqual(t, int(state[1]+state[2]), c.k)
	assert.LessOrEqual(t, uint64(state[1]), plan.maxCandidates)
}
