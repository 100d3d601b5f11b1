package pretend

import (
	"maps"
	"slices"

	"github.com/colt5-vulkan/colt5/vk"
)

// Chips returns the chips that the choice of kernels is tested for, by name, with the capabilities that it depends on:
// as Mesa 26.1.6 reports them, the H200's by NVIDIA's driver 580.
func Chips() map[string]vk.Info {
	const amd, nvidia, intel, qualcomm, mesa = 0x1002, 0x10de, 0x8086, 0x5143, 0x10005
	const unlimited = 1<<32 - 1
	chip := func(name string, vendor, sharedKiB, size, smallest, largest, subgroups uint32, shapes ...vk.MatrixShape) vk.Info {
		return vk.Info{Name: name, Type: "discrete", VendorID: vendor, Caps: vk.Caps{
			VendorID:       vendor,
			MaxSharedBytes: sharedKiB << 10, MaxPushBytes: 256, MaxWorkgroupCount: [3]uint32{1<<16 - 1, 1<<16 - 1, 1<<16 - 1},
			MaxWorkgroupSize: [3]uint32{1024, 1024, 64}, MaxWorkgroupInvocations: 1024,
			SubgroupSize: size, SubgroupMin: smallest, SubgroupMax: largest, SubgroupSizeControl: true, FullSubgroups: true,
			MaxWorkgroupSubgroups: subgroups, Float16: true, Storage16: true, MemoryModel: true, PipelineStatistics: true,
			CooperativeMatrix: len(shapes) > 0, MatrixShapes: shapes,
			BFloat16: slices.ContainsFunc(shapes, func(s vk.MatrixShape) bool { return s.A == vk.ComponentBF16 }),
		}}
	}
	shape := func(m, n, k, operand uint32) vk.MatrixShape {
		return vk.MatrixShape{M: m, N: n, K: k, A: operand, B: operand, C: vk.ComponentF32, Result: vk.ComponentF32, Scope: vk.ScopeSubgroup}
	}
	f16 := func(m, n, k uint32) vk.MatrixShape { return shape(m, n, k, vk.ComponentF16) }
	bf16 := func(m, n, k uint32) vk.MatrixShape { return shape(m, n, k, vk.ComponentBF16) }
	chips := map[string]vk.Info{
		"skl":       chip("Intel HD Graphics 530", intel, 48, 32, 8, 32, 56),
		"icl":       chip("Intel Iris Plus Graphics", intel, 48, 32, 8, 32, 56),
		"tgl":       chip("Intel Iris Xe Graphics", intel, 48, 32, 8, 32, 64),
		"mtl":       chip("Intel Arc Graphics", intel, 48, 32, 8, 32, 128),
		"dg2":       chip("Intel Arc A770", intel, 48, 32, 8, 32, 128, f16(8, 8, 16), bf16(8, 8, 16)),
		"lnl":       chip("Intel Graphics", intel, 48, 32, 16, 32, 64, f16(8, 16, 16), bf16(8, 16, 16)),
		"bmg":       chip("Intel Arc B580", intel, 48, 32, 16, 32, 64, f16(8, 16, 16), bf16(8, 16, 16)),
		"ptl":       chip("Intel Arc B390", intel, 48, 32, 16, 32, 32, f16(8, 16, 16), bf16(8, 16, 16)),
		"adreno":    chip("Adreno 630", qualcomm, 32, 128, 64, 128, 16),
		"apple":     chip("Apple M1", mesa, 32, 32, 32, 32, 32),
		"kepler":    chip("NVIDIA GK110", nvidia, 48, 32, 32, 32, 32),
		"turing":    chip("NVIDIA TU102", nvidia, 48, 32, 32, 32, 32, f16(16, 16, 16), f16(16, 8, 16), f16(16, 8, 8)),
		"ampere":    chip("NVIDIA GA102", nvidia, 48, 32, 32, 32, 32, f16(16, 16, 16), f16(16, 8, 16), f16(16, 8, 8)),
		"h200":      chip("NVIDIA H200", nvidia, 48, 32, 32, 32, 1<<21, f16(16, 16, 16), bf16(16, 16, 16)),
		"vega10":    chip("AMD Vega 10", amd, 64, 64, 64, 64, unlimited),
		"navi21":    chip("AMD Radeon RX 6800", amd, 64, 64, 32, 64, unlimited),
		"navi31":    chip("AMD Radeon RX 7900", amd, 64, 64, 32, 64, unlimited, f16(16, 16, 16)),
		"gfx1201":   chip("AMD Radeon RX 9070", amd, 64, 64, 32, 64, unlimited, f16(16, 16, 16), bf16(16, 16, 16)),
		"strix1":    chip("AMD Radeon 890M", amd, 64, 64, 32, 64, unlimited, f16(16, 16, 16)),
		"lavapipe4": chip("llvmpipe", mesa, 32, 4, 4, 4, 32, f16(8, 8, 8)),
		"lavapipe":  chip("llvmpipe", mesa, 32, 8, 8, 8, 32, f16(8, 8, 8)),
	}
	for name, i := range maps.Clone(chips) {
		if i.Name == "llvmpipe" {
			i.Type, i.Caps.CPU, i.Caps.PipelineStatistics = "cpu", true, false
			chips[name] = i
		}
	}
	return chips
}
