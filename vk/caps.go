package vk

// #include "native.h"
import "C"

import (
	"encoding/json"

	vulkan "github.com/vulkan-go/vulkan"
)

// Info describes a Vulkan device.
type Info struct {
	Index      int    `json:"index"` // in the order of the loader
	Name       string `json:"name"`
	UUID       string `json:"uuid"` // 32 hexadecimal digits
	Type       string `json:"type"` // discrete, integrated, virtual, cpu or other
	Driver     string `json:"driver"`
	DriverInfo string `json:"driver_info"`
	API        string `json:"api"` // Vulkan version
	VendorID   uint32 `json:"vendor_id"`
	DeviceID   uint32 `json:"device_id"`
	Unusable   string `json:"unusable,omitempty"` // minimum requirement that the device lacks; empty: it can be opened
	Caps       Caps   `json:"caps"`

	driver uint32
}

// Caps holds the capabilities and limits of a device. Sizes are in bytes.
type Caps struct {
	CPU      bool   `json:"cpu"` // a driver that runs on the CPU
	VendorID uint32 `json:"-"`   // as in Info; for what Vulkan does not report, such as the size of register files

	MemoryBytes    uint64 `json:"memory_bytes"`   // the largest device-local heap
	MaxAllocation  uint64 `json:"max_allocation"` // largest allocation that is guaranteed; some drivers allow more
	MaxBufferBytes uint64 `json:"max_buffer"`     // largest buffer; 0: the driver does not say
	MaxSharedBytes uint32 `json:"shared_bytes"`   // shared memory of a workgroup
	MaxPushBytes   uint32 `json:"push_bytes"`     // size of the push constants

	MaxWorkgroupCount       [3]uint32 `json:"max_workgroup_count"`
	MaxWorkgroupSize        [3]uint32 `json:"max_workgroup_size"`
	MaxWorkgroupInvocations uint32    `json:"max_workgroup_invocations"`

	SubgroupSize        uint32 `json:"subgroup_size"` // default of the driver
	SubgroupMin         uint32 `json:"subgroup_min"`  // smallest and largest size of a kernel's subgroups
	SubgroupMax         uint32 `json:"subgroup_max"`
	SubgroupSizeControl bool   `json:"subgroup_size_control"`
	FullSubgroups       bool   `json:"full_subgroups"`

	// Most subgroups of a workgroup of a kernel that requires a subgroup size; 0 without SubgroupSizeControl.
	MaxWorkgroupSubgroups uint32 `json:"max_workgroup_subgroups"`

	TimestampNanoseconds float64 `json:"timestamp_nanoseconds"` // period of the timestamp counter; 0: the compute queue has none
	timestampBits        uint32

	Float16               bool          `json:"float16"` // arithmetic of these types in shaders
	Float64               bool          `json:"float64"`
	Int8                  bool          `json:"int8"`
	Int16                 bool          `json:"int16"`
	Int64                 bool          `json:"int64"`
	Storage8              bool          `json:"storage8"` // 8-bit and 16-bit types in buffers
	Storage16             bool          `json:"storage16"`
	BFloat16              bool          `json:"bfloat16"`
	MemoryModel           bool          `json:"memory_model"`            // the Vulkan memory model
	SubgroupExtendedTypes bool          `json:"subgroup_extended_types"` // subgroup operations on 8, 16 and 64 bits
	CooperativeMatrix     bool          `json:"cooperative_matrix"`
	CooperativeMatrix2    bool          `json:"cooperative_matrix2"`     // VK_NV_cooperative_matrix2, workgroup scope and flexible dimensions
	MatrixShapes          []MatrixShape `json:"matrix_shapes,omitempty"` // of cooperative matrices
	PipelineStatistics    bool          `json:"pipeline_statistics"`     // compiler statistics, see Kernel.CompilerStats
}

// oldCapsKeys are keys that earlier versions wrote, with the present ones.
var oldCapsKeys = map[string]string{
	"shapes": "matrix_shapes", "MemoryModel": "memory_model", "SubgroupExtendedTypes": "subgroup_extended_types",
	"CooperativeMatrix": "cooperative_matrix", "CooperativeMatrix2": "cooperative_matrix2", "PipelineStatistics": "pipeline_statistics",
}

// UnmarshalJSON also reads what earlier versions wrote.
func (c *Caps) UnmarshalJSON(data []byte) error {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(data, &fields); err != nil {
		return err
	}
	for old, key := range oldCapsKeys {
		if value, ok := fields[old]; ok {
			fields[key] = value
		}
	}
	current, err := json.Marshal(fields)
	if err != nil {
		return err
	}
	type plain Caps
	return json.Unmarshal(current, (*plain)(c))
}

