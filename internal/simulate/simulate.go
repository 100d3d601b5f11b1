// Package simulate describes devices with lower limits than the one of this machine. vk.Open applies them, so that tests
// see what such a device would do: each kernel works, or the error is vk.ErrUnsupported and names what is missing.
package simulate

// Limits lower the limits of a device. The zero value of a field changes nothing.
type Limits struct {
	MaxSharedBytes uint32 // shared memory of a workgroup
	MaxPushBytes   uint32 // push constants
	MaxInvocations uint32 // of a workgroup, in total and in each dimension

	NoFloat16             bool // no shaderFloat16
	NoStorage16           bool // no storageBuffer16BitAccess
	NoSubgroupSizeControl bool // neither subgroupSizeControl nor computeFullSubgroups
	NoTimestamps          bool // no timestamps on the compute queue

	// HostVisibleBytes is the size of the only host-visible heap. Other memory is not host-visible. An allocation that
	// does not fit fails.
	HostVisibleBytes uint64

	// BufferBytes is the memory for all buffers. An allocation beyond it fails.
	BufferBytes uint64

	// DispatchBytes is the memory traffic from which a dispatch is divided.
	DispatchBytes uint64

	// NonCoherent makes host-visible memory non-coherent: what the host writes reaches the device by a flush only, and what
	// the device writes reaches the host by an invalidation only.
	NonCoherent bool
}

// Devices returns the limits that tests simulate, by name. They are those that Vulkan guarantees, or less than most
// devices have. "all" has all of them except the workgroups of 128 invocations, for which most kernels are too large.
func Devices() map[string]Limits {
	return map[string]Limits{
		"shared":       {MaxSharedBytes: 16 << 10},
		"push":         {MaxPushBytes: 128},
		"invocations":  {MaxInvocations: 128},
		"float16":      {NoFloat16: true},
		"storage16":    {NoStorage16: true},
		"subgroups":    {NoSubgroupSizeControl: true},
		"timestamps":   {NoTimestamps: true},
		"host-visible": {HostVisibleBytes: 256 << 20},
		"non-coherent": {NonCoherent: true},
		"traffic":      {DispatchBytes: 1 << 10},
		"all": {
			MaxSharedBytes: 16 << 10, MaxPushBytes: 128, NoFloat16: true, NoStorage16: true, NoSubgroupSizeControl: true,
			NoTimestamps: true, HostVisibleBytes: 256 << 20, NonCoherent: true,
		},
	}
}
