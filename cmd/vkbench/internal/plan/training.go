package plan

import (
	"context"

	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/examples"
	"github.com/colt5-vulkan/colt5/colt5"
	"github.com/colt5-vulkan/colt5/train"
	"github.com/colt5-vulkan/colt5/vk"
)

// memory is the memory of a call or of a training step.
type memory struct {
	colt5.Memory
	optimizer uint64 // without the gradients
}

func (m memory) total() uint64 { return m.Total() + m.optimizer }

// trainingMemory is the memory of a training step of train.Trainer, without micro-batches. The loss of logits of tokens is their
// cross-entropy; of other modules it is a function of y that needs no memory.
func trainingMemory(c *examples.Call, caps vk.Caps, recompute int) (m memory, err error) {
	ctx, build := context.Background(), c.OutputGraph
	shapes := map[string][]int{}
	for _, in := range c.Inputs {
		if in.Name == "ids" || in.DType == colt5.F32 { // not masks
			shapes[in.Name] = in.Shape
		}
	}
	if c.Logits {
		build, shapes["labels"] = c.LossGraph, c.Inputs[0].Shape
	}
	g, err := build(ctx, nil)
	if err != nil {
		return m, err
	}
	if m.Memory, err = g.TrainingMemory(caps, shapes, recompute); err != nil {
		return m, err
	}
	m.Inputs *= 2 // the next batch is uploaded while a step runs
	var parameters []train.Parameter
	for _, p := range c.Parameters {
		parameters = append(parameters, train.Parameter{Name: p.Name, Shape: p.Tensor.Shape()})
	}
	all, err := train.OptimizerConfig{Clip: 1}.Memory(parameters)
	m.optimizer = all - min(all, m.Gradients)
	return m, err
}
