package vk

// #cgo CFLAGS: -std=gnu11 -O2
// #cgo linux LDFLAGS: -ldl
// #include "native.h"
import "C"

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"unsafe"

	vulkan "github.com/vulkan-go/vulkan"
)

// loader opens the Vulkan loader once and passes its entry point to the Go binding.
var loader = sync.OnceValues(func() (unsafe.Pointer, error) {
	get, err := load(loaderNames())
	if err != nil {
		return nil, err
	}
	vulkan.SetGetInstanceProcAddr(get)
	if err := vulkan.Init(); err != nil {
		return nil, fmt.Errorf("vk: %w: %w", ErrNoDevice, err)
	}
	return get, nil
})

func loaderNames() []string {
	switch runtime.GOOS {
	case "windows":
		return []string{"vulkan-1.dll"}
	case "darwin":
		return []string{"libvulkan.1.dylib", "libvulkan.dylib", "/usr/local/lib/libvulkan.1.dylib", "/opt/homebrew/lib/libvulkan.1.dylib", "libMoltenVK.dylib"}
	}
	return []string{"libvulkan.so.1", "libvulkan.so"} // the second exists only in -dev packages
}

// load opens the first library of names that exists.
func load(names []string) (unsafe.Pointer, error) {
	for _, name := range names {
		text := append([]byte(name), 0)
		if get := C.c5_load((*C.char)(unsafe.Pointer(&text[0]))); get != nil {
			return get, nil
		}
	}
	return nil, fmt.Errorf("vk: %w: cannot load %s; %s", ErrNoDevice, strings.Join(names, " or "), loaderAdvice())
}

// loaderAdvice says how to install a loader.
func loaderAdvice() string {
	switch runtime.GOOS {
	case "windows":
		return "install the graphics driver of your GPU's vendor"
	case "darwin":
		return "install the Vulkan SDK or MoltenVK"
	}
	return "install the Vulkan loader (Debian, Ubuntu: apt install libvulkan1) and a driver: your GPU vendor's, or " + mesa
}

// driverAdvice says how to install a driver, where a loader is installed.
func driverAdvice() string {
	if runtime.GOOS == "linux" {
		return "install a Vulkan driver: your GPU vendor's, or " + mesa
	}
	return loaderAdvice()
}

const mesa = "mesa-vulkan-drivers, which also has one for the CPU"

// instance is a VkInstance. Each open device has its own, so that validation is a property of the device.
type instance struct{ c *C.c5_instance }

// The Go binding resolves instance functions once, with the first instance; the loader dispatches them by handle.
var (
	bindInstance sync.Once
	bindError    error
)

func newInstance(validate bool) (*instance, error) {
	get, err := loader()
	if err != nil {
		return nil, err
	}
	in := &instance{}
	var call *C.char
	result := C.c5_instance_new(get, C.int(btoi(validate)), &in.c, &call)
	if err := checkCall(call, int32(result)); err != nil {
		var e *Error
		if validate && errors.As(err, &e) && vulkan.Result(e.Result) == vulkan.ErrorLayerNotPresent {
			return nil, fmt.Errorf("vk: validation is enabled, but VK_LAYER_KHRONOS_validation is not installed "+
				"(Debian, Ubuntu: apt install vulkan-validationlayers): %w", err)
		}
		if errors.Is(err, ErrOutOfMemory) {
			return nil, fmt.Errorf("vk: %w", err)
		}
		return nil, fmt.Errorf("vk: %w: %w; %s", ErrNoDevice, err, driverAdvice())
	}
	bindInstance.Do(func() {
		handle := C.c5_instance_handle(in.c)
		bindError = vulkan.InitInstance(*(*vulkan.Instance)(unsafe.Pointer(&handle)))
	})
	if bindError != nil {
		in.close()
		return nil, fmt.Errorf("vk: %w: %w", ErrNoDevice, bindError)
	}
	return in, nil
}

func (in *instance) close() {
	C.c5_instance_free(in.c)
	in.c = nil
}

// messages returns and clears the messages of the validation layer.
func (in *instance) messages() (count int, text string) {
	buffer := make([]byte, 1<<16)
	count = int(C.c5_drain_messages(in.c, (*C.char)(unsafe.Pointer(&buffer[0])), C.size_t(len(buffer))))
	if end := bytes.IndexByte(buffer, 0); end >= 0 {
		buffer = buffer[:end]
	}
	return count, string(buffer)
}

// undrained returns an error if the validation layer has written messages since they were last drained, for example
// about an object that was not destroyed.
func (in *instance) undrained() error {
	if count, text := in.messages(); count > 0 {
		return fmt.Errorf("vk: Device.Close: %d validation messages:\n%s", count, text)
	}
	return nil
}

