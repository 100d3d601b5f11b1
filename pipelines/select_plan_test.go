package pipelines

import (
	"cmp"
	"fmt"
	"testing"

	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
)

// Plans cover every 16-byte chunk and every slot, and their workgroups fit the limits.
func TestSelectPlan(t *testing.T) {
	ownLimits(t)
	for _, limits := range []selectLimits{{1024, 2048, 32}, {256, 1024, 8}, {128, 2048, 4}, {64, 1024, 64}} {
		for _, n := range []int{1, 4, 5, 1024, 8192, 8193, 32767, 32768, 32769, 1 << 20, 1<<22 + 1, selectMax} {
			for _, k := range []int{1, 1024, 1025, n, selectMax} {
				for _, block := range []int{0, 1, 1000, n/2 + 1, n} {
					for _, sorted := range []bool{false, true} {
						z := selectSizes{rows: 3, n: n, k: k, block: block}
						p := newSelectPlan(limits, sorted, z)
						context := fmt.Sprintf("%+v: n %d, k %d, block %d, sorted %v: %+v", limits, n, k, block, sorted, p)
						if p.sampled {
							assert.Equal(t, uint64(selectGatherChunks*p.threads), p.span, context)
							assert.GreaterOrEqual(t, p.parts*p.span, (p.block+3)/4, context)
							assert.GreaterOrEqual(t, p.sampleStride*p.samplesPerThread*uint64(limits.scanThreads()), p.block, context)
							assert.LessOrEqual(t, p.maxCandidates, uint64(selectMaxCandidates), context)
							assert.Greater(t, p.maxCandidates, p.selected, context)
							assert.LessOrEqual(t, p.selected, uint64(limits.sortCapacity), context)
						} else if p.direct {
							assert.LessOrEqual(t, p.block, map[bool]uint64{false: 64, true: 32}[sorted]*uint64(p.threads), context)
						} else {
							assert.GreaterOrEqual(t, p.parts*p.span, (p.block+3)/4, context)
							assert.Zero(t, p.span%uint64(2*p.threads), context)
						}
						assert.LessOrEqual(t, p.threads, limits.threads, context)
						assert.True(t, p.sampled || p.parts <= 1024, context)
						assert.GreaterOrEqual(t, p.blocks*p.block, uint64(n), context)
						assert.Less(t, (p.blocks-1)*p.block, uint64(n), context)
						assert.True(t, !sorted || uint64(limits.sortCapacity)<<p.merges >= p.selected, context)
						assert.Equal(t, p.direct, p.stateBytes == 0, context)
						assert.False(t, p.direct && p.sampled, context)
						if p.fusedSort {
							assert.LessOrEqual(t, p.selected, uint64(limits.sortCapacity), context)
						}
						z.unaligned = true
						unaligned := newSelectPlan(limits, sorted, z)
						assert.Equal(t, []bool{p.direct, p.sampled}, []bool{unaligned.direct, unaligned.sampled}, context)
						assert.True(t, unaligned.direct || unaligned.parts*unaligned.span >= (p.block+6)/4, context)
						assert.True(t, unaligned.sampled || unaligned.parts <= 1024, context)
						z.unaligned = false
						assert.GreaterOrEqual(t, selectScratch(limits, sorted, z), max(p.scratch(), unaligned.scratch()), context)
						z.block, z.windows = 0, 7
						w := newSelectPlan(limits, sorted, z)
						assert.Equal(t, []uint64{uint64(n), 7, 21, min(uint64(k), uint64(n))}, []uint64{w.block, w.blocks, w.segments, w.selected}, context)
						assert.True(t, w.direct || w.parts*w.span >= (w.block+3)/4, context)
					}
				}
			}
		}
	}
	assert.Equal(t, selectLimits{1024, 2048, 32}, newSelectLimits(vk.Caps{VendorID: vendorAMD, MaxWorkgroupInvocations: 1536, MaxWorkgroupSize: [3]uint32{1024, 1, 1}, MaxSharedBytes: 48 << 10, SubgroupMin: 32}))
	assert.Equal(t, selectLimits{256, 1024, 8}, newSelectLimits(vk.Caps{VendorID: vendorAMD, MaxWorkgroupInvocations: 1024, MaxWorkgroupSize: [3]uint32{1024, 1, 1}, MaxSharedBytes: 16 << 10, SubgroupMin: 8}))
	assert.Equal(t, selectLimits{128, 2048, 4}, newSelectLimits(vk.Caps{VendorID: vendorAMD, MaxWorkgroupInvocations: 1024, MaxWorkgroupSize: [3]uint32{128, 1, 1}, MaxSharedBytes: 32 << 10, SubgroupMin: 4}))
}

// Large workgroups are used where an invocation has enough registers in them.
func TestSelectChips(t *testing.T) {
	ownLimits(t)
	want := map[string]uint32{"skl": 256, "icl": 256, "tgl": 512, "ptl": 512, "adreno": 512, "apple": 512, "kepler": 512}
	for name, l := range chipLimits() {
		assert.Equal(t, cmp.Or(want[name], 1024), newSelectLimits(l.Caps).threads, name)
	}
}

// Workgroups have no idle invocations.
func TestSelectThreads(t *testing.T) {
	limits := selectLimits{1024, 2048, 32}
	for _, c := range []struct {
		n      int
		sorted bool
		want   uint32
	}{{512, true, 128}, {513, true, 256}, {512, false, 256}, {4096, true, 256}, {4097, true, 512}, {8192, false, 512}, {8193, false, 1024}, {65536, false, 1024}} {
		assert.Equal(t, c.want, newSelectPlan(limits, c.sorted, selectSizes{rows: 100, n: c.n, k: 10}).threads, "%+v", c)
	}
}

// Sizes determine the algorithm.
func TestSelectDispatches(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 4 s")
	}
	radix := []string{"fill", "select_digit", "select_digit", "select_digit", "select_digit", "select_compact"}
	limits := &forcedLimits{threads: 256, sortCapacity: 1024}
	for _, test := range []struct {
		selectCase
		sorted bool
		want   []string
	}{
		{selectCase{rows: 2, n: 8192, k: 1024}, true, []string{"select"}},
		{selectCase{rows: 2, n: 8192, k: 8000}, false, []string{"select"}},
		{selectCase{rows: 2, n: 8192, k: 1025}, true, []string{"select", "select_sort", "select_merge"}},
		{selectCase{rows: 1, n: 8193, k: 1024}, true, []string{"select_sample", "select_gather", "select_rank"}},
		{selectCase{rows: 2, n: 16384, k: 1024}, false, []string{"select"}},
		{selectCase{rows: 1, n: 16385, k: 1024}, false, []string{"select_sample", "select_gather", "select_rank", "select_rank"}},
		{selectCase{rows: 1, n: 16385, k: 16385}, false, radix},
		{selectCase{rows: 1, n: 8193, k: 1025}, true, append(radix[:6:6], "select_sort", "select_merge")},
		{selectCase{rows: 1, n: 8193, k: 2049}, true, append(radix[:6:6], "select_sort", "select_merge", "select_merge")},
	} {
		t.Run(test.String(), func(t *testing.T) {
			assert.Equal(t, test.want, runSelect(t, test.selectCase, test.sorted, limits))
		})
	}
}
