package pipelines

import (
	"bytes"
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/internal/ref"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// selectCase is a selection to compare with the reference, sorted and not.
type selectCase struct {
	rows, n, k          int
	routes, block, skip int
	windows, prefix     int
	logits              func(i int) float32 // of the flat index; nil: normal
	valid               func(i int) bool    // of the flat index in the mask; nil: no mask
	empty               int32
	odd                 bool // no range but that of the mask starts at a multiple of 16 bytes, and that not at one of 4
}

func (c selectCase) String() string {
	name := fmt.Sprintf("%dx%d_k%d_routes%d_block%d", c.rows, c.n, c.k, c.routes, c.block)
	if c.skip > 0 {
		name += fmt.Sprintf("_skip%d", c.skip)
	}
	if c.windows > 0 {
		name += fmt.Sprintf("_windows%d_prefix%d", c.windows, c.prefix)
	}
	if c.odd {
		name += "_odd"
	}
	return name
}

func (c selectCase) sizes() selectSizes {
	return selectSizes{rows: c.rows, n: c.n, k: c.k, block: c.block, windows: c.windows}
}

func (c selectCase) input() (logits []float32, mask []uint8) {
	logits = normal(uint64(c.n+c.k), c.rows*c.n)
	if c.logits != nil {
		for i := range logits {
			logits[i] = c.logits(i)
		}
	}
	if c.valid != nil {
		mask = make([]uint8, c.rows/max(c.routes, 1)*c.n)
		for i := range mask {
			if c.valid(i) {
				mask[i] = 1
			}
		}
	}
	return logits, mask
}

// segments calls f for every block, or window, with its row and entries.
func (c selectCase) segments(f func(row, start, end int)) {
	if c.windows > 0 {
		routes := max(c.routes, 1)
		for i := range c.rows * c.windows {
			f(i/routes/c.windows*routes+i%routes, 0, min(i/routes%c.windows*c.prefix, c.n))
		}
		return
	}
	block := c.block
	if block == 0 {
		block = c.n
	}
	for row := range c.rows {
		for start := 0; start < c.n; start += block {
			end := min(start+block, c.n)
			if start < c.skip*block {
				end = start
			}
			f(row, start, end)
		}
	}
}

// want is the reference's choice: indices, filled, and the bits of the values.
func (c selectCase) want(logits []float32, mask []uint8, sorted bool) (indices []int32, filled, values []uint32) {
	choose := func(row, start, end int) ([]int32, int) {
		m := mask
		if m != nil {
			item := row / max(c.routes, 1) * c.n
			m = mask[item+start : item+end]
		}
		chosen := ref.Select(logits[row*c.n+start:row*c.n+end], m, 1, end-start, c.k)
		return chosen.Indices, int(chosen.Count[0])
	}
	if c.windows > 0 {
		routes, at := max(c.routes, 1), -1
		all := ref.SelectWindows(logits, mask, c.rows/routes, routes, c.n, c.k, c.windows, c.prefix)
		choose = func(int, int, int) ([]int32, int) {
			at++
			return all.Indices[at*c.k : (at+1)*c.k], int(all.Count[at])
		}
	}
	c.segments(func(row, start, end int) {
		chosen, count := choose(row, start, end)
		if !sorted {
			slices.Sort(chosen[:count])
		}
		for slot := range c.k {
			if slot < count {
				index := int32(start) + chosen[slot]
				indices, filled = append(indices, index), append(filled, 1)
				values = append(values, math.Float32bits(logits[row*c.n+int(index)]))
			} else {
				indices, filled, values = append(indices, c.empty), append(filled, 0), append(values, 0)
			}
		}
	})
	return indices, filled, values
}

// selectMemory is scratch memory between guards. The order of candidates in it is any, so it is not compared between runs.
func selectMemory(t *testing.T, gpu *gputest.Harness, size uint64) vk.Range {
	t.Helper()
	const guard = 256
	b, err := gpu.Dev.NewBuffer("scratch", size+2*guard)
	require.NoError(t, err)
	before, after := bytes.Repeat([]byte{0xe7}, int(size)+2*guard), make([]byte, int(size)+2*guard)
	require.NoError(t, gpu.Dev.Upload(t.Context(), vk.Transfer{Range: b.Range(), Data: before}))
	t.Cleanup(func() {
		require.NoError(t, gpu.Dev.Download(t.Context(), vk.Transfer{Range: b.Range(), Data: after}))
		assert.Equal(t, before[:guard], after[:guard], "written before the scratch memory")
		assert.Equal(t, before[:guard], after[guard+size:], "written behind the scratch memory")
		assert.NoError(t, b.Close())
	})
	return b.Range().Slice(guard, size)
}

// selectForce takes the place of a device's limits.
type selectForce struct{ threads, slots, width uint32 }

// selectRun runs a case on the device and returns the names of its kernels.
func selectRun(t *testing.T, c selectCase, sorted bool, force *selectForce) []string {
	t.Helper()
	gpu := gputest.New(t)
	logits, mask := c.input()
	indices, filled, values := c.want(logits, mask, sorted)
	s, err := NewSelect(gpu.Dev, SelectConfig{Sorted: sorted})
	require.NoError(t, err)
	defer s.Close()
	if force != nil {
		s.limits.threads, s.limits.sortCapacity = force.threads, force.slots
		if force.width > 0 {
			s.caps.MaxWorkgroupCount[0] = force.width
		}
	}
	out, before := 4*len(indices), 0 // bytes of an output; words in front of it
	if c.odd {
		before = 3
		logits = append([]float32{7}, logits...)
		if mask != nil {
			mask = append([]uint8{1}, mask...)
		}
	}
	result := func(name string) vk.Range {
		return gpu.Out(name, 4*before+out).Slice(uint64(4*before), uint64(out))
	}
	a := SelectArgs{
		Logits: gpu.In("logits", logits), Indices: result("indices"), Valid: result("filled"), Values: result("values"),
		Rows: c.rows, N: c.n, K: c.k, Routes: c.routes, BlockSize: c.block, SkipBlocks: c.skip, Windows: c.windows, Prefix: c.prefix, EmptyIndex: c.empty,
	}
	if mask != nil {
		a.Mask = gpu.In("mask", mask)
	}
	if c.odd {
		a.Logits = a.Logits.Slice(4, a.Logits.Size()-4)
		if mask != nil {
			a.Mask = a.Mask.Slice(1, a.Mask.Size()-1)
		}
	}
	if size := selectScratch(s.limits, sorted, c.sizes()); size > 0 {
		a.Scratch = selectMemory(t, gpu, size)
	}
	gpu.Run(func(list *vk.CommandList) error { return s.Record(list, a) })
	nothing := slices.Repeat([]uint32{math.MaxUint32}, before)
	same(t, "indices", append(slices.Repeat([]int32{-1}, before), indices...), gpu.Int32("indices"))
	same(t, "filled", append(nothing, filled...), gpu.Uint32("valid"))
	same(t, "values", append(nothing, values...), gpu.Uint32("values"))
	return gpu.Kernels()
}

// same compares long slices, and names the first difference only.
func same[T int32 | uint32](t *testing.T, name string, want, got []T) {
	t.Helper()
	require.Len(t, got, len(want), name)
	for i := range want {
		if want[i] != got[i] {
			t.Errorf("%s: slot %d is %#x, want %#x", name, i, got[i], want[i])
			return
		}
	}
}

func selectBoth(t *testing.T, c selectCase, force *selectForce) {
	for _, sorted := range []bool{false, true} {
		t.Run(fmt.Sprintf("%v_sorted_%v", c, sorted), func(t *testing.T) { selectRun(t, c, sorted, force) })
	}
	n, limits := min(cmp.Or(c.block, c.n), c.n), newSelectLimits(gputest.Device(t).Caps())
	if force == nil && n > 32<<10 && n <= 64<<10 && limits.threads > 512 { // with 512 no workgroup does so much alone
		t.Run(fmt.Sprintf("%v_long", c), func(t *testing.T) { selectRun(t, c, false, &selectForce{threads: 512, slots: limits.sortCapacity}) })
	}
}

// every says which of the flat indices are a multiple of m, plus r.
func every(m, r int) func(int) bool { return func(i int) bool { return i%m == r } }

func TestSelectSizes(t *testing.T) {
	for _, c := range []selectCase{
		{rows: 1, n: 1, k: 1}, {rows: 1, n: 1, k: 5, empty: -1}, {rows: 3, n: 2, k: 1}, {rows: 5, n: 7, k: 3}, {rows: 2, n: 8, k: 8},
		{rows: 2, n: 509, k: 100}, {rows: 3, n: 1021, k: 1021}, {rows: 1, n: 1023, k: 64}, {rows: 1, n: 1024, k: 63},
		{rows: 1, n: 1025, k: 65}, {rows: 3, n: 1024, k: 2000, empty: -1}, // one granule each of 256 threads
		{rows: 1, n: 4096, k: 1023}, {rows: 2, n: 4095, k: 1024}, {rows: 2, n: 4097, k: 1025}, {rows: 2, n: 4093, k: 4093},
		{rows: 1, n: 8191, k: 2047}, {rows: 1, n: 8192, k: 2048}, {rows: 1, n: 8193, k: 2049}, // the most slots sorted inside
		{rows: 2, n: 16384, k: 1}, {rows: 2, n: 16381, k: 500}, {rows: 2, n: 16385, k: 16385},
		{rows: 2, n: 32765, k: 100}, {rows: 2, n: 32766, k: 100}, // the longest unaligned rows of one workgroup, and the first longer
		{rows: 1, n: 32767, k: 2000}, {rows: 2, n: 32768, k: 1024}, {rows: 1, n: 32769, k: 1024}, {rows: 1, n: 32768, k: 32768},
		{rows: 1, n: 65535, k: 2048}, {rows: 2, n: 65536, k: 65536}, {rows: 2, n: 65533, k: 100}, {rows: 2, n: 65534, k: 100}, {rows: 1, n: 65537, k: 1024}, // the same, unsorted
		{rows: 33, n: 8200, k: 100}, {rows: 33, n: 8195, k: 2000}, // too many rows to be sampled
		{rows: 1, n: 40000, k: 4097}, {rows: 3, n: 36865, k: 4097}, {rows: 2, n: 40000, k: 40000}, {rows: 1, n: 50000, k: 60000, empty: -1},
	} {
		selectBoth(t, c, nil)
	}
}

// The same on a device that allows few invocations and little shared memory.
func TestSelectSmallDevice(t *testing.T) {
	for _, c := range []selectCase{
		{rows: 1, n: 1, k: 1}, {rows: 3, n: 1025, k: 1025}, {rows: 2, n: 4097, k: 1024}, {rows: 1, n: 8192, k: 5000}, {rows: 1, n: 8193, k: 1000},
		{rows: 2, n: 10007, k: 3001, routes: 2, valid: every(3, 1), empty: -1},
	} {
		selectBoth(t, c, &selectForce{threads: 256, slots: 1024})
		selectBoth(t, c, &selectForce{threads: 64, slots: 1024})
	}
}

// Short and long rows of every awkward content.
func TestSelectContent(t *testing.T) {
	inf, nan := float32(math.Inf(1)), float32(math.NaN())
	zero := float32(0)
	odd := []float32{-zero * 1, zero, inf, -inf, nan, 1e-45, -1e-45, math.MaxFloat32, -math.MaxFloat32, 1, -1, math.Float32frombits(0x80000000),
		math.Float32frombits(0xffc00001), math.Float32frombits(0x7f800001), math.Float32frombits(0x00800000), math.Float32frombits(0x80800000)}
	contents := map[string]func(int) float32{
		"equal":      func(int) float32 { return 3.25 },
		"zeros":      func(i int) float32 { return math.Float32frombits(uint32(i*7%3&1) << 31) },
		"two":        func(i int) float32 { return []float32{-2, 5}[i*i%7&1] },
		"near":       func(i int) float32 { return math.Float32frombits(0x3f800000 + uint32(i*2654435761>>7)&0xfff) },
		"rising":     func(i int) float32 { return float32(i) },
		"falling":    func(i int) float32 { return -float32(i) },
		"large":      func(i int) float32 { return float32(math.Sin(float64(i))) * 3e38 },
		"nan":        func(int) float32 { return nan },
		"mostly nan": func(i int) float32 { return []float32{nan, nan, nan, -inf, nan, 1, nan}[i%7] },
		"odd":        func(i int) float32 { return odd[i*31%97%len(odd)] },
		"any bits": func(i int) float32 {
			return math.Float32frombits(uint32(rand.New(rand.NewPCG(7, uint64(i))).Uint64()))
		},
	}
	for name, logits := range contents {
		t.Run(name, func(t *testing.T) {
			for _, n := range []int{1000, 33000} {
				for _, k := range []int{1, 77, 999, n / 2, n - 1, n} {
					selectBoth(t, selectCase{rows: 2, n: n, k: k, logits: logits, empty: -1}, nil)
				}
			}
		})
	}
}

func TestSelectMask(t *testing.T) {
	for name, valid := range map[string]func(int) bool{
		"none": func(int) bool { return false }, "all": func(int) bool { return true }, "some": every(5, 2), "one": every(1<<30, 700),
		"prefix": func(i int) bool { return i < 900 }, "no first": func(i int) bool { return i != 0 },
	} {
		t.Run(name, func(t *testing.T) {
			for _, n := range []int{999, 1001, 1002, 1004, 33003, 33004} {
				selectBoth(t, selectCase{rows: 2, n: n, k: 300, valid: valid, empty: -1}, nil)
				selectBoth(t, selectCase{rows: 6, n: n, k: 301, routes: 3, valid: valid}, nil)
			}
			selectBoth(t, selectCase{rows: 2, n: 33001, k: 3000, routes: 2, valid: valid, empty: -1}, nil)
		})
	}
}

func TestSelectBlocks(t *testing.T) {
	for _, c := range []selectCase{
		{rows: 2, n: 10, k: 2, block: 4}, {rows: 2, n: 12, k: 2, block: 4}, {rows: 1, n: 12, k: 3, block: 1}, {rows: 3, n: 7, k: 2, block: 100},
		{rows: 4, n: 1000, k: 50, block: 333, routes: 2, valid: every(2, 0), empty: -1}, // the last block has one entry
		{rows: 4, n: 4097, k: 300, block: 1024, routes: 4, valid: every(3, 0)},
		{rows: 2, n: 33001, k: 2100, block: 16001, valid: every(4, 3)},
		{rows: 2, n: 70003, k: 600, block: 33001, routes: 2, valid: every(2, 1), empty: -1}, // long blocks
		{rows: 2, n: 70000, k: 3000, block: 69000},
	} {
		selectBoth(t, c, nil)
	}
}

// Grids fold where there are more workgroups than a dimension may have.
func TestSelectFolded(t *testing.T) {
	small := &selectForce{threads: 64, slots: 1024, width: 7}
	for _, c := range []selectCase{{rows: 25, n: 8, k: 2, block: 4}, {rows: 3, n: 33001, k: 2100, routes: 3, valid: every(4, 3)}} {
		selectBoth(t, c, small)
	}
}

func TestSelectLong(t *testing.T) {
	if testing.Short() {
		t.Skip("long rows")
	}
	for _, c := range []selectCase{
		{rows: 1, n: 1 << 20, k: 1024}, {rows: 2, n: 1<<20 + 1, k: 2048, routes: 2, valid: every(2, 0)}, {rows: 1, n: 1 << 22, k: 1024},
		{rows: 1, n: 4_200_001, k: 5000, logits: func(i int) float32 { return float32(i % 3) }}, // two spans a part where workgroups have 512 threads
		{rows: 1, n: 4_200_001, k: 4_200_002, empty: -1},
	} {
		selectBoth(t, c, nil)
	}
	t.Run("million", func(t *testing.T) { selectRun(t, selectCase{rows: 1, n: 1 << 20, k: 1_000_000}, true, nil) })
	t.Run("million, few values", func(t *testing.T) {
		c := selectCase{rows: 1, n: 1 << 20, k: 1_000_000, logits: func(i int) float32 { return float32(i * 7 % 5) }}
		selectRun(t, c, true, nil)
		selectRun(t, c, false, nil)
	})
}

// Without values the rest is the same.
func TestSelectWithoutValues(t *testing.T) {
	for _, n := range []int{500, 33000} {
		gpu := gputest.New(t)
		c := selectCase{rows: 2, n: n, k: 10}
		logits, _ := c.input()
		indices, filled, _ := c.want(logits, nil, true)
		s, err := NewSelect(gpu.Dev, SelectConfig{Sorted: true})
		require.NoError(t, err)
		defer s.Close()
		a := SelectArgs{Logits: gpu.In("logits", logits), Indices: gpu.Out("indices", 80), Valid: gpu.Out("valid", 80), Rows: 2, N: n, K: 10}
		if size := s.Scratch(2, n, 10, 0); size > 0 {
			a.Scratch = selectMemory(t, gpu, size)
		}
		gpu.Run(func(list *vk.CommandList) error { return s.Record(list, a) })
		assert.Equal(t, indices, gpu.Int32("indices"))
		assert.Equal(t, filled, gpu.Uint32("valid"))
	}
}
