package vk

// #include "native.h"
import "C"

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/colt5-vulkan/colt5/internal/spirv"
)

// KernelConfig configures a kernel.
type KernelConfig struct {
	Name          string            // for error messages
	Code          []byte            // SPIR-V with one GLCompute entry point
	Spec          map[uint32]uint32 // specialization constants: raw bits by id; others keep their defaults
	SubgroupSize  uint32            // required subgroup size; 0: selected by the driver
	FullSubgroups bool              // require full subgroups: no invocation is inactive at the start
	Statistics    bool              // keep the compiler's statistics, as Options.Profile does for all kernels
}

// Kernel is a compute pipeline, which it may share with other kernels.
type Kernel struct {
	dev        *Device
	name       string
	pipeline   *pipeline
	source     *kernelSource
	push       uint32
	shared     uint64
	local      [3]uint32
	statistics bool         // were kept
	uses       atomic.Int64 // open command lists that use the kernel; Close adds closedUse
	refused    atomic.Bool  // a Close failed because a command list uses the kernel

	mu    sync.Mutex
	parts map[[3]uint32]*pipeline // for dispatches that are divided, see forPart
}

// kernelSource is what the pipelines of a kernel are compiled from.
type kernelSource struct {
	config      KernelConfig
	code, entry []byte // entry ends with a zero byte
	ids, values []uint32
}

// CompilerStat is a statistic of the driver's compiler.
type CompilerStat struct {
	Name  string
	Value float64
}

// NewKernel compiles a kernel, unless the device has the pipeline of a kernel with the same code and constants, open or
// closed not long ago. Drivers do not check whether the device supports what a shader uses, so NewKernel does;
// the error is ErrUnsupported and names what is missing.
func (d *Device) NewKernel(c KernelConfig) (*Kernel, error) {
	if err := d.beginCallOp("NewKernel"); err != nil {
		return nil, err
	}
	defer d.endCall()
	code := slices.Clone(c.Code) // aligned to 4 bytes, and not changed by the caller
	m, err := spirv.Reflect(code, c.Spec)
	if err == nil {
		err = checkTerminated(code)
	}
	if err == nil {
		err = d.checkSupport(m, c)
	}
	if err != nil {
		return nil, fmt.Errorf("vk: NewKernel %q: %w", c.Name, err)
	}
	k := &Kernel{dev: d, name: c.Name, push: m.PushBytes, shared: m.SharedBytes, local: m.LocalSize,
		statistics: d.profile || c.Statistics && d.info.Caps.PipelineStatistics}
	k.source = newKernelSource(c, code, m.EntryPoint)
	if k.pipeline, err = k.compile(k.source, k.push); err != nil {
		return nil, fmt.Errorf("vk: NewKernel %q: %w", c.Name, err)
	}
	d.kernels.Add(1)
	return k, nil
}

func newKernelSource(c KernelConfig, code []byte, entry string) *kernelSource {
	s := &kernelSource{config: c, code: code, entry: append([]byte(entry), 0)}
	for id := range c.Spec {
		s.ids = append(s.ids, id)
	}
	slices.Sort(s.ids)
	for _, id := range s.ids {
		s.values = append(s.values, c.Spec[id])
	}
	return s
}

// compile returns a pipeline with push bytes of push constants, which the device may have.
func (k *Kernel) compile(s *kernelSource, push uint32) (*pipeline, error) {
	d := k.dev
	key := newPipelineKey(s, push, k.statistics)
	if p := d.pipelines.find(key); p != nil {
		return p, nil
	}
	p := &pipeline{key: key}
	ids, values := append(slices.Clip(s.ids), 0), append(slices.Clip(s.values), 0) // not empty, so that &ids[0] is valid
	var call *C.char
	result := C.c5_pipeline_new(d.c, C.uint64_t(d.cache.handle), unsafe.Pointer(&s.code[0]), C.size_t(len(s.code)),
		(*C.char)(unsafe.Pointer(&s.entry[0])), C.uint32_t(push), (*C.uint32_t)(&ids[0]), (*C.uint32_t)(&values[0]), C.uint32_t(len(s.ids)),
		C.uint32_t(s.config.SubgroupSize), C.uint32_t(btoi(s.config.FullSubgroups)), C.uint32_t(btoi(k.statistics)),
		(*C.uint64_t)(&p.layout), (*C.uint64_t)(&p.handle), &call)
	if err := d.checkCall(call, int32(result)); err != nil {
		return nil, err
	}
	return d.pipelines.add(d, p), nil
}

