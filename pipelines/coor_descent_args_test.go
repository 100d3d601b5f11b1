package pipelines

import (
	"math"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Plans cover every length, on large and small devices. No device is needed.
func TestCoorDescentPlan(t *testing.T) {
	ownLimits(t)
	devices := []vk.Caps{
		{MaxWorkgroupInvocations: 1024, MaxWorkgroupSize: [3]uint32{1024, 1024, 64}, SubgroupMin: 32},
		{MaxWorkgroupInvocations: 1024, MaxWorkgroupSize: [3]uint32{1024, 1024, 64}, SubgroupMin: 4},
		{MaxWorkgroupInvocations: 2048, MaxWorkgroupSize: [3]uint32{2048, 1024, 64}, SubgroupMin: 8},
		{MaxWorkgroupInvocations: 384, MaxWorkgroupSize: [3]uint32{384, 384, 64}, SubgroupMin: 64},
		{MaxWorkgroupInvocations: 128, MaxWorkgroupSize: [3]uint32{128, 128, 64}, SubgroupMin: 128},
		{MaxWorkgroupInvocations: 1024, MaxWorkgroupSize: [3]uint32{256, 256, 64}, SubgroupMin: 1},
	}
	for i := range devices {
		few := devices[i] // 128 registers per invocation
		devices[i].VendorID = vendorAMD
		devices = append(devices, few)
	}
	for _, l := range chipLimits() {
		devices = append(devices, l.Caps)
	}
	for _, caps := range devices {
		for _, n := range []int{1, 63, 64, 65, 256, 257, 1023, 1025, 4096, 8192, 8193, 32768, 32769, 1 << 20, 1 << 22, 1<<22 + 1, 99999989, 1<<30 - 1} {
			plans := coorDescentPlans(limitsOfCaps(caps), n)
			for _, p := range plans {
				checkCoorDescentPlan(t, caps, p, n)
			}
			if sure := plans[len(plans)-1]; limitsOfCaps(caps).registersIn(sure.threads) < 220 {
				require.Less(t, sure.vec4PerThread, uint32(7))
			}
		}
	}
	desktop := deviceLimits{Caps: vk.Caps{MaxWorkgroupInvocations: 1024, MaxWorkgroupSize: [3]uint32{1024, 1024, 64}, SubgroupMin: 32},
		registers: registerFile{255 * 32, 255, 0}}
	for length, want := range map[int]coorDescentPlan{
		32768: {threads: 512, vec4PerThread: 16}, 8192: {threads: 256, vec4PerThread: 8},
		32769: {threads: 256, parts: 9, span: 4096}, 4194304: {threads: 256, parts: 1024, span: 4096},
	} {
		assert.Equal(t, []coorDescentPlan{want}, coorDescentPlans(desktop, length))
	}
}

func checkCoorDescentPlan(t *testing.T, caps vk.Caps, p coorDescentPlan, n int) {
	t.Helper()
	require.LessOrEqual(t, p.threads, min(caps.MaxWorkgroupInvocations, caps.MaxWorkgroupSize[0], 1024, 256*caps.SubgroupMin))
	require.Zero(t, p.threads&(p.threads-1), "%d invocations", p.threads)
	if p.vec4PerThread > 0 {
		require.LessOrEqual(t, p.vec4PerThread, uint32(16))
		require.GreaterOrEqual(t, int(p.vec4PerThread)*4*int(p.threads), n)
		require.Less(t, (int(p.vec4PerThread)-1)*4*int(p.threads), n, "unused registers")
		return
	}
	require.LessOrEqual(t, p.threads, uint32(256))
	require.Zero(t, p.span%4)
	require.LessOrEqual(t, p.parts, 1024)
	require.GreaterOrEqual(t, p.parts*p.span, n)
	require.Less(t, (p.parts-1)*p.span, n, "a part without an entry")
	require.GreaterOrEqual(t, p.partialBytes(), uint64(16+8*p.parts))
	require.Zero(t, p.partialBytes()%16)
}

// The longest segments that a workgroup holds in registers: of the preferred plan, and of the one that is known to fit.
func TestCoorDescentChips(t *testing.T) {
	want := map[string][2]int{
		"skl": {12288, 6144}, "icl": {12288, 6144}, "tgl": {24576, 12288}, "mtl": {49152, 24576}, "dg2": {49152, 24576},
		"lnl": {49152, 24576}, "bmg": {49152, 24576}, "ptl": {24576, 12288},
		"adreno": {16384, 12288}, "apple": {16384, 12288}, "kepler": {24576, 16384},
	}
	for name, l := range chipLimits() {
		w, ok := want[name]
		if !ok {
			w = [2]int{32768, 32768}
		}
		for i, sure := range []bool{false, true} {
			assert.NotZero(t, planCoorDescent(l, w[i], sure).vec4PerThread, "%s, %d entries", name, w[i])
			assert.Zero(t, planCoorDescent(l, w[i]+1, sure).vec4PerThread, "%s, %d entries", name, w[i]+1)
		}
		if !ok {
			for _, n := range []int{1, 8000, 32768, 32769} {
				assert.Len(t, coorDescentPlans(l, n), 1, "%s is known to hold %d entries", name, n)
			}
		}
	}
}

func TestCoorDescentBadConfig(t *testing.T) {
	good := CoorDescentConfig{Iters: 3, Eps: 0.1, EpsInit: 1, EpsDecay: 0.5}
	nan, inf := math.NaN(), math.Inf(1)
	for _, test := range []struct {
		want   string
		change func(*CoorDescentConfig)
	}{
		{"Iters is 0, want 1 to 65536", func(c *CoorDescentConfig) { c.Iters = 0 }},
		{"Iters is -1, want 1", func(c *CoorDescentConfig) { c.Iters = -1 }},
		{"Iters is 65537, want 1", func(c *CoorDescentConfig) { c.Iters = 65537 }},
		{"Eps is 0, want 1e-30 to 1e+30", func(c *CoorDescentConfig) { c.Eps = 0 }},
		{"Eps is -1, want", func(c *CoorDescentConfig) { c.Eps = -1 }},
		{"Eps is NaN, want", func(c *CoorDescentConfig) { c.Eps = nan }},
		{"Eps is +Inf, want", func(c *CoorDescentConfig) { c.Eps = inf }},
		{"EpsInit is -1, want 0 to 1e+30", func(c *CoorDescentConfig) { c.EpsInit = -1 }},
		{"EpsInit is NaN, want", func(c *CoorDescentConfig) { c.EpsInit = nan }},
		{"EpsInit is +Inf, want", func(c *CoorDescentConfig) { c.EpsInit = inf }},
		{"EpsDecay is -0.5, want more than 0, at most 1", func(c *CoorDescentConfig) { c.EpsDecay = -0.5 }},
		{"EpsDecay is 1.5, want", func(c *CoorDescentConfig) { c.EpsDecay = 1.5 }},
		{"EpsDecay is NaN, want", func(c *CoorDescentConfig) { c.EpsDecay = nan }},
	} {
		c := good
		test.change(&c)
		_, err := NewCoorDescent(nil, c)
		assert.ErrorContains(t, err, "pipelines: CoorDescent: "+test.want)
	}
	_, err := NewCoorDescent(nil, good)
	assert.NoError(t, err)
}

func TestCoorDescentBadInput(t *testing.T) {
	gpu := gputest.New(t)
	d := openCoorDescent(t, gpu, CoorDescentConfig{Iters: 3, Eps: 0.1})
	long := longestInRegisters(gpu.Dev.Caps()) + 1
	logits, mask, scores := gpu.In("logits", normal(1, 40)), gpu.In("mask", make([]uint8, 20)), gpu.Out("scores", 160)
	state, row := gpu.Out("state", 4*3*16), gpu.Out("row", 4*long)
	scratch := gpu.Out("scratch", int(d.Scratch(1, long, 0)))
	good := CoorDescentArgs{Logits: logits, Mask: mask, Scores: scores, State: state, Rows: 4, N: 10, Routes: 2, K: 2}
	for _, test := range []struct {
		name, want string
		change     func(*CoorDescentArgs)
	}{
		{"rows", "Rows is 0, want 1", func(a *CoorDescentArgs) { a.Rows = 0 }},
		{"n", "N is 0, want 1", func(a *CoorDescentArgs) { a.N = 0 }},
		{"n too large", "N is 1073741824, want at most 1073741823", func(a *CoorDescentArgs) { a.N = 1 << 30 }},
		{"routes", "Routes is -1, want 1", func(a *CoorDescentArgs) { a.Routes = -1 }},
		{"routes no divisor", "Rows is 4, want a multiple of Routes 3", func(a *CoorDescentArgs) { a.Routes = 3 }},
		{"block", "BlockSize is -4, want at least 0", func(a *CoorDescentArgs) { a.BlockSize = -4 }},
		{"too many blocks", "Rows * Blocks is 4294967292, want 1", func(a *CoorDescentArgs) { a.N, a.BlockSize = 1<<30-1, 1 }},
		{"select all up to", "SelectAllUpTo is -1, want 0", func(a *CoorDescentArgs) { a.SelectAllUpTo = -1 }},
		{"k zero", "K is 0, want 1e-06 to 1e+30", func(a *CoorDescentArgs) { a.K = 0 }},
		{"k negative", "K is -2, want", func(a *CoorDescentArgs) { a.K = -2 }},
		{"k nan", "K is NaN, want", func(a *CoorDescentArgs) { a.K = math.NaN() }},
		{"k infinite", "K is +Inf, want", func(a *CoorDescentArgs) { a.K = math.Inf(1) }},
		{"row k and k", "RowK has 16 bytes, want K and SelectAllUpTo 0, and no state, blocks or windows: K is 2, SelectAllUpTo 0, state has 192 bytes", func(a *CoorDescentArgs) { a.RowK = state.Slice(0, 16) }},
		{"row k and blocks", "RowK has 16 bytes, want K and SelectAllUpTo 0, and no state, blocks or windows: K is 0, SelectAllUpTo 0, state has 0 bytes, BlockSize is 5 and Windows 0", func(a *CoorDescentArgs) { a.RowK, a.K, a.State, a.BlockSize = state.Slice(0, 16), 0, vk.Range{}, 5 }},
		{"row k and windows", "RowK has 16 bytes, want K and SelectAllUpTo 0, and no state, blocks or windows: K is 0, SelectAllUpTo 0, state has 0 bytes, BlockSize is 0 and Windows 3", func(a *CoorDescentArgs) {
			a.RowK, a.K, a.State, a.Windows, a.WindowSize = state.Slice(0, 16), 0, vk.Range{}, 3, 4
		}},
		{"row k and select all", "RowK has 16 bytes, want K and SelectAllUpTo 0, and no state, blocks or windows: K is 0, SelectAllUpTo 10, state has 0 bytes", func(a *CoorDescentArgs) {
			a.RowK, a.K, a.State, a.SelectAllUpTo = state.Slice(0, 16), 0, vk.Range{}, 10
		}},
		{"row k short", "row k has 12 bytes, want [Rows 4] f32, 16 bytes", func(a *CoorDescentArgs) { a.RowK, a.K, a.State = state.Slice(0, 12), 0, vk.Range{} }},
		{"logits missing", "logits is missing, want [Rows 4, N 10] f32, 160 bytes", func(a *CoorDescentArgs) { a.Logits = vk.Range{} }},
		{"logits short", "logits has 156 bytes, want [Rows 4, N 10] f32, 160 bytes", func(a *CoorDescentArgs) { a.Logits = logits.Slice(0, 156) }},
		{"mask long", "mask has 20 bytes, want [Rows / Routes 1, N 10] u8, 10 bytes", func(a *CoorDescentArgs) { a.Routes = 4 }},
		{"scores missing", "scores and selected scores are both missing, want at least one of them", func(a *CoorDescentArgs) { a.Scores = vk.Range{} }},
		{"scores short", "scores has 120 bytes, want [Rows 4, N 10] f32, 160 bytes", func(a *CoorDescentArgs) { a.Scores = scores.Slice(0, 120) }},
		{"scores unaligned", "scores starts at byte 258 of its buffer, want a multiple of 4", func(a *CoorDescentArgs) {
			a.Scores, a.Logits, a.Mask, a.State = scores.Slice(2, 40), logits.Slice(4, 40), mask.Slice(3, 10), vk.Range{}
			a.Rows, a.Routes = 1, 1
		}},
		{"state unaligned", "state starts at byte 264 of its buffer, want a multiple of 16", func(a *CoorDescentArgs) {
			a.Scores, a.Logits, a.Mask, a.State = scores.Slice(4, 40), logits.Slice(4, 40), mask.Slice(3, 10), state.Slice(8, 48)
			a.Rows, a.Routes = 1, 1
		}},
		{"slots negative", "Slots is -1, want 0 to 1073741823", func(a *CoorDescentArgs) { a.Slots = -1 }},
		{"slots without selected scores", "Slots is 3, indices has 0 bytes, valid 0 and selected scores 0, want all", func(a *CoorDescentArgs) { a.Slots = 3 }},
		{"selected scores without indices", "Slots is 3, indices has 0 bytes, valid 0 and selected scores 48, want all", func(a *CoorDescentArgs) {
			a.Slots, a.SelectedScores = 3, state.Slice(0, 48)
		}},
		{"selected scores without slots", "selected scores has 48 bytes, want [Rows 4, Blocks 1, Slots 0] f32, 0 bytes", func(a *CoorDescentArgs) { a.SelectedScores = state.Slice(0, 48) }},
		{"valid without selected scores", "valid has 4 bytes, want [Rows 4, Blocks 1, Slots 0] u32, 0 bytes", func(a *CoorDescentArgs) { a.Valid = state.Slice(0, 4) }},
		{"indices short", "indices has 44 bytes, want [Rows 4, Blocks 1, Slots 3] i32, 48 bytes", func(a *CoorDescentArgs) {
			a.Slots, a.SelectedScores, a.Indices = 3, state.Slice(0, 48), state.Slice(48, 44)
		}},
		{"selected scores in place", "scores and logits are the same range, want different ranges with selected scores or windows", func(a *CoorDescentArgs) {
			a.Slots, a.SelectedScores, a.Indices, a.Scores, a.State = 3, state.Slice(0, 48), state.Slice(48, 48), logits, vk.Range{}
		}},
		{"windows in place", "scores and logits are the same range", func(a *CoorDescentArgs) { a.Windows, a.WindowSize, a.Scores = 1, 4, logits }},
		{"windows alone", "WindowSize is 0, want 1", func(a *CoorDescentArgs) { a.Windows = 3 }},
		{"window size alone", "Windows is 0, want 1", func(a *CoorDescentArgs) { a.WindowSize = 3 }},
		{"windows and blocks", "BlockSize is 5 with 2 windows, want 0", func(a *CoorDescentArgs) { a.Windows, a.WindowSize, a.BlockSize = 2, 5, 5 }},
		{"too many windows", "Rows * Windows is 2147483648, want 1", func(a *CoorDescentArgs) { a.Windows, a.WindowSize = 1<<29, 1 }},
		{"windows of scores", "scores has 160 bytes, want [Items 2, Windows 3, Routes 2, N 10] f32, 480 bytes", func(a *CoorDescentArgs) { a.Windows, a.WindowSize = 3, 4 }},
		{"windows of state", "state has 192 bytes, want [Items 2, Windows 3, Routes 2, Iters 3, Values 4] f32, 576 bytes", func(a *CoorDescentArgs) {
			a.Windows, a.WindowSize, a.Scores = 3, 4, row.Slice(0, 480)
		}},
		{"state short", "state has 192 bytes, want [Rows 4, Blocks 2, Iters 3, Values 4] f32, 384 bytes", func(a *CoorDescentArgs) { a.BlockSize = 5 }},
		{"scratch not needed", "scratch has ", func(a *CoorDescentArgs) { a.Scratch = scratch }},
		{"scratch missing", "scratch is missing, want CoorDescentScratch", func(a *CoorDescentArgs) {
			*a = CoorDescentArgs{Logits: row, Scores: row, Rows: 1, N: long, K: 2}
		}},
		{"scratch short", "scratch has 16 bytes, want CoorDescentScratch", func(a *CoorDescentArgs) {
			*a = CoorDescentArgs{Logits: row, Scores: row, Rows: 1, N: long, K: 2, Scratch: scratch.Slice(0, 16)}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			a := good
			test.change(&a)
			list, err := gpu.Dev.NewCommandList(vk.CommandListConfig{Name: "bad"})
			require.NoError(t, err)
			defer list.Close()
			assert.ErrorContains(t, d.Record(list, a), "pipelines: CoorDescent: "+test.want)
			assert.Empty(t, list.StepNames())
		})
	}
	list, err := gpu.Dev.NewCommandList(vk.CommandListConfig{Name: "closed"})
	require.NoError(t, err)
	defer list.Close()
	assert.NoError(t, d.Record(list, good), "the unchanged arguments are valid")
	assert.Error(t, d.Close(), "the command list uses the kernel")
	require.NoError(t, list.Close())
	require.NoError(t, d.Close())
	require.NoError(t, d.Close())
	require.NoError(t, (*CoorDescent)(nil).Close())
	assert.ErrorIs(t, d.Record(list, good), vk.ErrClosed)
	assert.Zero(t, d.Scratch(0, 10, 0))
	assert.Zero(t, d.Scratch(1, 0, 0))
	assert.Zero(t, CoorDescentScratch(gpu.Dev.Caps(), 1, long, 5, 0))
	assert.Equal(t, d.Scratch(6, long, 0), CoorDescentScratch(gpu.Dev.Caps(), 2, long, 0, 3))
}

// Dispatches report their work.
func TestCoorDescentWork(t *testing.T) {
	gpu := gputest.New(t)
	c := descentCase{config: CoorDescentConfig{Iters: 3, Eps: 0.1}, logits: normal(1, 200), mask: randomMask(2, 200), rows: 2, n: 100, k: 3, state: true}
	d := openCoorDescent(t, gpu, c.config)
	a := c.args(gpu, d)
	list, err := gpu.Dev.NewCommandList(vk.CommandListConfig{Name: "work"})
	require.NoError(t, err)
	defer list.Close()
	require.NoError(t, d.Record(list, a))
	flops, bytes := list.Work()
	assert.Equal(t, 5*3*200.0, flops)
	assert.Equal(t, 800+200+800+2*3*16.0, bytes)
	assert.Equal(t, 0+40+80+100+100.0, CoorDescentArgs{N: 100, Windows: 5, WindowSize: 40}.entries())
	assert.Equal(t, 0+20+40.0, CoorDescentArgs{N: 100, Windows: 3, WindowSize: 20}.entries())
	assert.Equal(t, 0+100.0, CoorDescentArgs{N: 100, Windows: 2, WindowSize: 100}.entries())
}
