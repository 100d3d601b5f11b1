package main

import (
	"context"
	"errors"
	"io"
	"slices"

	"github.com/colt5-vulkan/colt5/colt5"
	"github.com/colt5-vulkan/colt5/vk"
)

// stage holds what a case needs on the device until it is closed. Its first failure is kept, so that a case asks once.
type stage struct {
	dev  *vk.Device
	open []io.Closer
	err  error
}

func (s *stage) fail(err error) {
	if s.err == nil {
		s.err = err
	}
}

// keep closes c together with the stage. A constructor's failure is the stage's, and nil is returned.
func keep[T io.Closer](s *stage, c T, err error) T {
	if err != nil {
		s.fail(err)
		var none T
		return none
	}
	s.open = append(s.open, c)
	return c
}

func (s *stage) tensor(dtype colt5.DType, shape ...int) *colt5.Tensor {
	t, err := colt5.NewTensor(s.dev, dtype, shape...)
	return keep(s, t, err)
}

func (s *stage) floats(data []float32, shape ...int) *colt5.Tensor {
	t, err := colt5.FromSlice(context.TODO(), s.dev, data, shape...)
	return keep(s, t, err)
}

func (s *stage) bytes(data []uint8, shape ...int) *colt5.Tensor {
	t, err := colt5.FromSlice(context.TODO(), s.dev, data, shape...)
	return keep(s, t, err)
}

func (s *stage) close() error {
	var err error
	for _, c := range slices.Backward(s.open) {
		err = errors.Join(err, c.Close())
	}
	s.open = nil
	return err
}

// onStage runs f on a stage, and closes it.
func onStage(dev *vk.Device, f func(*stage) error) error {
	s := &stage{dev: dev}
	return errors.Join(f(s), s.close())
}