// MatrixShape is the shape, with the element types, of a cooperative-matrix multiplication A [M, K] x B [K, N] + C [M,
// N] that a device supports (VkCooperativeMatrixPropertiesKHR). A, B, C and Result are VkComponentTypeKHR values, Scope
// is a VkScopeKHR; Saturating is 1 if integer accumulation saturates.
type MatrixShape struct{ M, N, K, A, B, C, Result, Saturating, Scope uint32 }

func (p *physical) caps(l *vulkan.PhysicalDeviceLimits, timestampBits uint32) Caps {
	q := &p.probe
	if p.info.Driver == "llvmpipe" && q.subgroup_size > 8 {
		// Lavapipe of Mesa 26.1.6 crashes on every cooperative matrix with vectors of 512 bits, which
		// LP_NATIVE_VECTOR_WIDTH=512 enables.
		q.cooperative_matrix, q.cooperative_matrix2_workgroup, q.cooperative_matrix2_flexible, q.matrix_shape_count = 0, 0, 0, 0
	}
	c := Caps{
		CPU:                     p.info.Type == "cpu",
		VendorID:                p.info.VendorID,
		MaxAllocation:           uint64(q.max_allocation),
		MaxBufferBytes:          uint64(q.max_buffer),
		MaxSharedBytes:          l.MaxComputeSharedMemorySize,
		MaxPushBytes:            l.MaxPushConstantsSize,
		MaxWorkgroupCount:       l.MaxComputeWorkGroupCount,
		MaxWorkgroupSize:        l.MaxComputeWorkGroupSize,
		MaxWorkgroupInvocations: l.MaxComputeWorkGroupInvocations,
		SubgroupSize:            uint32(q.subgroup_size),
		SubgroupMin:             uint32(q.subgroup_min),
		SubgroupMax:             uint32(q.subgroup_max),
		SubgroupSizeControl:     q.size_control != 0,
		FullSubgroups:           q.full_subgroups != 0,
		MaxWorkgroupSubgroups:   uint32(q.max_workgroup_subgroups),
		TimestampNanoseconds:    float64(l.TimestampPeriod),
		timestampBits:           timestampBits,
		Float16:                 q.shader_float16 != 0,
		Float64:                 q.shader_float64 != 0,
		Int8:                    q.shader_int8 != 0,
		Int16:                   q.shader_int16 != 0,
		Int64:                   q.shader_int64 != 0,
		Storage8:                q.storage8 != 0,
		Storage16:               q.storage16 != 0,
		BFloat16:                q.bfloat16 != 0,
		MemoryModel:             q.memory_model != 0,
		SubgroupExtendedTypes:   q.subgroup_extended_types != 0,
		CooperativeMatrix:       q.cooperative_matrix != 0,
		CooperativeMatrix2:      q.cooperative_matrix2_workgroup != 0 && q.cooperative_matrix2_flexible != 0,
		PipelineStatistics:      q.executable_properties != 0,
	}
	if timestampBits == 0 {
		c.TimestampNanoseconds = 0
	}
	for i := range p.memory.MemoryHeapCount {
		if h := p.memory.MemoryHeaps[i]; h.Flags&vulkan.MemoryHeapFlags(vulkan.MemoryHeapDeviceLocalBit) != 0 {
			c.MemoryBytes = max(c.MemoryBytes, uint64(h.Size))
		}
	}
	for i := range int(q.matrix_shape_count) {
		s := q.matrix_shapes[i]
		c.MatrixShapes = append(c.MatrixShapes, MatrixShape{
			M: uint32(s.m), N: uint32(s.n), K: uint32(s.k), A: uint32(s.a), B: uint32(s.b), C: uint32(s.c),
			Result: uint32(s.result), Saturating: uint32(s.saturating), Scope: uint32(s.scope),
		})
	}
	return c
}

func deviceType(t vulkan.PhysicalDeviceType) string {
	switch t {
	case vulkan.PhysicalDeviceTypeDiscreteGpu:
		return "discrete"
	case vulkan.PhysicalDeviceTypeIntegratedGpu:
		return "integrated"
	case vulkan.PhysicalDeviceTypeVirtualGpu:
		return "virtual"
	case vulkan.PhysicalDeviceTypeCpu:
		return "cpu"
	}
	return "other"
}