// forPart returns the pipeline for a dispatch that begins at a workgroup of a grid, and the size of its push constants. Where the
// device has room, spirv.BaseBytes follow those of the kernel: base. Else each base has a pipeline of its own. The kernel is pinned.
func (k *Kernel) forPart(base [3]uint32) (p *pipeline, push uint32, err error) {
	if base == [3]uint32{} {
		return k.pipeline, k.push, nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	key, push := base, k.push
	room := k.push+spirv.BaseBytes <= k.dev.info.Caps.MaxPushBytes
	if room {
		key, push = [3]uint32{}, k.push+spirv.BaseBytes // the same pipeline for all
	}
	if p = k.parts[key]; p != nil {
		return p, push, nil
	}
	source := *k.source
	if room {
		source.code, err = spirv.WithBase(k.source.code, k.push)
	} else {
		source.code, err = spirv.WithFixedBase(k.source.code, base)
	}
	if err == nil {
		p, err = k.compile(&source, push)
	}
	if err != nil {
		return nil, 0, err
	}
	if k.parts == nil {
		k.parts = map[[3]uint32]*pipeline{}
	}
	k.parts[key] = p
	return p, push, nil
}

// checkTerminated checks that a module ends with OpFunctionEnd. Drivers crash on truncated functions.
func checkTerminated(code []byte) error {
	const functionEnd = 1<<16 | 56
	if last := binary.LittleEndian.Uint32(code[len(code)-4:]); last != functionEnd {
		return fmt.Errorf("the SPIR-V is truncated: it does not end with OpFunctionEnd")
	}
	return nil
}

// has reports whether a SPIR-V capability is supported: by every usable device, or according to c.
func (c *Caps) has(capability string) bool {
	switch capability {
	case "Shader", "Matrix", "PhysicalStorageBufferAddresses", "GroupNonUniform", "GroupNonUniformArithmetic",
		"GroupNonUniformBallot", "GroupNonUniformShuffle", "GroupNonUniformVote", "ImageQuery":
		return true
	case "Float16":
		return c.Float16
	case "Float64":
		return c.Float64
	case "Int8":
		return c.Int8
	case "Int16":
		return c.Int16
	case "Int64":
		return c.Int64
	case "StorageBuffer8BitAccess":
		return c.Storage8
	case "StorageBuffer16BitAccess":
		return c.Storage16
	case "VulkanMemoryModel":
		return c.MemoryModel
	case "CooperativeMatrixKHR":
		return c.CooperativeMatrix
	case "BFloat16TypeKHR", "BFloat16CooperativeMatrixKHR":
		return c.BFloat16
	}
	return (strings.HasPrefix(capability, "CooperativeMatrix") || capability == "TensorAddressingNV") && c.CooperativeMatrix2
}

// hasMatrix reports whether a cooperative matrix product is supported. Matrices of workgroup scope have flexible
// dimensions, which the list does not contain.
func (c *Caps) hasMatrix(s MatrixShape) bool {
	return slices.Contains(c.MatrixShapes, s) || c.CooperativeMatrix2 && s.Scope == scopeWorkgroup
}

func (d *Device) checkSupport(m spirv.Module, c KernelConfig) error {
	caps := &d.info.Caps
	for _, name := range m.Capabilities {
		if !caps.has(name) {
			return fmt.Errorf("%w: the shader needs the capability %s", ErrUnsupported, name)
		}
	}
	for _, p := range m.MatrixProducts {
		shape := MatrixShape{M: p.M, N: p.N, K: p.K, A: p.A, B: p.B, C: p.C, Result: p.Result, Saturating: uint32(btoi(p.Saturating)), Scope: p.Scope}
		if !caps.hasMatrix(shape) {
			return fmt.Errorf("%w: the shader needs the cooperative matrix %v", ErrUnsupported, shape)
		}
	}
	if m.SharedBytes > uint64(caps.MaxSharedBytes) {
		return fmt.Errorf("%w: %d bytes of shared memory, the device has %d (maxComputeSharedMemorySize)", ErrUnsupported, m.SharedBytes, caps.MaxSharedBytes)
	}
	if m.PushBytes > caps.MaxPushBytes {
		return fmt.Errorf("%w: %d bytes of push constants, the device has %d (maxPushConstantsSize)", ErrUnsupported, m.PushBytes, caps.MaxPushBytes)
	}
	invocations := uint64(1)
	for i, n := range m.LocalSize {
		if n > caps.MaxWorkgroupSize[i] {
			return fmt.Errorf("%w: a workgroup of %d, the device allows %d (maxComputeWorkGroupSize)", ErrUnsupported, m.LocalSize, caps.MaxWorkgroupSize)
		}
		invocations *= uint64(n)
	}
	if invocations > uint64(caps.MaxWorkgroupInvocations) {
		return fmt.Errorf("%w: a workgroup of %d invocations, the device allows %d (maxComputeWorkGroupInvocations)", ErrUnsupported, invocations, caps.MaxWorkgroupInvocations)
	}
	if c.FullSubgroups && !caps.FullSubgroups {
		return fmt.Errorf("%w: full subgroups (computeFullSubgroups)", ErrUnsupported)
	}
	size := c.SubgroupSize
	if size == 0 {
		return nil
	}
	fixed := size == caps.SubgroupMin && size == caps.SubgroupMax
	if !fixed && (!caps.SubgroupSizeControl || size < caps.SubgroupMin || size > caps.SubgroupMax || size&(size-1) != 0) {
		return fmt.Errorf("%w: subgroups of %d, the device has %d to %d (subgroupSizeControl)", ErrUnsupported, size, caps.SubgroupMin, caps.SubgroupMax)
	}
	if most := uint64(size) * uint64(caps.MaxWorkgroupSubgroups); caps.SubgroupSizeControl && invocations > most {
		return fmt.Errorf("%w: a workgroup of %d invocations in subgroups of %d, the device allows %d such subgroups",
			ErrUnsupported, invocations, size, caps.MaxWorkgroupSubgroups)
	}
	return nil
}

// Name returns the name of the kernel.
func (k *Kernel) Name() string { return k.name }

// SharedBytes returns the shared memory of a workgroup, in bytes.
func (k *Kernel) SharedBytes() uint64 { return k.shared }

// CompilerStats returns the statistics of the driver's compiler, such as registers and spills, under the driver's
// names, and the "Subgroup size" where the driver selects one for the kernel. The device must have been opened with
// Options.Profile, or the kernel compiled with KernelConfig.Statistics. The error is ErrUnsupported if the driver
// has no pipeline statistics.
func (k *Kernel) CompilerStats() ([]CompilerStat, error) {
	if err := k.dev.beginCallOp("Kernel.CompilerStats"); err != nil {
		return nil, err
	}
	defer k.dev.endCall()
	if !k.pin() {
		return nil, fmt.Errorf("vk: Kernel.CompilerStats: %q is %w", k.name, ErrClosed)
	}
	defer k.uses.Add(-1)
	if !k.dev.info.Caps.PipelineStatistics {
		return nil, fmt.Errorf("vk: Kernel.CompilerStats: %w: pipeline statistics", ErrUnsupported)
	}
	if !k.statistics {
		return nil, errors.New("vk: Kernel.CompilerStats: Options.Profile of the device is false, want true")
	}
	var stats [C.C5_MAX_EXECUTABLES * C.C5_MAX_EXECUTABLE_STATS]C.c5_stat
	count := C.uint32_t(len(stats))
	var call *C.char
	result := C.c5_pipeline_stats(k.dev.c, C.uint64_t(k.pipeline.handle), &count, &stats[0], &call)
	if err := k.dev.checkCall(call, int32(result)); err != nil {
		return nil, fmt.Errorf("vk: Kernel.CompilerStats: %q: %w", k.name, err)
	}
	list := make([]CompilerStat, count)
	for i := range list {
		s := &stats[i]
		list[i] = CompilerStat{Name: C.GoString(&s.name[0]), Value: statValue(uint32(s.format), uint64(s.value))}
	}
	return list, nil
}

// Close frees the kernel; the device keeps its pipeline for a while. It fails while a command list that uses the kernel is open. Closing a closed kernel does
// nothing.
func (k *Kernel) Close() error {
	if k == nil {
		return nil
	}
	open := k.dev.closes.enter()
	if open {
		defer k.dev.closes.leave()
	}
	if !k.uses.CompareAndSwap(0, closedUse) {
		if k.uses.Load() < 0 {
			return nil
		}
		if !k.refused.Swap(true) {
			k.dev.refused.Add(1)
		}
		return fmt.Errorf("vk: Kernel.Close: an open command list uses %q", k.name)
	}
	k.dev.kernels.Add(-1)
	if k.refused.Load() {
		k.dev.refused.Add(-1)
	}
	if !open {
		return nil // Device.Close has reported the kernel
	}
	k.dev.pipelines.release(k.dev, k.pipeline)
	for _, p := range k.parts {
		k.dev.pipelines.release(k.dev, p)
	}
	return nil
}

func (k *Kernel) pin() bool {
	if k.uses.Add(1) < 0 {
		k.uses.Add(-1)
		return false
	}
	return true
}

// Scalars copies a struct whose fields are all uint32, int32 or float32 to bytes: the push constants that follow the
// addresses.
func Scalars[T any](p *T) []byte {
	return slices.Clone(unsafe.Slice((*byte)(unsafe.Pointer(p)), unsafe.Sizeof(*p)))
}

// Grid distributes a number of workgroups over x and y. The grid may be larger than groups: kernels compare the flat
// index y * (workgroups in x) + x with the number of workgroups. A dispatch with much traffic is divided along the last
// dimension that is not 1, so gl_NumWorkGroups.x may be used only with a gl_WorkGroupID.y, and y and z not at all.
func Grid(c Caps, groups uint64) ([3]uint32, error) {
	x, y := uint64(c.MaxWorkgroupCount[0]), uint64(c.MaxWorkgroupCount[1])
	if groups == 0 || groups > x*y || groups > 1<<32-1 {
		return [3]uint32{}, fmt.Errorf("vk: %w: %d workgroups, want 1 to %d", ErrUnsupported, groups, min(x*y, 1<<32-1))
	}
	if groups <= x {
		return [3]uint32{uint32(groups), 1, 1}, nil
	}
	const narrow = 1024 // many rows, so that the dispatch can be divided
	rows := min(max((groups+narrow-1)/narrow, (groups+x-1)/x), y)
	width := (groups + rows - 1) / rows
	return [3]uint32{uint32(width), uint32(rows), 1}, nil
}
