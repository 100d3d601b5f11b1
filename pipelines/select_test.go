package pipelines

import (
	"bytes"
	"cmp"
	"context"
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

// selectCase is a selection that is compared with the reference.
type selectCase struct {
	rows, n, k                int
	routes, block, skipBlocks int
	windows, prefix           int
	logits                    func(i int) float32 // of the flat index; nil: normal
	valid                     func(i int) bool    // of the flat index in the mask; nil: no mask
	emptyIndex                int32
	unaligned                 bool // ranges start between multiples of 16 bytes, the mask between multiples of 4
}

func (c selectCase) String() string {
	name := fmt.Sprintf("%dx%d_k%d_routes%d_block%d", c.rows, c.n, c.k, c.routes, c.block)
	if c.skipBlocks > 0 {
		name += fmt.Sprintf("_skip%d", c.skipBlocks)
	}
	if c.windows > 0 {
		name += fmt.Sprintf("_windows%d_prefix%d", c.windows, c.prefix)
	}
	if c.unaligned {
		name += "_unaligned"
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

// segments calls f for every segment with its row and its entries start..end-1.
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
			if start < c.skipBlocks*block {
				end = start
			}
			f(row, start, end)
		}
	}
}

// want returns the reference's selection: indices, valid words, and the bits of the values.
func (c selectCase) want(logits []float32, mask []uint8, sorted bool) (indices []int32, valid, values []uint32) {
	topK := func(row, start, end int) ([]int32, int) {
		m := mask
		if m != nil {
			item := row / max(c.routes, 1) * c.n
			m = mask[item+start : item+end]
		}
		selected := ref.Select(logits[row*c.n+start:row*c.n+end], m, 1, end-start, c.k)
		return selected.Indices, int(selected.Count[0])
	}
	if c.windows > 0 {
		routes, segment := max(c.routes, 1), -1
		all := ref.SelectWindows(logits, mask, c.rows/routes, routes, c.n, c.k, c.windows, c.prefix)
		topK = func(int, int, int) ([]int32, int) {
			segment++
			return all.Indices[segment*c.k : (segment+1)*c.k], int(all.Count[segment])
		}
	}
	c.segments(func(row, start, end int) {
		selected, count := topK(row, start, end)
		if !sorted {
			slices.Sort(selected[:count])
		}
		for slot := range c.k {
			if slot < count {
				index := int32(start) + selected[slot]
				indices, valid = append(indices, index), append(valid, 1)
				values = append(values, math.Float32bits(logits[row*c.n+int(index)]))
			} else {
				indices, valid, values = append(indices, c.emptyIndex), append(valid, 0), append(values, 0)
			}
		}
	})
	return indices, valid, values
}

// guardedScratch is scratch memory between guard bytes. Its contents are not compared between runs, because the order
// of candidates varies.
func guardedScratch(t *testing.T, gpu *gputest.Harness, size uint64) vk.Range {
	t.Helper()
	const guard = 256
	b, err := gpu.Dev.NewBuffer("scratch", size+2*guard)
	require.NoError(t, err)
	before, after := bytes.Repeat([]byte{0xe7}, int(size)+2*guard), make([]byte, int(size)+2*guard)
	require.NoError(t, gpu.Dev.Upload(t.Context(), vk.Transfer{Range: b.Range(), Data: before}))
	t.Cleanup(func() {
		require.NoError(t, gpu.Dev.Download(context.Background(), vk.Transfer{Range: b.Range(), Data: after}))
		assert.Equal(t, before[:guard], after[:guard], "written before the scratch memory")
		assert.Equal(t, before[:guard], after[guard+size:], "written after the scratch memory")
		assert.NoError(t, b.Close())
	})
	return b.Range().Slice(guard, size)
}

// forcedLimits replace the limits of a device. maxGroupsX 0 is that of the device.
type forcedLimits struct{ threads, sortCapacity, maxGroupsX uint32 }

