package cases

import (
	"context"
	"errors"
	"fmt"

	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/examples"
	"github.com/colt5-vulkan/colt5/colt5"
	"github.com/colt5-vulkan/colt5/internal/cli/scope"
	"github.com/colt5-vulkan/colt5/pipelines"
	"github.com/colt5-vulkan/colt5/train"
)

const (
	// BackwardSuffix follows a module's name: the case of its forward and backward pass.
	BackwardSuffix = "_backward"
	trainStep      = "train_step" // the case of a whole training step
)

// ModulesBackward returns a case for the forward and backward pass of every module, and that of a whole training
// step.
func ModulesBackward() []Case {
	return append(backward(modules()), Case{
		trainStep, []string{"batch", "tokens", "dim", "depth"}, [][]int{{4, 2048, 256, 4}, {2, 8192, 512, 6}}, [][]int{{1, 256, 16, 1}}, setupTrainStep,
	})
}

// backward returns the cases of the modules' calls with a backward pass.
func backward(list []moduleCase) (cases []Case) {
	for _, m := range list {
		cases = append(cases, Case{m.name + BackwardSuffix, m.dims, m.sizes, m.smallBackward, func(b *Builder, size []int) (*Workload, error) {
			c, err := m.call(b.Context(), b.Dev, b.Precision, size)
			if err != nil {
				return nil, err
			}
			return b.backward(c)
		}})
	}
	return cases
}

// backward returns the workload of a graph of a module's call, forward and backward: with the gradients of all inputs and
// parameters.
func (b *Builder) backward(c *examples.Call) (*Workload, error) {
	scope.Keep(b.Scope, c.Module, nil)
	g, err := c.OutputGraph(b.Context(), b.Dev)
	scope.Keep(b.Scope, g, nil)
	if err != nil {
		return nil, err
	}
	t, outputs := b.tensors(c)
	back := &colt5.Backward{Upstream: map[string]*colt5.Tensor{}, Inputs: map[string]*colt5.Tensor{}, Recompute: b.Recompute}
	for _, out := range c.Outputs {
		if out.DType == colt5.F32 {
			back.Upstream[out.Name] = b.input(out.Shape...)
		}
	}
	for _, in := range c.Inputs {
		if in.DType == colt5.F32 {
			back.Inputs[in.Name] = b.Tensor(colt5.F32, in.Shape...)
		}
	}
	if len(c.Parameters) > 0 {
		p, err := colt5.NewGradients(b.Dev, c.Parameters)
		back.Parameters = scope.Keep(b.Scope, p, err)
	}
	if b.Err() != nil {
		return nil, b.Err()
	}
	for _, in := range c.Inputs {
		if x := back.Inputs[in.Name]; x != nil {
			outputs = append(outputs, FloatOutput("gradient of "+in.Name, x))
		}
	}
	if back.Parameters != nil {
		outputs = append(outputs, gradientsOutput(back.Parameters))
	}
	return b.module(func(ctx context.Context, stats *colt5.CallStats) error {
		return g.Run(ctx, t, colt5.GraphOptions{Backward: back, Stats: stats})
	}, outputs...)
}

// gradientsOutput is the gradients of all parameters.
func gradientsOutput(g *colt5.Gradients) Output {
	list := g.List()
	return Output{
		name: "gradients of parameters",
		poison: func(ctx context.Context) error {
			for _, p := range list {
				if err := p.Tensor.Write(ctx, nanFill[float32](p.Tensor.Len())); err != nil {
					return err
				}
			}
			return nil
		},
		read: func(ctx context.Context) ([]float32, []int32, error) { return readAll(ctx, list) },
	}
}

// readAll reads the elements of a list of tensors, one after another.
func readAll(ctx context.Context, list []colt5.Parameter) (all []float32, _ []int32, err error) {
	for _, p := range list {
		data, err := p.Tensor.Float32(ctx)
		if err != nil {
			return nil, nil, err
		}
		all = append(all, data...)
	}
	return all, nil, nil
}

