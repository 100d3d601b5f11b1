// Package vk runs compute kernels on a Vulkan device. It opens the device, allocates its memory, makes kernels from
// SPIR-V, and records dispatches on command lists, which are recorded once and run many times. It does not depend on what
// the kernels compute.
//
//	dev, err := vk.Open(vk.Options{})             // the best device; vk.List returns all
//	defer dev.Close()
//	x, err := dev.NewBuffer("x", 4096)
//	err = dev.Upload(ctx, vk.Transfer{Range: x.Range(), Data: data})
//	k, err := dev.NewKernel(vk.KernelConfig{Name: "double", Code: spirv})
//	l, err := dev.NewCommandList(vk.CommandListConfig{Name: "double"})
//	err = l.Dispatch(vk.Dispatch{Kernel: k, Groups: [3]uint32{4, 1, 1}, Args: []vk.Access{vk.ReadWrite(x.Range())}})
//	err = l.Run(ctx)
//	err = dev.Download(ctx, vk.Transfer{Range: x.Range(), Data: data})
//
// Kernels receive their arguments as buffer device addresses: 8 bytes each at the start of the push constants, in the
// order of Dispatch.Args. The scalars of Dispatch.Push follow. Barriers are derived from what each dispatch reads and
// writes.
//
// Calls that wait take a context and end soon after it is done. Vulkan cannot cancel submitted work: it runs on, and
// the next call that needs it waits for it first. Without a deadline a wait ends after Options.Timeout.
//
// A device needs Vulkan 1.2 with bufferDeviceAddress, and with subgroup arithmetic, ballot and shuffle in compute
// shaders. Times also need timestamps on its compute queue. A Device may be used by several goroutines. The calls of a
// CommandList exclude each other.
//
// All Vulkan code of this module is in this package. native.c and native_instance.c hold the calls that the Go binding
// cannot make safely.
package vk
