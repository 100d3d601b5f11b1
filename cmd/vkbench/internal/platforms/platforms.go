// Package platforms says what is known about the devices of each vendor: what has run, what only compiles, and what was
// never tried. `vkbench devices` prints it. The README has the same table, and a test compares them.
package platforms

import (
	"fmt"
	"strings"

	"github.com/colt5-vulkan/colt5/vk"
)

// Family is the devices of a vendor.
type Family struct {
	Name     string
	Ran      string // what has run, and on which driver
	Compiled string // where all kernels that the library selects compile, without having run
	Untried  string

	vendors []uint32 // vk.Info.VendorID
	drivers []string // vk.Info.Driver, of devices whose vendor id is not their maker's
	chips   []string // in Compiled, as `make test-compilers` names them
}

const nothing = "nothing"

// Families are all families. The last one is that of devices that are in no other.
var Families = []Family{
	{
		Name: "NVIDIA", vendors: []uint32{0x10de},
		Ran: "H200 with driver 580.159.04: golden cases with gradients in float32, and all tests but those of 16-bit backward " +
			"kernels",
		Compiled: "NVK of Mesa 26.1.6: Kepler (GK110), Turing (TU102)",
		Untried:  "other GPUs; NVK on a GPU; Windows",
		chips:    []string{"kepler", "turing"},
	},
	{
		Name: "AMD", vendors: []uint32{0x1002},
		Ran: nothing,
		Compiled: "RADV of Mesa 25.0.7: Vega 10, Navi 21 (RX 6800), Navi 31 (RX 7900), GFX1201 (RX 9070); RADV of Mesa 26.1.6: " +
			"Navi 31, GFX1201, Strix Point",
		Untried: "any GPU; AMD's own drivers",
		chips:   []string{"VEGA10", "NAVI21", "NAVI31", "GFX1201", "navi31", "gfx1201", "strix1"},
	},
	{
		Name: "Intel", vendors: []uint32{0x8086},
		Ran: nothing,
		Compiled: "ANV of Mesa 26.1.6: Skylake, Ice Lake, Tiger Lake, Meteor Lake, DG2 (Arc A770), Battlemage (Arc B580), Panther " +
			"Lake",
		Untried: "any GPU; Intel's driver for Windows",
		chips:   []string{"skl", "icl", "tgl", "mtl", "dg2", "bmg", "ptl"},
	},
	{
		Name: "Qualcomm", vendors: []uint32{0x5143},
		Ran:      nothing,
		Compiled: "Turnip of Mesa 26.1.6: Adreno 630",
		Untried:  "any GPU; Qualcomm's own driver",
		chips:    []string{"adreno"},
	},
	{
		Name: "Apple", vendors: []uint32{0x106b}, drivers: []string{"Honeykrisp"},
		Ran:      nothing,
		Compiled: "Honeykrisp of Mesa 26.1.6: M1",
		Untried:  "any GPU; MoltenVK",
		chips:    []string{"apple"},
	},
	{
		Name: "CPU", drivers: []string{"llvmpipe"},
		Ran: "lavapipe of Mesa 22.3.6 and 26.1.6: all tests and golden cases; of Mesa 22.3.6 also with subgroups of 4 and 16 instead " +
			"of 8",
		Compiled: nothing,
		Untried:  "SwiftShader; other CPUs than x86-64",
	},
	{Name: "others", Ran: nothing, Compiled: nothing, Untried: "Arm, Broadcom, Imagination, Samsung and all others"},
}

// Of returns the family of a device.
func Of(i vk.Info) Family {
	for _, f := range Families {
		for _, d := range f.drivers {
			if i.Driver == d {
				return f
			}
		}
	}
	for _, f := range Families {
		for _, v := range f.vendors {
			if i.VendorID == v && i.Type != "cpu" {
				return f
			}
		}
	}
	return Families[len(Families)-1]
}

// String describes the family in one line.
func (f Family) String() string {
	return fmt.Sprintf("%s: has run: %s. Only compiled: %s. Never tried: %s.", f.Name, f.Ran, f.Compiled, f.Untried)
}

// Markdown returns the table of all families.
func Markdown() string {
	var b strings.Builder
	b.WriteString("| devices | has run | only compiled | never tried |\n| --- | --- | --- | --- |\n")
	for _, f := range Families {
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", f.Name, f.Ran, f.Compiled, f.Untried)
	}
	return b.String()
}
