// Package deviceinfo describes devices and their cooperative matrices in words.
package deviceinfo

import (
	"fmt"
	"strings"

	"github.com/colt5-vulkan/colt5/internal/cli/table"
	"github.com/colt5-vulkan/colt5/vk"
)

// Driver returns name and version of a device's driver.
func Driver(i vk.Info) string { return strings.TrimSpace(i.Driver + " " + i.DriverInfo) }

// Property is a line of a description. Value may be any value that package table formats.
type Property struct {
	Name  string
	Value any
}

// Properties describes a device.
func Properties(i vk.Info) []Property {
	c := i.Caps
	list := []Property{
		{"name", i.Name}, {"type", i.Type}, {"driver", i.Driver + " " + i.DriverInfo}, {"Vulkan", i.API}, {"UUID", i.UUID},
		{"vendor and device id", fmt.Sprintf("%04x:%04x", i.VendorID, i.DeviceID)}, {"CPU driver", c.CPU},
		{"device memory", table.Size(c.MemoryBytes)}, {"largest buffer", table.Size(c.MaxBufferBytes)},
		{"largest allocation that is guaranteed", table.Size(c.MaxAllocation)},
		{"shared memory of a workgroup", table.Size(c.MaxSharedBytes)}, {"push constants", table.Size(c.MaxPushBytes)},
		{"invocations of a workgroup", c.MaxWorkgroupInvocations}, {"size of a workgroup", product(c.MaxWorkgroupSize)},
		{"workgroups of a dispatch", product(c.MaxWorkgroupCount)},
		{"subgroup size", c.SubgroupSize}, {"smallest subgroup", c.SubgroupMin}, {"largest subgroup", c.SubgroupMax},
		{"subgroup size control", c.SubgroupSizeControl}, {"full subgroups", c.FullSubgroups},
		{"subgroups of a workgroup", c.MaxWorkgroupSubgroups},
		{"subgroups of 8, 16 and 64 bit", c.SubgroupExtendedTypes}, {"time stamp tick in ns", c.TimestampNanoseconds},
		{"float16", c.Float16}, {"float64", c.Float64}, {"bfloat16", c.BFloat16}, {"int8", c.Int8}, {"int16", c.Int16}, {"int64", c.Int64},
		{"8-bit storage", c.Storage8}, {"16-bit storage", c.Storage16}, {"Vulkan memory model", c.MemoryModel},
		{"compiler statistics", c.PipelineStatistics},
		{"cooperative matrices", c.CooperativeMatrix}, {"of whole workgroups (NV)", c.CooperativeMatrix2},
	}
	for _, s := range c.MatrixShapes {
		list = append(list, Property{"cooperative matrix", s.String()})
	}
	return list
}

func product(n [3]uint32) string { return fmt.Sprintf("%d x %d x %d", n[0], n[1], n[2]) }
