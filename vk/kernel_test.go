package vk_test

import (
	"math"
	"os"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/simulate"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// runNeeds runs needs.comp and checks its result.
func runNeeds(t *testing.T, d *vk.Device, name string, spec map[uint32]uint32, lx, shared uint32) {
	t.Helper()
	k := newKernel(t, d, name, spec)
	assert.Equal(t, name, k.Name())
	assert.Equal(t, uint64(4*shared), k.SharedBytes())
	y, l := newBuffer(t, d, "y", uint64(4*lx)), newList(t, d, vk.CommandListConfig{})
	require.NoError(t, l.Dispatch(vk.Dispatch{Kernel: k, Groups: [3]uint32{1, 1, 1}, Args: []vk.Access{vk.Write(y.Range())}}))
	require.NoError(t, l.Run(t.Context()))
	want := make([]uint32, lx)
	for i := range want {
		want[i] = shared - 1 - uint32(i)%shared
	}
	assert.Equal(t, want, download(t, y.Range()))
}

func TestKernelRequirements(t *testing.T) {
	d := openDevice(t, vk.Options{})
	c := d.Caps()
	words := c.MaxSharedBytes / 4
	runNeeds(t, d, "needs", nil, 32, 32)
	runNeeds(t, d, "needs", map[uint32]uint32{3: words}, 32, words)
	runNeeds(t, d, "needs", map[uint32]uint32{0: min(c.MaxWorkgroupInvocations, c.MaxWorkgroupSize[0])}, min(c.MaxWorkgroupInvocations, c.MaxWorkgroupSize[0]), 32)
	runNeeds(t, d, "needs", map[uint32]uint32{0: c.MaxWorkgroupInvocations / 4, 1: 2, 2: 2}, c.MaxWorkgroupInvocations/4, 32)
	if c.Int64 {
		runNeeds(t, d, "needs_wide", nil, 32, 32)
	}
	for name, bad := range map[string]struct {
		spec map[uint32]uint32
		want string
	}{
		"shared memory": {map[uint32]uint32{3: words + 1}, "bytes of shared memory, the device has"},
		"much":          {map[uint32]uint32{3: 1 << 30}, "shared memory"},
		"x":             {map[uint32]uint32{0: c.MaxWorkgroupSize[0] + 1}, "a workgroup of"},
		"z":             {map[uint32]uint32{0: 1, 2: c.MaxWorkgroupSize[2] + 1}, "a workgroup of"},
		"invocations":   {map[uint32]uint32{0: c.MaxWorkgroupInvocations/2 + 1, 1: 2}, "invocations, the device allows"},
		"overflow":      {map[uint32]uint32{0: 1 << 16, 1: 1 << 16}, "a workgroup of"},
	} {
		_, err := d.NewKernel(vk.KernelConfig{Name: "greedy", Code: spv(t, "needs"), Spec: bad.spec})
		require.ErrorIs(t, err, vk.ErrUnsupported, name)
		assert.ErrorContains(t, err, `NewKernel "greedy"`, name)
		assert.ErrorContains(t, err, bad.want, name)
	}
	_, err := d.NewKernel(vk.KernelConfig{Name: "none", Code: spv(t, "needs"), Spec: map[uint32]uint32{0: 0}})
	assert.Error(t, err)
}

// TestKernelsSharePipelines: kernels share a pipeline only if they are compiled from the same code, constants and
// settings. A pipeline stays for the next kernel when the last one closes, up to a number of idle ones.
func TestKernelsSharePipelines(t *testing.T) {
	d := openDevice(t, vk.Options{})
	create := func(c vk.KernelConfig) *vk.Kernel {
		k, err := d.NewKernel(c)
		require.NoError(t, err)
		return k
	}
	check := func(all, idle int) {
		t.Helper()
		gotAll, gotIdle := d.CountPipelines()
		assert.Equal(t, [2]int{all, idle}, [2]int{gotAll, gotIdle}, "pipelines, idle pipelines")
	}
	code := spv(t, "needs")
	same := vk.KernelConfig{Name: "a", Code: code, Spec: map[uint32]uint32{0: 32, 3: 32}}
	a := create(same)
	same.Name = "b"
	b := create(same)
	check(1, 0)
	assert.Equal(t, "b", b.Name())
	assert.EqualValues(t, 2, d.Stats().Kernels)
	others := []*vk.Kernel{
		create(vk.KernelConfig{Code: code, Spec: map[uint32]uint32{0: 32, 3: 33}}),
		create(vk.KernelConfig{Code: code, Spec: map[uint32]uint32{0: 32}}),
		create(vk.KernelConfig{Code: code, Spec: map[uint32]uint32{3: 32}}),
		create(vk.KernelConfig{Code: spv(t, "needs_wide"), Spec: same.Spec}),
	}
	check(5, 0)
	closeAll(t, a, a) // the second Close does nothing
	check(5, 0)
	runNeeds(t, d, "needs", same.Spec, 32, 32) // a third kernel, beside b
	closeAll(t, b)
	check(5, 0) // the kernel of runNeeds is closed at the end of the test
	for _, k := range others {
		closeAll(t, k)
	}
	check(5, 4)
	closeAll(t, create(vk.KernelConfig{Code: code, Spec: map[uint32]uint32{0: 32}}))
	check(5, 4)
	for i := range uint32(vk.IdlePipelines) {
		closeAll(t, create(vk.KernelConfig{Code: code, Spec: map[uint32]uint32{0: 1, 3: 1 + i}}))
	}
	check(1+vk.IdlePipelines, vk.IdlePipelines)
}

// TestKernelLimits removes capabilities of the device.
func TestKernelLimits(t *testing.T) {
	d := openDevice(t, vk.Options{})
	real := d.Caps()
	for name, c := range map[string]struct {
		change func(*vk.Caps)
		config vk.KernelConfig
		want   string
	}{
		"capability":     {func(c *vk.Caps) { c.Int64 = false }, vk.KernelConfig{Code: spv(t, "needs_wide")}, "the capability Int64"},
		"push constants": {func(c *vk.Caps) { c.MaxPushBytes = 28 }, vk.KernelConfig{Code: spv(t, "mix")}, "32 bytes of push constants, the device has 28"},
		"full subgroups": {func(c *vk.Caps) { c.FullSubgroups = false }, vk.KernelConfig{Code: spv(t, "mix"), FullSubgroups: true}, "full subgroups"},
		"subgroup of 3":  {func(*vk.Caps) {}, vk.KernelConfig{Code: spv(t, "mix"), SubgroupSize: 3}, "subgroups of 3"},
		"subgroup large": {func(*vk.Caps) {}, vk.KernelConfig{Code: spv(t, "mix"), SubgroupSize: 2 * real.SubgroupMax}, "subgroups of"},
		"no control": {func(c *vk.Caps) { c.SubgroupSizeControl, c.SubgroupMin, c.SubgroupMax = false, 16, 32 },
			vk.KernelConfig{Code: spv(t, "mix"), SubgroupSize: 16}, "subgroups of 16, the device has 16 to 32"},
		"subgroups of a workgroup": {func(c *vk.Caps) {
			c.SubgroupSizeControl, c.SubgroupMin, c.SubgroupMax, c.MaxWorkgroupSubgroups = true, 4, 64, 3
		},
			vk.KernelConfig{Code: spv(t, "needs"), Spec: map[uint32]uint32{0: 32}, SubgroupSize: 8}, "32 invocations in subgroups of 8, the device allows 3 such subgroups"},
	} {
		d.SetCaps(c.change)
		c.config.Name = name
		_, err := d.NewKernel(c.config)
		require.ErrorIs(t, err, vk.ErrUnsupported, name)
		assert.ErrorContains(t, err, c.want, name)
		d.SetCaps(func(c *vk.Caps) { *c = real })
	}
	for _, size := range []uint32{real.SubgroupMin, real.SubgroupMax} {
		if !real.SubgroupSizeControl {
			size = 0
		}
		k, err := d.NewKernel(vk.KernelConfig{Name: "mix", Code: spv(t, "mix"), SubgroupSize: size, FullSubgroups: real.FullSubgroups})
		require.NoError(t, err)
		closeAll(t, k)
	}
	assert.Zero(t, d.Stats().Kernels)
}

// A device has cooperative matrices of certain shapes and types only.
func TestKernelMatrixShapes(t *testing.T) {
	d := openDevice(t, vk.Options{})
	real := d.Caps()
	defer d.SetCaps(func(c *vk.Caps) { *c = real })
	code, err := os.ReadFile("../internal/spirv/testdata/product.spv")
	require.NoError(t, err)
	floats := vk.MatrixShape{M: 16, N: 16, K: 32, C: vk.ComponentF32, Result: vk.ComponentF32, Scope: vk.ScopeSubgroup}
	integers := vk.MatrixShape{M: 16, N: 16, K: 32, A: vk.ComponentS8, B: vk.ComponentS8, C: vk.ComponentS32, Result: vk.ComponentS32, Saturating: 1, Scope: vk.ScopeSubgroup}
	other := integers
	other.Saturating = 0
	for want, shapes := range map[string][]vk.MatrixShape{
		"the cooperative matrix M 16 N 16 K 32: float16 x float16 + float32 -> float32, of a subgroup":   {integers},
		"the cooperative matrix M 16 N 16 K 32: int8 x int8 + int32 -> int32, saturating, of a subgroup": {floats, other},
	} {
		d.SetCaps(func(c *vk.Caps) {
			c.CooperativeMatrix, c.CooperativeMatrix2, c.Float16, c.Int8, c.MemoryModel, c.MatrixShapes = true, true, true, true, true, shapes
		})
		_, err := d.NewKernel(vk.KernelConfig{Name: "product", Code: code, Spec: map[uint32]uint32{1: 16}})
		require.ErrorIs(t, err, vk.ErrUnsupported)
		assert.ErrorContains(t, err, want)
	}
}

func TestMatrixShapeString(t *testing.T) {
	for number, name := range map[uint32]string{0: "float16", 1: "float32", 3: "int8", 10: "uint64", vk.ComponentBF16: "bfloat16", 11: "type 11"} {
		s := vk.MatrixShape{M: 1, N: 2, K: 3, A: number, B: 7, C: 1, Result: 1, Scope: 2}
		assert.Equal(t, "M 1 N 2 K 3: "+name+" x uint8 + float32 -> float32, of a workgroup", s.String())
	}
	assert.Contains(t, vk.MatrixShape{Scope: 5}.String(), ", scope 5")
}

func TestKernelMalformed(t *testing.T) {
	d := openDevice(t, vk.Options{})
	good := spv(t, "mix")
	refused := func(code []byte, spec map[uint32]uint32, name string) {
		t.Helper()
		k, err := d.NewKernel(vk.KernelConfig{Name: "bad", Code: code, Spec: spec})
		require.Error(t, err, name)
		require.ErrorContains(t, err, `vk: NewKernel "bad": `, name)
		require.Nil(t, k)
	}
	refused(nil, nil, "nothing")
	refused([]byte("this is no SPIR-V, but long enough"), nil, "text")
	for n := range good {
		refused(good[:n], nil, "cut off")
	}
	swapped := append([]byte{3, 2, 0x23, 7}, good[4:]...)
	swapped[0], swapped[3] = 7, 3
	refused(swapped, nil, "magic")
	refused(good, map[uint32]uint32{99: 1}, "unknown constant")
	_, err := d.NewKernel(vk.KernelConfig{Name: "bad", Code: good, Spec: map[uint32]uint32{99: 1}})
	assert.ErrorContains(t, err, "99")
	// At an odd address.
	k, err := d.NewKernel(vk.KernelConfig{Name: "odd", Code: append([]byte{0}, good...)[1:]})
	require.NoError(t, err)
	closeAll(t, k)
	assert.Zero(t, d.Stats().Kernels)
}

// TestSpec sets specialization constants.
func TestSpec(t *testing.T) {
	d := openDevice(t, vk.Options{})
	b := randomWords(1, 100)
	in, y := newBuffer(t, d, "b", 400), newBuffer(t, d, "y", 400)
	uploadTo(t, in.Range(), b)
	for _, c := range []struct{ width, add uint32 }{{1, 0}, {17, math.MaxUint32}, {128, 5}} {
		k := newKernel(t, d, "mix", map[uint32]uint32{0: c.width, 1: c.add})
		l := newList(t, d, vk.CommandListConfig{})
		// All arguments are present: with workgroups of one invocation the CPU driver of Mesa 26.1 reads an absent one,
		// although the shader does not, and crashes.
		run := mixDispatch(k, in.Range(), in.Range(), y.Range(), 9)
		run.Groups[0] = (100 + c.width - 1) / c.width
		require.NoError(t, l.Dispatch(run))
		require.NoError(t, l.Run(t.Context()))
		want := make([]uint32, 100)
		mixReference(want, b, b, 9, c.add)
		assert.Equal(t, want, download(t, y.Range()))
	}
}

func TestKernelClosed(t *testing.T) {
	d := openDevice(t, vk.Options{})
	k, b, l := newKernel(t, d, "mix", nil), newBuffer(t, d, "b", 64), newList(t, d, vk.CommandListConfig{})
	r := b.Range()
	require.NoError(t, l.Dispatch(mixDispatch(k, vk.Range{}, r, r, 1)))
	require.NoError(t, l.Dispatch(mixDispatch(k, vk.Range{}, r, r, 1)))
	assert.ErrorContains(t, k.Close(), `an open command list uses "mix"`)
	require.NoError(t, l.Run(t.Context()), "the kernel is still open")
	closeAll(t, l, k, k)
	again := newList(t, d, vk.CommandListConfig{})
	assert.ErrorIs(t, again.Dispatch(mixDispatch(k, vk.Range{}, r, r, 1)), vk.ErrClosed)
	_, err := k.CompilerStats()
	assert.ErrorIs(t, err, vk.ErrClosed)
}

func TestKernelStats(t *testing.T) {
	plain, profiled := openDevice(t, vk.Options{}), openDevice(t, vk.Options{Profile: true})
	_, err := newKernel(t, plain, "mix", nil).CompilerStats()
	if plain.Caps().PipelineStatistics {
		assert.ErrorContains(t, err, "Options.Profile of the device is false, want true")
	} else {
		assert.ErrorIs(t, err, vk.ErrUnsupported)
	}
	one, err := plain.NewKernel(vk.KernelConfig{Name: "mix", Code: spv(t, "mix"), Statistics: true})
	require.NoError(t, err)
	defer closeAll(t, one)
	alone, err := one.CompilerStats()
	if plain.Caps().PipelineStatistics {
		assert.NoError(t, err)
		assert.NotEmpty(t, alone)
	} else {
		assert.ErrorIs(t, err, vk.ErrUnsupported)
	}
	list, err := newKernel(t, profiled, "mix", nil).CompilerStats()
	if !profiled.Caps().PipelineStatistics {
		assert.ErrorIs(t, err, vk.ErrUnsupported)
		return
	}
	require.NoError(t, err)
	require.NotEmpty(t, list)
	for _, s := range list {
		assert.NotEmpty(t, s.Name)
	}
}

func TestDispatchRefused(t *testing.T) {
	d := openDevice(t, vk.Options{})
	k, b, l := newKernel(t, d, "mix", nil), newBuffer(t, d, "b", 64), newList(t, d, vk.CommandListConfig{})
	r, limit := b.Range(), d.Caps().MaxWorkgroupCount
	for want, change := range map[string]func(*vk.Dispatch){
		"Kernel is nil": func(c *vk.Dispatch) { c.Kernel = nil },
		"2 addresses and 8 bytes make 24 bytes of push constants, the kernel has 32": func(c *vk.Dispatch) { c.Args = c.Args[1:] },
		"3 addresses and 4 bytes make 28 bytes":                                      func(c *vk.Dispatch) { c.Push = c.Push[4:] },
		"4 addresses and 8 bytes make 40 bytes":                                      func(c *vk.Dispatch) { c.Args = append(c.Args, vk.Read(r)) },
		"[0 1 1] workgroups":                                                         func(c *vk.Dispatch) { c.Groups[0] = 0 },
		"workgroups, the device allows":                                              func(c *vk.Dispatch) { c.Groups[2] = limit[2] + 1 },
		"argument 1 is 8 bytes at offset 60 of buffer":                               func(c *vk.Dispatch) { c.Args[1].Range = r.Slice(60, 8) },
	} {
		run := mixDispatch(k, vk.Range{}, r, r, 1)
		change(&run)
		assert.ErrorContains(t, l.Dispatch(run), want)
	}
	assert.Empty(t, l.StepNames())
	assert.ErrorContains(t, l.Run(t.Context()), "nothing was recorded")
	closeAll(t, k) // no rejected dispatch uses it
}

func TestGrid(t *testing.T) {
	c := vk.Caps{MaxWorkgroupCount: [3]uint32{65535, 65535, 65535}}
	for groups, want := range map[uint64][3]uint32{
		1: {1, 1, 1}, 65535: {65535, 1, 1}, 65536: {1024, 64, 1}, 65537: {1009, 65, 1}, 65535 * 1024: {1024, 65535, 1}, 65535*1024 + 1: {1025, 65535, 1}, 65535 * 65535: {65535, 65535, 1},
	} {
		got, err := vk.Grid(c, groups)
		require.NoError(t, err)
		assert.Equal(t, want, got)
	}
	for _, groups := range []uint64{0, 65535*65535 + 1, 1 << 33, math.MaxUint64} {
		_, err := vk.Grid(c, groups)
		assert.ErrorIs(t, err, vk.ErrUnsupported, "%d", groups)
	}
	c.MaxWorkgroupCount = [3]uint32{math.MaxUint32, math.MaxUint32, 1}
	_, err := vk.Grid(c, 1<<32)
	assert.ErrorIs(t, err, vk.ErrUnsupported, "the flat index has 32 bits")
}

// TestGridFolded runs grids for a limit of 7 workgroups in x.
func TestGridFolded(t *testing.T) {
	for _, bytes := range []uint64{0, 3 * 7 * 4 * mixWidth} { // not divided; three rows of the grid
		testGridFolded(t, openDevice(t, vk.Options{Simulate: &simulate.Limits{DispatchBytes: bytes}}))
	}
}

func testGridFolded(t *testing.T, d *vk.Device) {
	c := d.Caps()
	c.MaxWorkgroupCount = [3]uint32{7, 1000, 1}
	k := newKernel(t, d, "mix", nil)
	for _, groups := range []int{1, 6, 7, 8, 14, 15, 97} {
		n := groups * mixWidth
		in, y, l := newBuffer(t, d, "b", uint64(4*n)), newBuffer(t, d, "y", uint64(4*n)), newList(t, d, vk.CommandListConfig{})
		b, want := randomWords(uint64(n), n), make([]uint32, n)
		uploadTo(t, in.Range(), b)
		run := mixDispatch(k, vk.Range{}, in.Range(), y.Range(), 3)
		var err error
		run.Groups, err = vk.Grid(c, uint64(groups))
		require.NoError(t, err)
		require.LessOrEqual(t, run.Groups[0], uint32(7))
		run.Bytes = float64(4 * n)
		require.NoError(t, l.Dispatch(run))
		require.NoError(t, l.Run(t.Context()))
		mixReference(want, nil, b, 3, 0)
		assert.Equal(t, want, download(t, y.Range()))
	}
}

func TestScalars(t *testing.T) {
	p := struct {
		a uint32
		b float32
	}{0x01020304, 1}
	assert.Equal(t, []byte{4, 3, 2, 1, 0, 0, 0x80, 0x3f}, vk.Scalars(&p))
	assert.Nil(t, vk.Bytes([]float32(nil)))
	assert.Equal(t, []byte{0, 0, 0x80, 0x3f}, vk.Bytes([]float32{1}))
}
