package vk

import (
	"errors"
	"fmt"

	vulkan "github.com/vulkan-go/vulkan"
)

// Causes of failures, for errors.Is.
var (
	ErrNoDevice    = errors.New("no usable Vulkan device")
	ErrDeviceLost  = errors.New("the Vulkan device was lost")
	ErrOutOfMemory = errors.New("out of memory")
	ErrUnsupported = errors.New("not supported by this device")
	ErrTimeout     = errors.New("the device did not finish in time")
	ErrClosed      = errors.New("closed")
)

// Error is a failed Vulkan call.
type Error struct {
	Op     string // name of the call, e.g. vkAllocateMemory
	Result int32  // VkResult
}

// Error returns the call and the result.
func (e *Error) Error() string {
	r := vulkan.Result(e.Result)
	if err := vulkan.Error(r); err != nil {
		return fmt.Sprintf("%s: %v (%d)", e.Op, err, e.Result)
	}
	return fmt.Sprintf("%s: result %d", e.Op, e.Result)
}

// Is reports whether target is the cause: ErrDeviceLost, ErrOutOfMemory, ErrNoDevice, ErrUnsupported and ErrTimeout.
func (e *Error) Is(target error) bool {
	switch vulkan.Result(e.Result) {
	case vulkan.ErrorDeviceLost:
		return target == ErrDeviceLost
	case vulkan.ErrorOutOfHostMemory, vulkan.ErrorOutOfDeviceMemory, vulkan.ErrorTooManyObjects:
		return target == ErrOutOfMemory
	case vulkan.ErrorIncompatibleDriver:
		return target == ErrNoDevice
	case vulkan.ErrorFeatureNotPresent, vulkan.ErrorExtensionNotPresent, vulkan.ErrorLayerNotPresent, vulkan.ErrorFormatNotSupported:
		return target == ErrUnsupported
	case vulkan.Timeout:
		return target == ErrTimeout
	}
	return false
}

// check converts a VkResult to an error. Positive results other than VK_NOT_READY and VK_TIMEOUT are successes.
func check(op string, result int32) error {
	if result == 0 || result > int32(vulkan.Timeout) {
		return nil
	}
	return &Error{Op: op, Result: result}
}
