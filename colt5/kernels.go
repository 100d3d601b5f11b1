package colt5

import (
	"errors"

	"github.com/colt5-vulkan/colt5/vk"
)

// closer is what a module has to close.
type closer interface{ Close() error }

// kernels are the compiled kernels of a module, one for each configuration of a kernel, and the constant tables of its
// plans. Both are made when they are first needed.
type kernels struct {
	dev    *vk.Device
	made   map[any]closer // by configuration; its type identifies the kernel
	tables tables
}

func newKernels(dev *vk.Device) kernels { return kernels{dev, map[any]closer{}, tables{}} }

// kernel returns the kernel of a configuration, and makes it with newKernel if it is the first of its kind.
func kernel[C comparable, K closer](k *kernels, newKernel func(*vk.Device, C) (K, error), c C) (K, error) {
	if have, ok := k.made[c]; ok {
		return have.(K), nil
	}
	made, err := newKernel(k.dev, c)
	if err == nil {
		k.made[c] = made
	}
	return made, err
}

func (k *kernels) close() error {
	var err error
	for _, x := range k.made {
		err = errors.Join(err, x.Close())
	}
	return err
}
