package pipelines

import (
	"errors"
	"fmt"
	"sync"

	"github.com/colt5-vulkan/colt5/shaders"
	"github.com/colt5-vulkan/colt5/vk"
)

// newKernel compiles the SPIR-V of a line of shaders/variants.txt with its specialisation constants.
func newKernel(dev *vk.Device, name string, spec map[uint32]uint32) (*vk.Kernel, error) {
	code, err := shaders.SPV(name)
	if err != nil {
		return nil, err
	}
	return createKernel(dev, vk.KernelConfig{Name: name, Code: code, Spec: spec})
}

// createKernel creates every kernel of the package. TestCompiles replaces it.
var createKernel = (*vk.Device).NewKernel

// kernelCache holds the variants of a kernel. Each is compiled when it is first recorded, because few shapes need all
// of them.
type kernelCache struct {
	dev      *vk.Device
	mu       sync.Mutex
	compiled map[string]*vk.Kernel // by name and specialisation constants
	closed   bool
}

// get returns the kernel of a SPIR-V variant with these specialisation constants, under a name for profiles.
// The same name and constants are compiled once.
func (k *kernelCache) get(name, variant string, fullSubgroups bool, spec map[uint32]uint32) (*vk.Kernel, error) {
	return k.with(name, variant, spec, vk.KernelConfig{FullSubgroups: fullSubgroups})
}

// with is get with the subgroup settings of c.
func (k *kernelCache) with(name, variant string, spec map[uint32]uint32, c vk.KernelConfig) (*vk.Kernel, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return nil, vk.ErrClosed
	}
	key := fmt.Sprint(name, spec)
	if kernel := k.compiled[key]; kernel != nil {
		return kernel, nil
	}
	code, err := shaders.SPV(variant)
	if err != nil {
		return nil, err
	}
	c.Name, c.Code, c.Spec = name, code, spec
	kernel, err := createKernel(k.dev, c)
	if err != nil {
		return nil, err
	}
	if k.compiled == nil {
		k.compiled = map[string]*vk.Kernel{}
	}
	k.compiled[key] = kernel
	return kernel, nil
}

// close frees the kernels and prevents further compilation. A kernel that an open command list uses stays until the
// next close.
func (k *kernelCache) close() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.closed = true
	var errs error
	for key, kernel := range k.compiled {
		err := kernel.Close()
		if err == nil {
			delete(k.compiled, key)
		}
		errs = errors.Join(errs, err)
	}
	return errs
}

// specBool is the value of a bool specialisation constant.
func specBool(b bool) uint32 {
	if b {
		return 1
	}
	return 0
}