// setupTrainStep trains a language model over bytes: cross-entropy, clipping to a norm of 1, and AdamW.
func setupTrainStep(b *Builder, size []int) (*Workload, error) {
	items, n := size[0], size[1]
	m := examples.AutoregressiveTransformer()
	config := m.Config(size[:3], b.Precision)
	config.Depth = size[3]
	c, err := m.Call(b.Context(), b.Dev, config, size)
	if err != nil {
		return nil, err
	}
	scope.Keep(b.Scope, c.Module, nil)
	g, err := c.LossGraph(b.Context(), b.Dev)
	scope.Keep(b.Scope, g, nil)
	if err != nil {
		return nil, err
	}
	trainer, err := train.NewTrainer(b.Context(), g, c.Parameters, train.OptimizerConfig{
		Clip: 1, LossScale: train.LossScale{Dynamic: b.Precision == pipelines.F16}, Recompute: b.Recompute,
	})
	if trainer = scope.Keep(b.Scope, trainer, err); trainer == nil {
		return nil, b.Err()
	}
	text := randomText(b.nextSeed(), items*(n+1))
	batch := &train.Batch{Items: items, Length: n}
	for i := range items {
		part := text[i*(n+1):][:n+1]
		batch.IDs = append(batch.IDs, part[:n]...)
		for _, next := range part[1:] {
			batch.Labels = append(batch.Labels, int32(next))
		}
	}
	if err := findLossScale(b.Context(), trainer, batch); err != nil {
		return nil, err
	}
	return b.module(func(ctx context.Context, stats *colt5.CallStats) error { return trainer.Measure(ctx, batch, stats) },
		lossOutput(trainer, items*n), updatedParameters(c.Parameters))
}

// findLossScale runs steps until one is not skipped: in f16 gradients of the logits overflow at the first loss scale where the
// probability of a label is below 2e-4.
func findLossScale(ctx context.Context, t *train.Trainer, batch *train.Batch) error {
	const most = 16
	for range most {
		var stats colt5.CallStats
		if err := t.Measure(ctx, batch, &stats); err != nil {
			return err
		}
		records, err := t.Optimizer().Records(ctx, 0)
		if err != nil {
			return err
		}
		if len(records) > 0 && !records[len(records)-1].Skipped {
			return nil
		}
	}
	return fmt.Errorf("%d steps were skipped, one after the other: their gradients overflow", most)
}

// lossOutput is the loss of the last step and the norm of its gradients.
func lossOutput(t *train.Trainer, labels int) Output {
	var last train.Record
	known := -1 // the last step before the run
	read := func(ctx context.Context) ([]float32, []int32, error) {
		records, err := t.Optimizer().Records(ctx, 0)
		if err != nil {
			return nil, nil, err
		}
		if len(records) == 0 {
			return nil, nil, errors.New("there is no record of a step")
		}
		last = records[len(records)-1]
		return []float32{float32(last.Loss), float32(last.Norm)}, nil, nil
	}
	return Output{
		name: "loss and norm of the gradients",
		poison: func(ctx context.Context) error { // each step has a record of its own
			_, _, err := read(ctx)
			known = last.Step
			return err
		},
		read: read,
		check: func(context.Context, []float32) error {
			switch {
			case last.Step <= known:
				return fmt.Errorf("the last record is of step %d, which was there before the run", last.Step)
			case last.Labels != float64(labels):
				return fmt.Errorf("the step had %v labels, want %d", last.Labels, labels)
			case last.Skipped, !(last.Loss > 0), !(last.Norm > 0):
				return fmt.Errorf("the record is %+v, want a step that changed the parameters, with a loss and a norm above 0", last)
			}
			return nil
		},
	}
}

// updatedParameters is the parameters, most of which a step changes.
func updatedParameters(list []colt5.Parameter) Output {
	var before []float32
	return Output{
		name: "parameters",
		read: func(ctx context.Context) ([]float32, []int32, error) { return readAll(ctx, list) },
		poison: func(ctx context.Context) (err error) {
			before, _, err = readAll(ctx, list)
			return err
		},
		check: func(_ context.Context, all []float32) error {
			changed := 0
			for i, x := range all {
				if x != before[i] {
					changed++
				}
			}
			if 2*changed < len(all) {
				return fmt.Errorf("the step changed %d of %d elements, want most", changed, len(all))
			}
			return nil
		},
	}
}
