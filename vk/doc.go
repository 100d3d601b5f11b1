// Package vk runs compute kernels on a Vulkan device: it opens the device, keeps its memory, makes kernels from SPIR-V, and
// records dispatches on tapes that are replayed with one submit. It knows nothing of what the kernels compute.
//
//	dev, err := vk.Open(vk.Options{})             // the best device; vk.List says what there is
//	defer dev.Close()
//	x, err := dev.NewBuffer("x", 4096)
//	err = dev.Upload(vk.Transfer{Range: x.Range(), Data: data})
//	k, err := dev.NewKernel(vk.KernelConfig{Name: "double", Code: spirv})
//	t, err := dev.NewTape(vk.TapeConfig{Name: "double"})
//	err = t.Dispatch(vk.Dispatch{Kernel: k, Groups: [3]uint32{4, 1, 1}, Args: []vk.Access{vk.ReadWrite(x.Range())}})
//	err = t.Run()
//	err = dev.Download(vk.Transfer{Range: x.Range(), Data: data})
//
// Kernels get their arguments as buffer device addresses, 8 bytes each at the head of the push constants, in the order of
// Dispatch.Args; the scalars of Dispatch.Push follow. Barriers are derived from what each dispatch reads and writes.
//
// A device needs Vulkan 1.2 with bufferDeviceAddress and subgroup arithmetic in compute shaders. A Device may be used by
// several goroutines; a Tape by one at a time, a second one waits.
//
// All of Vulkan goes through this package: native.c and native_instance.c hold the calls that the binding cannot do safely.
package vk
