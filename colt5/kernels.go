package colt5

import (
	"errors"
	"reflect"

	"github.com/colt5-vulkan/colt5/vk"
)

// closer is what a module has to close.
type closer interface{ Close() error }

// kernels are the compiled kernels of a module, one for each configuration of a kernel, and the constant tables of its
// plans. Both are made when they are first needed.
type kernels struct {
	dev    *vk.Device
	made   map[kernelKey]closer
	tables tables
}

// kernelKey identifies a kernel: a kernel and its backward pass may have configurations of one type.
type kernelKey struct {
	config any
	kernel reflect.Type
}

func newKernels(dev *vk.Device) kernels { return kernels{dev, map[kernelKey]closer{}, tables{}} }

// kernel returns the kernel of a configuration, and makes it with newKernel if it is the first of its kind.
func kernel[C comparable, K closer](k *kernels, newKernel func(*vk.Device, C) (K, error), c C) (K, error) {
	key := kernelKey{c, reflect.TypeFor[K]()}
	if have, ok := k.made[key]; ok {
		return have.(K), nil
	}
	made, err := newKernel(k.dev, c)
	if err == nil {
		k.made[key] = made
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
