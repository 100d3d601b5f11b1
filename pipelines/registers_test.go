package pipelines

import (
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/internal/pretend"
	"github.com/stretchr/testify/assert"
)

// chipLimits returns the limits of the chips that choices are tested for.
func chipLimits() map[string]deviceLimits {
	limits := map[string]deviceLimits{}
	for name, i := range pretend.Chips() {
		limits[name] = deviceLimits{i.Caps, registersOf(i)}
	}
	return limits
}

// Registers of an invocation where the driver selects the subgroup size, and at the default size.
func TestRegisters(t *testing.T) {
	want := map[string][2]uint32{
		"skl": {128, 32}, "icl": {128, 32}, "tgl": {128, 32}, "mtl": {128, 32}, "dg2": {128, 32},
		"lnl": {128, 64}, "bmg": {128, 64}, "ptl": {128, 64},
		"adreno": {192, 192}, "apple": {128, 128}, "kepler": {255, 255}, "turing": {255, 255}, "ampere": {255, 255}, "h200": {255, 255},
		"vega10": {256, 256}, "navi21": {256, 256}, "navi31": {256, 256}, "gfx1201": {256, 256}, "strix1": {256, 256},
		"lavapipe4": {256, 256}, "lavapipe": {256, 256},
	}
	got := map[string][2]uint32{}
	for name, l := range chipLimits() {
		got[name] = [2]uint32{l.registersPerInvocation(), l.registers.at(l.SubgroupSize)}
	}
	assert.Equal(t, want, got)
	assert.EqualValues(t, 16, registerFile{perSubgroup: 1024, perInvocation: 128}.at(64))
	assert.EqualValues(t, 128, registerFile{perSubgroup: 1024, perInvocation: 128}.at(0), "a device without subgroups")
}

// A test that pretends a chip gets its registers, and the other limits of the device.
func TestPretendedRegisters(t *testing.T) {
	dev := gputest.Device(t)
	real := limitsOf(dev)
	defer pretend.Chip(pretend.Chips()["bmg"])()
	l := limitsOf(dev)
	assert.EqualValues(t, 128, l.registersPerInvocation())
	assert.False(t, l.CPU)
	l.CPU, l.registers = real.CPU, real.registers
	assert.Equal(t, real, l)
	gputest.CountCase()
}
