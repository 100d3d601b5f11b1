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

// loader finds the Vulkan loader once and hands its entry point to the binding.
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
	return []string{"libvulkan.so.1", "libvulkan.so"} // the second is part of -dev packages alone
}

// load opens the first loader that there is.
func load(names []string) (unsafe.Pointer, error) {
	for _, name := range names {
		text := append([]byte(name), 0)
		if get := C.c5_load((*C.char)(unsafe.Pointer(&text[0]))); get != nil {
			return get, nil
		}
	}
	return nil, fmt.Errorf("vk: %w: cannot load %s; %s", ErrNoDevice, strings.Join(names, " or "), advice())
}

// advice says how to get a loader and a driver.
func advice() string {
	switch runtime.GOOS {
	case "windows":
		return "install the graphics driver of your GPU's vendor"
	case "darwin":
		return "install the Vulkan SDK or MoltenVK"
	}
	return "install the Vulkan loader (Debian, Ubuntu: apt install libvulkan1) and a driver: your GPU vendor's, or " +
		"mesa-vulkan-drivers, which also has one for the CPU"
}

// instance is a VkInstance. Each open device has its own, so that validation is a property of the device.
type instance struct{ c *C.c5_instance }

// The binding resolves instance functions once, with the first instance; the loader dispatches them by handle.
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
	if err := check("vkCreateInstance", int32(C.c5_instance_new(get, C.int(btoi(validate)), &in.c))); err != nil {
		var e *Error
		if validate && errors.As(err, &e) && vulkan.Result(e.Result) == vulkan.ErrorLayerNotPresent {
			return nil, fmt.Errorf("vk: validation was asked for, and VK_LAYER_KHRONOS_validation is not installed "+
				"(Debian, Ubuntu: apt install vulkan-validationlayers): %w", err)
		}
		return nil, fmt.Errorf("vk: %w: %w; %s", ErrNoDevice, err, advice())
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

// messages returns and forgets what the validation layer said.
func (in *instance) messages() (count int, text string) {
	buffer := make([]byte, 1<<16)
	count = int(C.c5_messages(in.c, (*C.char)(unsafe.Pointer(&buffer[0])), C.size_t(len(buffer))))
	if end := bytes.IndexByte(buffer, 0); end >= 0 {
		buffer = buffer[:end]
	}
	return count, string(buffer)
}

// unread is an error if the validation layer said something that nobody asked for, such as that an object was left open.
func (in *instance) unread() error {
	if count, text := in.messages(); count > 0 {
		return fmt.Errorf("vk: Device.Close: %d validation messages:\n%s", count, text)
	}
	return nil
}

// physical is a device of an instance that may be opened.
type physical struct {
	handle unsafe.Pointer
	family uint32 // queue family with compute
	probe  C.c5_probe
	info   Info
	memory vulkan.PhysicalDeviceMemoryProperties
}

const maxDevices = 64

func (in *instance) physicals() ([]*physical, error) {
	var handles [maxDevices]unsafe.Pointer
	count := C.uint32_t(maxDevices)
	if err := check("vkEnumeratePhysicalDevices", int32(C.c5_physical_devices(in.c, &count, &handles[0]))); err != nil {
		return nil, fmt.Errorf("vk: %w: %w", ErrNoDevice, err)
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

// describe reads everything that Info and Caps say of a device.
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
	if err := check("vkGetPhysicalDeviceProperties2", int32(C.c5_probe_device(in.c, handle, C.uint32_t(props.ApiVersion), &p.probe))); err != nil {
		return nil, err
	}
	bits, err := in.chooseFamily(p)
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
	p.info.Unusable = p.unusable(props.ApiVersion, bits)
	return p, nil
}

const noFamily = ^uint32(0)

// chooseFamily takes the first queue family with compute, a family with graphics too being last: work there competes with a desktop.
func (in *instance) chooseFamily(p *physical) (timestampBits uint32, err error) {
	var flags, bits [C.C5_MAX_FAMILIES]C.uint32_t
	count := C.uint32_t(C.C5_MAX_FAMILIES)
	if err := check("vkGetPhysicalDeviceQueueFamilyProperties", int32(C.c5_queue_families(in.c, p.handle, &count, &flags[0], &bits[0]))); err != nil {
		return 0, err
	}
	const graphics, compute = 1, 2
	p.family = noFamily
	for i := range int(count) {
		if flags[i]&compute != 0 && (p.family == noFamily || flags[p.family]&graphics != 0 && flags[i]&graphics == 0) {
			p.family = uint32(i)
		}
	}
	if p.family == noFamily {
		return 0, nil
	}
	return uint32(bits[p.family]), nil
}

// unusable says what of the minimum a device lacks.
func (p *physical) unusable(api, timestampBits uint32) string {
	const compute, basic, arithmetic, ballot, shuffle = 0x20, 1, 4, 8, 16
	const wanted = basic | arithmetic | ballot | shuffle
	switch {
	case api < vulkan.MakeVersion(1, 2, 0):
		return "Vulkan " + version(api) + ", want 1.2"
	case p.family == noFamily:
		return "no queue for compute"
	case p.probe.buffer_device_address == 0:
		return "no bufferDeviceAddress"
	case p.probe.host_query_reset == 0: // Vulkan 1.2 has it
		return "no hostQueryReset"
	case p.probe.subgroup_stages&compute == 0 || p.probe.subgroup_operations&wanted != wanted:
		return "no subgroup arithmetic, ballot and shuffle in compute shaders"
	case timestampBits == 0:
		return "no timestamps on the compute queue"
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