// runSelect runs a case on the device, checks the result, and returns the names of its kernels.
func runSelect(t *testing.T, c selectCase, sorted bool, force *forcedLimits) []string {
	t.Helper()
	gpu := gputest.New(t)
	logits, mask := c.input()
	indices, valid, values := c.want(logits, mask, sorted)
	s, err := NewSelect(gpu.Dev, SelectConfig{Sorted: sorted})
	require.NoError(t, err)
	defer s.Close()
	if force != nil {
		s.limits.threads, s.limits.sortCapacity = force.threads, force.sortCapacity
		if force.maxGroupsX > 0 {
			s.caps.MaxWorkgroupCount[0] = force.maxGroupsX
		}
	}
	size, offset := 4*len(indices), 0 // of an output in bytes; of ranges in their buffers in words
	if c.unaligned {
		offset = 3
		logits = append([]float32{7}, logits...)
		if mask != nil {
			mask = append([]uint8{1}, mask...)
		}
	}
	result := func(name string) vk.Range {
		return gpu.Out(name, 4*offset+size).Slice(uint64(4*offset), uint64(size))
	}
	a := SelectArgs{
		Logits: gpu.In("logits", logits), Indices: result("indices"), Valid: result("valid"), Values: result("values"),
		Rows: c.rows, N: c.n, K: c.k, Routes: c.routes, BlockSize: c.block, SkipBlocks: c.skipBlocks, Windows: c.windows, WindowSize: c.prefix, EmptyIndex: c.emptyIndex,
	}
	if mask != nil {
		a.Mask = gpu.In("mask", mask)
	}
	if c.unaligned {
		a.Logits = a.Logits.Slice(4, a.Logits.Size()-4)
		if mask != nil {
			a.Mask = a.Mask.Slice(1, a.Mask.Size()-1)
		}
	}
	if size := selectScratch(s.limits, sorted, c.sizes()); size > 0 {
		a.Scratch = guardedScratch(t, gpu, size)
	}
	gpu.Run(func(list *vk.CommandList) error { return s.Record(list, a) })
	unwritten := slices.Repeat([]uint32{math.MaxUint32}, offset)
	assertSameSlots(t, "indices", append(slices.Repeat([]int32{-1}, offset), indices...), gpu.Int32("indices"))
	assertSameSlots(t, "valid", append(unwritten, valid...), gpu.Uint32("valid"))
	assertSameSlots(t, "values", append(unwritten, values...), gpu.Uint32("values"))
	return gpu.StepNames()
}

// assertSameSlots compares long slices and reports only the first difference.
func assertSameSlots[T int32 | uint32](t *testing.T, name string, want, got []T) {
	t.Helper()
	require.Len(t, got, len(want), name)
	for i := range want {
		if want[i] != got[i] {
			t.Errorf("%s: slot %d is %#x, want %#x", name, i, got[i], want[i])
			return
		}
	}
}

// runSortedAndUnsorted runs a case in both orders.
func runSortedAndUnsorted(t *testing.T, c selectCase, force *forcedLimits) {
	for _, sorted := range []bool{false, true} {
		if testing.Short() && !sorted && (c.valid != nil || c.block > 0) {
			continue // TestSelectSizes has unsorted selections
		}
		t.Run(fmt.Sprintf("%v_sorted_%v", c, sorted), func(t *testing.T) { runSelect(t, c, sorted, force) })
	}
	n, limits := min(cmp.Or(c.block, c.n), c.n), newSelectLimits(gputest.Device(t).Caps())
	if !testing.Short() && force == nil && n > 32<<10 && n <= 64<<10 && limits.threads > 512 { // with 512 invocations the unsorted selection is not direct
		t.Run(fmt.Sprintf("%v_512 invocations", c), func(t *testing.T) {
			runSelect(t, c, false, &forcedLimits{threads: 512, sortCapacity: limits.sortCapacity})
		})
	}
}

// oneIn returns a function that is true for indices i with i%m = r.
func oneIn(m, r int) func(int) bool { return func(i int) bool { return i%m == r } }

func TestSelectSizes(t *testing.T) {
	for _, c := range []selectCase{
		{rows: 1, n: 1, k: 1}, {rows: 1, n: 1, k: 5, emptyIndex: -1}, {rows: 3, n: 2, k: 1}, {rows: 5, n: 7, k: 3}, {rows: 2, n: 8, k: 8},
		{rows: 2, n: 509, k: 100}, {rows: 3, n: 1021, k: 1021}, {rows: 1, n: 1023, k: 64}, {rows: 1, n: 1024, k: 63},
		{rows: 1, n: 1025, k: 65}, {rows: 3, n: 1024, k: 2000, emptyIndex: -1}, // one 16-byte chunk per invocation of 256
		{rows: 1, n: 4096, k: 1023}, {rows: 2, n: 4095, k: 1024}, {rows: 2, n: 4097, k: 1025}, {rows: 2, n: 4093, k: 4093},
		{rows: 1, n: 8191, k: 2047}, {rows: 1, n: 8192, k: 2048}, {rows: 1, n: 8193, k: 2049}, // around the most slots that the selecting workgroup sorts
		{rows: 2, n: 16384, k: 1}, {rows: 2, n: 16381, k: 500}, {rows: 2, n: 16385, k: 16385},
		{rows: 2, n: 32765, k: 100}, {rows: 2, n: 32766, k: 100}, // around the longest unaligned rows of a direct selection
		{rows: 1, n: 32767, k: 2000}, {rows: 2, n: 32768, k: 1024}, {rows: 1, n: 32769, k: 1024}, {rows: 1, n: 32768, k: 32768},
		{rows: 1, n: 65535, k: 2048}, {rows: 2, n: 65536, k: 65536}, {rows: 2, n: 65533, k: 100}, {rows: 2, n: 65534, k: 100}, {rows: 1, n: 65537, k: 1024}, // the same, unsorted
		{rows: 33, n: 8200, k: 100}, {rows: 33, n: 8195, k: 2000}, // too many rows for sampling
		{rows: 1, n: 40000, k: 4097}, {rows: 3, n: 36865, k: 4097}, {rows: 2, n: 40000, k: 40000}, {rows: 1, n: 50000, k: 60000, emptyIndex: -1},
	} {
		if gputest.Reduced() && c.n > 1025 && c.n != 4093 && c.n != 36865 || testing.Short() && c.n != 7 && c.n != 36865 { // one radix case; all take 15 s
			continue
		}
		runSortedAndUnsorted(t, c, nil)
	}
}

