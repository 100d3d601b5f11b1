package pipelines

import (
	"github.com/colt5-vulkan/colt5/internal/pretend"
	"github.com/colt5-vulkan/colt5/vk"
)

// deviceLimits is what the choice of a kernel variant depends on, besides its configuration and sizes. Choices are pure
// functions of it, so that they can be tested for chips that are not there.
type deviceLimits struct {
	vk.Caps
	registers registerFile
}

// registerFile is what a compiler can hold in registers, in 32-bit words.
type registerFile struct {
	perSubgroup   uint32 // of all invocations of a subgroup together
	perInvocation uint32 // most that an invocation can address
}

// at returns the registers of an invocation in a subgroup of a size.
func (r registerFile) at(subgroup uint32) uint32 {
	return min(r.perSubgroup/max(subgroup, 1), r.perInvocation)
}

// registersPerInvocation is the number of registers of an invocation where the driver selects the subgroup size:
// compilers then take a smaller size before they spill.
func (l deviceLimits) registersPerInvocation() uint32 { return l.registers.at(l.SubgroupMin) }

const (
	vendorAMD      = 0x1002
	vendorNVIDIA   = 0x10de
	vendorIntel    = 0x8086
	vendorQualcomm = 0x5143

	// defaultRegisters is the number of registers of an invocation on a device that is not in the table. Apple's GPUs have
	// 128, which is the smallest number in the table too.
	defaultRegisters = 128
)

// registersOf returns the register file of a device. Vulkan does not report it, so this is a table by vendor.
func registersOf(i vk.Info) registerFile {
	perInvocation := uint32(defaultRegisters)
	switch {
	case i.Caps.CPU:
		perInvocation = 256 // vectors of a CPU driver are in caches if not in registers
	case i.VendorID == vendorIntel:
		// A hardware thread has 128 registers, of 32 bytes, from Xe2 on of 64 bytes, whatever its subgroup size is. Chips
		// from Xe2 on have no subgroups of 8. Xe3 can give a thread 256 registers, at the cost of half of the threads.
		words := uint32(128 * 8)
		if i.Caps.SubgroupMin >= 16 {
			words = 128 * 16
		}
		return registerFile{perSubgroup: words, perInvocation: words / 8}
	case i.VendorID == vendorAMD:
		perInvocation = 256
	case i.VendorID == vendorNVIDIA:
		perInvocation = 255
	case i.VendorID == vendorQualcomm:
		perInvocation = 192 // 48 of 4 words
	}
	return registerFile{perSubgroup: perInvocation * max(i.Caps.SubgroupMax, 1), perInvocation: perInvocation}
}

// limitsOf returns the limits of a device, in tests with package pretend the registers of another chip. A kernel for such
// a chip runs at the subgroup sizes of the device, with as many registers per invocation as in the chip's smallest size.
func limitsOf(dev *vk.Device) deviceLimits {
	i := dev.Info()
	l := deviceLimits{i.Caps, registersOf(i)}
	if chip := pretend.Current(); chip != nil {
		n := registersOf(*chip).at(chip.Caps.SubgroupMin)
		l.CPU, l.registers = chip.Caps.CPU, registerFile{n * max(l.SubgroupMin, 1), n}
	}
	return l
}
