package vk

// #include "native.h"
import "C"

import (
	"unsafe"

	vulkan "github.com/vulkan-go/vulkan"
)

// commandBuffer is a command buffer with a command pool of its own.
type commandBuffer struct {
	pool   uint64
	buffer unsafe.Pointer
	call   *C.char // the Vulkan call that failed; in the struct because a variable would be allocated by every write
}

func (c *commandBuffer) open(d *Device) error {
	result := C.c5_commands_new(d.c, (*C.uint64_t)(&c.pool), &c.buffer, &c.call)
	err := d.checkCall(c.call, int32(result))
	if err != nil {
		c.pool = 0
	}
	return err
}

func (c *commandBuffer) destroy(d *Device) {
	vulkan.DestroyCommandPool(d.handle, *(*vulkan.CommandPool)(unsafe.Pointer(&c.pool)), nil)
	*c = commandBuffer{}
}

// write writes the command buffer from commands in the layout of native.h.
func (c *commandBuffer) write(d *Device, ops []byte) error {
	d.writes.Add(1)
	result := C.c5_write_commands(d.c, C.uint64_t(c.pool), c.buffer, unsafe.Pointer(unsafe.SliceData(ops)), C.size_t(len(ops)), &c.call)
	return d.checkCall(c.call, int32(result))
}

// transferCommands is a command buffer for transfers, with its fence.
type transferCommands struct {
	commandBuffer
	fence
}

func (c *transferCommands) open(d *Device) error {
	if err := c.fence.open(d); err != nil {
		return err
	}
	if err := c.commandBuffer.open(d); err != nil {
		c.fence.destroy(d)
		return err
	}
	return nil
}

func (c *transferCommands) destroy(d *Device) {
	c.commandBuffer.destroy(d)
	c.fence.destroy(d)
}

func (c *transferCommands) submit(d *Device) error {
	c.expected = 0 // the previous transfer moved another number of bytes
	return c.fence.submit(d, unsafe.Slice(&c.buffer, 1), 0, 0)
}