// A device with small workgroups and little shared memory.
func TestSelectSmallDevice(t *testing.T) {
	if gputest.Reduced() {
		t.Skip("takes 7 s")
	}
	for _, c := range []selectCase{
		{rows: 1, n: 1, k: 1}, {rows: 3, n: 1025, k: 1025}, {rows: 2, n: 4097, k: 1024}, {rows: 1, n: 8192, k: 5000}, {rows: 1, n: 8193, k: 1000},
		{rows: 2, n: 10007, k: 3001, routes: 2, valid: oneIn(3, 1), emptyIndex: -1},
	} {
		runSortedAndUnsorted(t, c, &forcedLimits{threads: 256, sortCapacity: 1024})
		runSortedAndUnsorted(t, c, &forcedLimits{threads: 64, sortCapacity: 1024})
	}
}

// Short and long rows with ties, infinities, NaN and denormals.
func TestSelectContent(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles kernels for 1 s on CPU drivers")
	}
	inf, nan := float32(math.Inf(1)), float32(math.NaN())
	zero := float32(0)
	special := []float32{-zero * 1, zero, inf, -inf, nan, 1e-45, -1e-45, math.MaxFloat32, -math.MaxFloat32, 1, -1, math.Float32frombits(0x80000000),
		math.Float32frombits(0xffc00001), math.Float32frombits(0x7f800001), math.Float32frombits(0x00800000), math.Float32frombits(0x80800000)}
	contents := map[string]func(int) float32{
		"equal":      func(int) float32 { return 3.25 },
		"zeros":      func(i int) float32 { return math.Float32frombits(uint32(i*7%3&1) << 31) },
		"two":        func(i int) float32 { return []float32{-2, 5}[i*i%7&1] },
		"near":       func(i int) float32 { return math.Float32frombits(0x3f800000 + uint32(i*2654435761>>7)&0xfff) },
		"ascending":  func(i int) float32 { return float32(i) },
		"descending": func(i int) float32 { return -float32(i) },
		"large":      func(i int) float32 { return float32(math.Sin(float64(i))) * 3e38 },
		"nan":        func(int) float32 { return nan },
		"mostly nan": func(i int) float32 { return []float32{nan, nan, nan, -inf, nan, 1, nan}[i%7] },
		"special":    func(i int) float32 { return special[i*31%97%len(special)] },
		"any bits": func(i int) float32 {
			return math.Float32frombits(uint32(rand.New(rand.NewPCG(7, uint64(i))).Uint64()))
		},
	}
	for name, logits := range contents {
		t.Run(name, func(t *testing.T) {
			for _, n := range []int{1000, 33000} {
				for _, k := range []int{1, 77, 999, n / 2, n - 1, n} {
					if gputest.Reduced() && (k != 77 || n > 1000 && name != "any bits") { // all take 40 s
						continue
					}
					runSortedAndUnsorted(t, selectCase{rows: 2, n: n, k: k, logits: logits, emptyIndex: -1}, nil)
				}
			}
		})
	}
}

