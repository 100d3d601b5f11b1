package train

import (
	"context"
	"errors"

	"github.com/colt5-vulkan/colt5/colt5"
	"github.com/colt5-vulkan/colt5/vk"
)

// trainerBatch is the tensors of a step's batch, by micro-batch, and the host memory from which a command list fills them.
type trainerBatch struct {
	tensors []map[string]*colt5.Tensor
	options []colt5.GraphOptions // each with a Dropout, which next sets
	host    *vk.HostBuffer
	upload  *vk.CommandList
}

func (t *Trainer) makeTensors(to *trainerBatch, b *Batch, i, items int) error {
	tensors := map[string]*colt5.Tensor{"loss": t.losses[i]}
	to.tensors = append(to.tensors, tensors)
	add := func(name string, dtype colt5.DType, shape ...int) error {
		if !t.graph.HasInput(name) {
			return nil
		}
		x, err := colt5.NewTensor(t.dev, dtype, shape...)
		if err == nil {
			tensors[name] = x
		}
		return err
	}
	labels := []int{items}
	if len(b.Labels) == b.Items*b.Length && b.Length > 1 {
		labels = append(labels, b.Length)
	}
	if err := errors.Join(add("ids", colt5.U8, items, b.Length), add("labels", colt5.I32, labels...),
		add("targets", colt5.F32, items, len(b.Targets)/b.Items)); err != nil {
		return err
	}
	if b.Mask != nil {
		if err := add("mask", colt5.U8, items, b.Length); err != nil {
			return err
		}
	}
	scale, err := colt5.TensorAt(t.upstream.Range().Slice(0, 8), colt5.F32, 2)
	if err != nil {
		return err
	}
	to.options = append(to.options, colt5.GraphOptions{
		Dropout: &colt5.Dropout{},
		Backward: &colt5.Backward{
			Upstream: map[string]*colt5.Tensor{"loss": scale}, Parameters: t.gradients[i], Recompute: t.optimizer.Config().Recompute,
		},
	})
	return nil
}

// inputs are the names of a graph's inputs that a Batch has.
var inputs = []string{"ids", "mask", "targets", "labels"}

// dataOf is the data of an input of part i of a batch.
func dataOf(b *Batch, input string, i, parts int) []byte {
	switch input {
	case "ids":
		return part(b.IDs, i, parts)
	case "mask":
		return part(b.Mask, i, parts)
	case "targets":
		return vk.Bytes(part(b.Targets, i, parts))
	default:
		return vk.Bytes(part(b.Labels, i, parts))
	}
}

func part[T any](s []T, i, parts int) []T {
	n := len(s) / parts
	return s[i*n : (i+1)*n]
}

// open makes the host memory of the tensors, one after another, and records their upload.
func (b *trainerBatch) open(dev *vk.Device) (err error) {
	size := uint64(0)
	b.each(func(_ int, _ string, x *colt5.Tensor, at uint64) error {
		size = at + x.Range().Size()
		return nil
	})
	if b.host, err = dev.NewHostBuffer("batch", size); err != nil {
		return err
	}
	if b.upload, err = dev.NewCommandList(vk.CommandListConfig{Name: "batch"}); err != nil {
		return err
	}
	return b.each(func(_ int, _ string, x *colt5.Tensor, at uint64) error {
		return b.upload.Copy(x.Range(), b.host.Range().Slice(at, x.Range().Size()))
	})
}

// each calls f for the inputs of all micro-batches, with their place in the host memory.
func (b *trainerBatch) each(f func(i int, input string, x *colt5.Tensor, at uint64) error) error {
	at := uint64(0)
	for i, tensors := range b.tensors {
		for _, input := range inputs {
			x := tensors[input]
			if x == nil {
				continue
			}
			if err := f(i, input, x, at); err != nil {
				return err
			}
			at += (x.Range().Size() + 15) &^ 15
		}
	}
	return nil
}

// fill submits the upload of a batch. It waits only for the upload of the batch that had this memory, two steps before.
func (b *trainerBatch) fill(ctx context.Context, from *Batch) error {
	if err := b.upload.Wait(ctx); err != nil {
		return err
	}
	err := b.each(func(i int, input string, x *colt5.Tensor, at uint64) error {
		x.Changed()
		return b.host.Write(at, dataOf(from, input, i, len(b.tensors)))
	})
	if err != nil {
		return err
	}
	return b.upload.Submit(ctx)
}

// close frees the tensors. The loss is the trainer's.
func (b *trainerBatch) close() error {
	err := errors.Join(b.upload.Close(), b.host.Close())
	for _, tensors := range b.tensors {
		for name, x := range tensors {
			if name != "loss" {
				err = errors.Join(err, x.Close())
			}
		}
	}
	return err
}
