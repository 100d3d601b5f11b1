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
	perWorkgroup  uint32 // of all invocations of a workgroup together; 0: no limit
}

// at returns the registers of an invocation in a subgroup of a size.
func (r registerFile) at(subgroup uint32) uint32 {
	return min(r.perSubgroup/max(subgroup, 1), r.perInvocation)
}

// registersIn returns the registers of an invocation in a workgroup of a size, where the driver selects the
// subgroup size: compilers take a smaller size before they spill, down to the smallest one that the workgroup
// permits.
func (l deviceLimits) registersIn(workgroup uint32) uint32 {
	n := l.registers.at(l.smallestSubgroup(workgroup))
	if l.registers.perWorkgroup > 0 {
		n = min(n, l.registers.perWorkgroup/workgroup)
	}
	return n
}

// smallestSubgroup returns the smallest subgroup size of a workgroup that has no more subgroups than the device allows.
func (l deviceLimits) smallestSubgroup(workgroup uint32) uint32 {
	size := max(l.SubgroupMin, 1)
	for size < l.SubgroupMax && uint64(size)*uint64(l.MaxWorkgroupSubgroups) < uint64(workgroup) {
		size *= 2
	}
	return size
}

// fullSubgroupSize returns the subgroup size to require for a kernel with full subgroups; 0: the driver's default.
// Without a required size, drivers compile such a kernel for the default size and no other. Where an invocation has
// few registers then, the smallest size leaves more.
func (l deviceLimits) fullSubgroupSize(workgroup uint32) uint32 {
	if !l.SubgroupSizeControl || !l.FullSubgroups || l.SubgroupMin == l.SubgroupMax || l.registers.at(l.SubgroupSize) >= defaultRegisters {
		return 0
	}
	return l.smallestSubgroup(workgroup)
}

const (
	vendorAMD      = 0x1002
	vendorNVIDIA   = 0x10de
	vendorIntel    = 0x8086
	vendorQualcomm = 0x5143

	maxSubgroup = 128 // the largest subgroup size in Vulkan

	// defaultRegisters is the number of registers of an invocation on a device that is not in the table, and
	// defaultWorkgroupRegisters that of a workgroup: those of Apple's GPUs.
	defaultRegisters          = 128
	defaultWorkgroupRegisters = 52 << 10
)

// registersOf returns the register file of a device. Vulkan does not report it, so this is a table by vendor.
func registersOf(c vk.Caps) registerFile {
	perInvocation, perWorkgroup := uint32(defaultRegisters), uint32(defaultWorkgroupRegisters)
	switch {
	case c.CPU:
		perInvocation, perWorkgroup = 256, 0 // CPU drivers keep vectors in caches if not in registers
	case c.VendorID == vendorIntel:
		// A hardware thread has 128 registers, of 32 bytes, from Xe2 on of 64 bytes, whatever its subgroup size is.
		// Chips from Xe2 on have no subgroups of 8. Xe3 can give a thread 256 registers, at the cost of half of the
		// threads.
		words := uint32(128 * 8)
		if c.SubgroupMin >= 16 {
			words = 128 * 16
		}
		return registerFile{perSubgroup: words, perInvocation: words / 8}
	case c.VendorID == vendorAMD:
		perInvocation, perWorkgroup = 256, 0
	case c.VendorID == vendorNVIDIA:
		// Chips with matrix units have uniform registers too, and hold in the 128 registers of 512 invocations what
		// others cannot.
		perInvocation, perWorkgroup = 255, 64<<10
		if c.CooperativeMatrix {
			perWorkgroup = 0
		}
	case c.VendorID == vendorQualcomm:
		perInvocation, perWorkgroup = 192, 48<<10
	}
	return registerFile{perInvocation * maxSubgroup, perInvocation, perWorkgroup}
}

// limitsOf returns the limits of a device.
func limitsOf(dev *vk.Device) deviceLimits { return limitsOfCaps(dev.Caps()) }

// limitsOfCaps returns the limits of a device with some capabilities, in tests with package pretend the registers
// of another chip. A kernel for such a chip runs at the subgroup sizes of the device, with as many registers per
// invocation as in the chip's smallest size.
func limitsOfCaps(c vk.Caps) deviceLimits {
	l := deviceLimits{c, registersOf(c)}
	if chip := pretend.Current(); chip != nil {
		file := registersOf(chip.Caps)
		n := file.at(chip.Caps.SubgroupMin)
		l.CPU, l.registers = chip.Caps.CPU, registerFile{n * max(l.SubgroupMin, 1), n, file.perWorkgroup}
	}
	return l
}