func TestSelectMask(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles kernels for 1 s on CPU drivers")
	}
	for name, valid := range map[string]func(int) bool{
		"none": func(int) bool { return false }, "all": func(int) bool { return true }, "some": oneIn(5, 2), "one": oneIn(1<<30, 700),
		"prefix": func(i int) bool { return i < 900 }, "no first": func(i int) bool { return i != 0 },
	} {
		t.Run(name, func(t *testing.T) {
			for _, n := range []int{999, 1001, 1002, 1004, 33003, 33004} {
				if gputest.Reduced() && n != 1001 || testing.Short() && name != "some" { // all take 60 s
					continue
				}
				runSortedAndUnsorted(t, selectCase{rows: 2, n: n, k: 300, valid: valid, emptyIndex: -1}, nil)
				if !gputest.Reduced() || name == "some" {
					runSortedAndUnsorted(t, selectCase{rows: 6, n: n, k: 301, routes: 3, valid: valid}, nil)
				}
			}
			if !gputest.Reduced() {
				runSortedAndUnsorted(t, selectCase{rows: 2, n: 33001, k: 3000, routes: 2, valid: valid, emptyIndex: -1}, nil)
			}
		})
	}
}

func TestSelectBlocks(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles kernels for 1 s on CPU drivers")
	}
	for _, c := range []selectCase{
		{rows: 2, n: 10, k: 2, block: 4}, {rows: 2, n: 12, k: 2, block: 4}, {rows: 1, n: 12, k: 3, block: 1}, {rows: 3, n: 7, k: 2, block: 100},
		{rows: 4, n: 1000, k: 50, block: 333, routes: 2, valid: oneIn(2, 0), emptyIndex: -1}, // the last block has one entry
		{rows: 4, n: 4097, k: 300, block: 1024, routes: 4, valid: oneIn(3, 0)},
		{rows: 2, n: 33001, k: 2100, block: 16001, valid: oneIn(4, 3)},
		{rows: 2, n: 70003, k: 600, block: 33001, routes: 2, valid: oneIn(2, 1), emptyIndex: -1}, // long blocks
		{rows: 2, n: 70000, k: 3000, block: 69000},
	} {
		if gputest.Reduced() && c.n > 4097 || testing.Short() && c.n != 1000 { // take 7 s
			continue
		}
		runSortedAndUnsorted(t, c, nil)
	}
}

// Grids extend to y where there are more workgroups than x allows.
func TestSelectFoldedGrid(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles kernels of their own for 2 s on CPU drivers")
	}
	small := &forcedLimits{threads: 64, sortCapacity: 1024, maxGroupsX: 7}
	for _, c := range []selectCase{{rows: 25, n: 8, k: 2, block: 4}, {rows: 3, n: 33001, k: 2100, routes: 3, valid: oneIn(4, 3)}} {
		if gputest.Reduced() && c.n > 8 {
			continue // takes 3 s
		}
		runSortedAndUnsorted(t, c, small)
	}
}

func TestSelectLong(t *testing.T) {
	if gputest.Reduced() {
		t.Skip("takes 30 s")
	}
	for _, c := range []selectCase{
		{rows: 1, n: 1 << 20, k: 1024}, {rows: 2, n: 1<<20 + 1, k: 2048, routes: 2, valid: oneIn(2, 0)}, {rows: 1, n: 1 << 22, k: 1024},
		{rows: 1, n: 4_200_001, k: 5000, logits: func(i int) float32 { return float32(i % 3) }}, // two tiles per part where workgroups have 512 invocations
		{rows: 1, n: 4_200_001, k: 4_200_002, emptyIndex: -1},
	} {
		runSortedAndUnsorted(t, c, nil)
	}
	t.Run("million", func(t *testing.T) { runSelect(t, selectCase{rows: 1, n: 1 << 20, k: 1_000_000}, true, nil) })
	t.Run("million, few values", func(t *testing.T) {
		c := selectCase{rows: 1, n: 1 << 20, k: 1_000_000, logits: func(i int) float32 { return float32(i * 7 % 5) }}
		runSelect(t, c, true, nil)
		runSelect(t, c, false, nil)
	})
}

// The result is the same without values.
func TestSelectWithoutValues(t *testing.T) {
	for _, n := range []int{500, 33000} {
		gpu := gputest.New(t)
		c := selectCase{rows: 2, n: n, k: 10, logits: func(i int) float32 { return float32(i * 7919 % n / 3) }} // ties of three
		logits, _ := c.input()
		indices, valid, _ := c.want(logits, nil, true)
		s, err := NewSelect(gpu.Dev, SelectConfig{Sorted: true})
		require.NoError(t, err)
		defer s.Close()
		a := SelectArgs{Logits: gpu.In("logits", logits), Indices: gpu.Out("indices", 80), Valid: gpu.Out("valid", 80), Rows: 2, N: n, K: 10}
		if size := s.Scratch(2, n, 10, 0); size > 0 {
			a.Scratch = guardedScratch(t, gpu, size)
		}
		gpu.Run(func(list *vk.CommandList) error { return s.Record(list, a) })
		assert.Equal(t, indices, gpu.Int32("indices"))
		assert.Equal(t, valid, gpu.Uint32("valid"))
	}
}