// physical is a physical device of an instance.
type physical struct {
	handle unsafe.Pointer
	family uint32 // queue family with compute
	probe  C.c5_probe
	info   Info
	memory vulkan.PhysicalDeviceMemoryProperties

	realTypes   []uint32 // the driver's numbers of simulated memory types; nil: the types are the driver's
	bufferBytes uint64   // simulated memory for buffers; 0: the device's
}

const maxDevices = 64

func (in *instance) physicals() ([]*physical, error) {
	var handles [maxDevices]unsafe.Pointer
	count := C.uint32_t(maxDevices)
	if err := check("vkEnumeratePhysicalDevices", int32(C.c5_physical_devices(in.c, &count, &handles[0]))); err != nil {
		if errors.Is(err, ErrOutOfMemory) {
			return nil, fmt.Errorf("vk: %w", err)
		}
		return nil, fmt.Errorf("vk: %w: %w; %s", ErrNoDevice, err, driverAdvice())
	}
	list := make([]*physical, count)
	for i := range list {
		p, err := in.describe(handles[i])
		if err != nil {
			return nil, fmt.Errorf("vk: device %d: %w", i, err)
		}
		p.info.Index = i
		list[i] = p
	}
	return list, nil
}

// describe reads the properties of a device for Info and Caps.
func (in *instance) describe(handle unsafe.Pointer) (*physical, error) {
	p := &physical{handle: handle}
	device := *(*vulkan.PhysicalDevice)(unsafe.Pointer(&handle))
	var props vulkan.PhysicalDeviceProperties
	vulkan.GetPhysicalDeviceProperties(device, &props)
	props.Deref()
	props.Limits.Deref()
	defer props.Free()
	vulkan.GetPhysicalDeviceMemoryProperties(device, &p.memory)
	p.memory.Deref()
	for i := range p.memory.MemoryTypes {
		p.memory.MemoryTypes[i].Deref()
	}
	for i := range p.memory.MemoryHeaps {
		p.memory.MemoryHeaps[i].Deref()
	}
	p.memory.Free()
	var call *C.char
	result := C.c5_probe_device(in.c, handle, C.uint32_t(props.ApiVersion), &p.probe, &call)
	if err := checkCall(call, int32(result)); err != nil {
		return nil, err
	}
	bits, err := in.selectFamily(p)
	if err != nil {
		return nil, err
	}
	p.info = Info{
		Name:       vulkan.ToString(props.DeviceName[:]),
		UUID:       hex.EncodeToString(C.GoBytes(unsafe.Pointer(&p.probe.device_uuid[0]), 16)),
		Type:       deviceType(props.DeviceType),
		Driver:     C.GoString(&p.probe.driver_name[0]),
		DriverInfo: C.GoString(&p.probe.driver_info[0]),
		API:        version(props.ApiVersion),
		VendorID:   props.VendorID,
		DeviceID:   props.DeviceID,
		driver:     props.DriverVersion,
	}
	p.info.Caps = p.caps(&props.Limits, bits)
	p.info.Unusable = p.unusable(props.ApiVersion)
	return p, nil
}

const unset = ^uint32(0) // no queue family, no memory type

// selectFamily selects the first queue family with compute, preferably without graphics, where work competes with a
// desktop.
func (in *instance) selectFamily(p *physical) (timestampBits uint32, err error) {
	var flags, bits [C.C5_MAX_FAMILIES]C.uint32_t
	count := C.uint32_t(C.C5_MAX_FAMILIES)
	if err := check("vkGetPhysicalDeviceQueueFamilyProperties", int32(C.c5_queue_families(in.c, p.handle, &count, &flags[0], &bits[0]))); err != nil {
		return 0, err
	}
	const graphics, compute = 1, 2
	p.family = unset
	for i := range int(count) {
		if flags[i]&compute != 0 && (p.family == unset || flags[p.family]&graphics != 0 && flags[i]&graphics == 0) {
			p.family = uint32(i)
		}
	}
	if p.family == unset {
		return 0, nil
	}
	return uint32(bits[p.family]), nil
}

// unusable returns the minimum requirement that a device lacks, or "".
func (p *physical) unusable(api uint32) string {
	const compute, basic, arithmetic, ballot, shuffle = 0x20, 1, 4, 8, 16
	const wanted = basic | arithmetic | ballot | shuffle
	switch {
	case api < vulkan.MakeVersion(1, 2, 0):
		return "Vulkan " + version(api) + ", want 1.2"
	case p.family == unset:
		return "no compute queue"
	case p.probe.buffer_device_address == 0:
		return "no bufferDeviceAddress"
	case p.probe.host_query_reset == 0: // mandatory in Vulkan 1.2
		return "no hostQueryReset"
	case p.probe.subgroup_stages&compute == 0 || p.probe.subgroup_operations&wanted != wanted:
		return "no subgroup arithmetic, ballot and shuffle in compute shaders"
	}
	return ""
}

func version(v uint32) string { return fmt.Sprintf("%d.%d.%d", v>>22&0x7f, v>>12&0x3ff, v&0xfff) }

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}
