package pipelines

import (
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/internal/pretend"
	"github.com/stretchr/testify/assert"
)

// ownLimits makes limitsOfCaps ignore COLT5_PRETEND_CHIP during a test.
func ownLimits(t *testing.T) { t.Cleanup(pretend.Nothing()) }

// chipLimits returns the limits of the chips that choices are tested for.
func chipLimits() map[string]deviceLimits {
	limits := map[string]deviceLimits{}
	for name, i := range pretend.Chips() {
		limits[name] = deviceLimits{i.Caps, registersOf(i.Caps)}
	}
	return limits
}

// Registers of an invocation in workgroups of 128, 512 and 1,024, and at the default subgroup size.
func TestRegisters(t *testing.T) {
	want := map[string][4]uint32{
		"skl": {128, 64, 32, 32}, "icl": {128, 64, 32, 32}, "tgl": {128, 128, 64, 32}, "mtl": {128, 128, 128, 32}, "dg2": {128, 128, 128, 32},
		"lnl": {128, 128, 128, 64}, "bmg": {128, 128, 128, 64}, "ptl": {128, 128, 64, 64},
		"adreno": {192, 96, 48, 192}, "apple": {128, 104, 52, 128},
		"kepler": {255, 128, 64, 255}, "turing": {255, 255, 255, 255}, "ampere": {255, 255, 255, 255}, "h200": {255, 255, 255, 255},
		"vega10": {256, 256, 256, 256}, "navi21": {256, 256, 256, 256}, "navi31": {256, 256, 256, 256}, "gfx1201": {256, 256, 256, 256},
		"strix1": {256, 256, 256, 256}, "lavapipe4": {256, 256, 256, 256}, "lavapipe": {256, 256, 256, 256},
	}
	got := map[string][4]uint32{}
	for name, l := range chipLimits() {
		got[name] = [4]uint32{l.registersIn(128), l.registersIn(512), l.registersIn(1024), l.registers.at(l.SubgroupSize)}
	}
	assert.Equal(t, want, got)
	assert.EqualValues(t, 16, registerFile{perSubgroup: 1024, perInvocation: 128}.at(64))
	assert.EqualValues(t, 128, registerFile{perSubgroup: 1024, perInvocation: 128}.at(0), "a device without subgroups")
}

// Kernels with full subgroups require a size only where the default size leaves few registers.
func TestFullSubgroupSize(t *testing.T) {
	want := map[string][3]uint32{ // workgroups of 256, 512 and 1,024
		"skl": {8, 16, 32}, "icl": {8, 16, 32}, "tgl": {8, 8, 16}, "mtl": {8, 8, 8}, "dg2": {8, 8, 8},
		"lnl": {16, 16, 16}, "bmg": {16, 16, 16}, "ptl": {16, 16, 32},
	}
	for name, l := range chipLimits() {
		assert.Equal(t, want[name], [3]uint32{l.fullSubgroupSize(256), l.fullSubgroupSize(512), l.fullSubgroupSize(1024)}, name)
		l.SubgroupSizeControl = false
		assert.Zero(t, l.fullSubgroupSize(256), name)
	}
}

// A test that pretends a chip gets its registers, and the other limits of the device.
func TestPretendedRegisters(t *testing.T) {
	ownLimits(t)
	dev := gputest.Device(t)
	real := limitsOf(dev)
	defer pretend.Chip(pretend.Chips()["bmg"])()
	l := limitsOf(dev)
	assert.EqualValues(t, 128, l.registersIn(128))
	assert.False(t, l.CPU)
	l.CPU, l.registers = real.CPU, real.registers
	assert.Equal(t, real, l)
	gputest.CountCase()
}
