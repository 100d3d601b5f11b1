package train

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/colt5-vulkan/colt5/colt5"
	"github.com/colt5-vulkan/colt5/vk"
)

// Trainer runs training steps: a graph forward and backward, and an Optimizer.
//
//	g := colt5.NewGraph(dev)
//	logits := g.Value("logits")
//	err := model.Forward(ctx, logits, g.Input("ids", colt5.U8, 0, 0), colt5.AutoregressiveOptions{})
//	g.Output("loss", g.CrossEntropy(logits, g.Input("labels", colt5.I32, 0, 0)))
//	trainer, err := train.NewTrainer(ctx, g, model.Parameters(), train.OptimizerConfig{Clip: 1})
//	defer trainer.Close()
//	for range 1000 {
//		batch, err := loader.Next(ctx)
//		err = trainer.Step(ctx, batch)
//	}
//	records, err := trainer.Optimizer().Records(ctx, 0)
//
// The inputs of the graph are those of a Batch that it has: "ids" u8 [items, length], "mask" u8 [items, length], "labels" i32
// [items, length] or [items], and "targets" f32 [items, n]. Its output "loss" f32 [2] is the sum of the losses and the count of
// labels or elements, as Graph.CrossEntropy and Graph.MeanSquaredError compute them. Parameters that are not in the list stay as they are.
//
// A step is submitted, and not waited for: while the device computes it, the host prepares and uploads the next batch. A Trainer is used by
// one goroutine at a time. Dropout is on, with the number of the step. Nodes with random routing get the number of the step as GraphOptions.RandomSeed; in micro-batches
// they select other tokens than in one batch.
type Trainer struct {
	dev        *vk.Device
	graph      *colt5.Graph
	optimizer  *Optimizer
	parameters []colt5.Parameter
	gradients  []*colt5.Gradients // by micro-batch
	losses     []*colt5.Tensor
	upstream   *colt5.Tensor // the loss scale, and 0
	lists      []*vk.CommandList
	profiled   []*vk.CommandList // the same, timing every step; none before Measure needs them
	batches    [2]trainerBatch   // of the step that runs, and of the next one
	steps      int               // with those before Load

	items, length, labels, targets int // of the first batch
	masked                         bool
}

// NewTrainer makes a trainer and its optimiser. The graph and the modules stay the caller's.
func NewTrainer(ctx context.Context, graph *colt5.Graph, parameters []colt5.Parameter, c OptimizerConfig) (*Trainer, error) {
	t := &Trainer{graph: graph}
	if err := t.usable(ctx); err != nil {
		return nil, fmt.Errorf("train: NewTrainer: %w", err)
	}
	if err := t.make(ctx, parameters, c); err != nil {
		return nil, errors.Join(fmt.Errorf("train: NewTrainer: %w", err), t.Close())
	}
	return t, nil
}

// usable returns an error for a trainer that NewTrainer has not made, and for a nil context.
func (t *Trainer) usable(ctx context.Context) error {
	switch {
	case t == nil || t.graph == nil:
		return errors.New("the graph is nil, want one made by colt5.NewGraph")
	case ctx == nil:
		return errors.New("the context is nil")
	}
	return nil
}

func (t *Trainer) make(ctx context.Context, parameters []colt5.Parameter, c OptimizerConfig) error {
	if len(parameters) == 0 {
		return errors.New("there are no parameters, want at least one")
	}
	t.dev = parameters[0].Tensor.Device()
	if t.dev == nil {
		return fmt.Errorf("parameter %s has no memory, want a module on a device", parameters[0].Name)
	}
	var list []Parameter
	seen := map[vk.Range]bool{}
	for _, p := range parameters {
		if r := p.Tensor.Range(); !seen[r] { // modules may share a parameter
			seen[r] = true
			t.parameters = append(t.parameters, p)
			list = append(list, Parameter{Name: p.Name, Shape: p.Tensor.Shape(), Data: r})
		}
	}
	var err error
	if t.optimizer, err = NewOptimizer(ctx, t.dev, list, c); err != nil {
		return err
	}
	if t.upstream, err = colt5.FromSlice(ctx, t.dev, make([]float32, 4), 4); err != nil {
		return err
	}
	for i := range t.optimizer.Config().MicroBatches {
		if err := t.addMicroBatch(i); err != nil {
			return err
		}
	}
	return t.copyLossScale(ctx)
}

// addMicroBatch makes the gradients of a micro-batch, and records what follows its backward pass.
func (t *Trainer) addMicroBatch(i int) error {
	o := t.optimizer
	memory := o.Gradients(i)
	flat, err := colt5.TensorAt(memory, colt5.F32, int(memory.Size()/4))
	if err != nil {
		return err
	}
	var g *colt5.Gradients
	if i == 0 {
		g, err = colt5.NewGradientsAt(flat, t.parameters)
	} else {
		g, err = t.gradients[0].At(flat)
	}
	if err != nil {
		return err
	}
	t.gradients = append(t.gradients, g)
	loss, err := colt5.TensorAt(o.Loss(i), colt5.F32, 2)
	if err != nil {
		return err
	}
	t.losses = append(t.losses, loss)
	list, err := t.dev.NewCommandList(vk.CommandListConfig{Name: "optimiser"})
	if err != nil {
		return err
	}
	t.lists = append(t.lists, list)
	return t.record(list, i)
}

// record records what follows the backward pass of a micro-batch: of the last one, the optimiser's step too.
func (t *Trainer) record(list *vk.CommandList, i int) error {
	o := t.optimizer
	if err := o.RecordGradients(list, i); err != nil || i < o.Config().MicroBatches-1 {
		return err
	}
	if err := o.RecordStep(list); err != nil {
		return err
	}
	return list.Copy(t.upstream.Range().Slice(0, 4), o.LossScale())
}

// copyLossScale copies the loss scale to the upstream gradient, which a step does at its end for the next one.
func (t *Trainer) copyLossScale(ctx context.Context) error {
	list, err := t.dev.NewCommandList(vk.CommandListConfig{Name: "loss scale"})
	if err != nil {
		return err
	}
	err = list.Copy(t.upstream.Range().Slice(0, 4), t.optimizer.LossScale())
	if err == nil {
		err = list.Run(ctx)
	}
	return errors.Join(err, list.Close())
}

// Optimizer is the trainer's optimiser, for its records and its state. The trainer closes it.
func (t *Trainer) Optimizer() *Optimizer { return t.optimizer }

// Load loads the state of the optimiser, as Optimizer.Load does. The caller loads the weights.
func (t *Trainer) Load(ctx context.Context, path string) error {
	if err := t.Wait(ctx); err != nil {
		return err
	}
	if err := t.optimizer.Load(ctx, path); err != nil {
		return err
	}
	s, err := t.optimizer.State(ctx)
	if err == nil {
		t.steps = s.Steps
		err = t.copyLossScale(ctx)
	}
	if err != nil {
		return fmt.Errorf("train: Trainer.Load: %w", err)
	}
	return nil
}

// Step submits a step on a batch. All batches of a trainer have the same sizes; the items are a multiple of
// OptimizerConfig.MicroBatches. A label that is no class, and what else only the device notices, is an error of a later Step
// or of Wait. A Step that fails has changed no parameters: the same batch may be tried again.
func (t *Trainer) Step(ctx context.Context, b *Batch) error {
	if err := t.step(ctx, b, nil); err != nil {
		return fmt.Errorf("train: Trainer.Step: %w", err)
	}
	return nil
}

// StepReplay is Step with the lists that the routers use in place of their own selection, for comparisons: see
// [colt5.GraphOptions]. The records are of the whole batch, also where it has several micro-batches. They are uploaded before the
// step is submitted.
func (t *Trainer) StepReplay(ctx context.Context, b *Batch, records []colt5.RoutingRecord) error {
	err := errors.New("there are no records, want those of all routers")
	if len(records) > 0 {
		err = t.step(ctx, b, records)
	}
	if err != nil {
		return fmt.Errorf("train: Trainer.StepReplay: %w", err)
	}
	return nil
}

func (t *Trainer) step(ctx context.Context, b *Batch, replay []colt5.RoutingRecord) error {
	batch, err := t.next(ctx, b)
	if err != nil {
		return err
	}
	for i, tensors := range batch.tensors {
		options := batch.options[i]
		if options.Replay, err = partOfRecords(replay, i, len(t.lists)); err != nil {
			return err
		}
		if err := t.graph.Submit(ctx, tensors, options); err != nil {
			return err
		}
		if t.lists[i].Steps() == 0 { // the gradients wait for those of the next micro-batch
			continue
		}
		if err := t.lists[i].Submit(ctx); err != nil {
			return err
		}
	}
	t.finish()
	return nil
}

// next submits the upload of the batch of the next step.
func (t *Trainer) next(ctx context.Context, b *Batch) (*trainerBatch, error) {
	if err := t.usable(ctx); err != nil {
		return nil, err
	}
	if err := t.prepare(b); err != nil {
		return nil, err
	}
	batch := &t.batches[t.steps%2]
	if err := batch.fill(ctx, b); err != nil {
		return nil, err
	}
	for i := range batch.tensors {
		batch.options[i].RandomSeed = uint64(t.steps)
		*batch.options[i].Dropout = colt5.Dropout{
			Seed: t.optimizer.Config().DropoutSeed, Step: uint32(t.steps), FirstItem: uint32(i * b.Items / len(batch.tensors)),
		}
	}
	return batch, nil
}

// finish ends a step that was submitted or run.
func (t *Trainer) finish() {
	for _, p := range t.parameters {
		p.Tensor.Changed()
	}
	t.steps++
}

// prepare makes the tensors of the first batch, and compares the sizes of the others with it.
func (t *Trainer) prepare(b *Batch) error {
	if err := t.checkBatch(b); err != nil {
		return err
	}
	if t.items > 0 {
		return t.compareBatch(b)
	}
	parts := len(t.lists)
	var made [2]trainerBatch
	for n := range made {
		for i := range parts {
			if err := t.makeTensors(&made[n], b, i, b.Items/parts); err != nil {
				return errors.Join(err, made[0].close(), made[1].close())
			}
		}
		if err := made[n].open(t.dev); err != nil {
			return errors.Join(err, made[0].close(), made[1].close())
		}
	}
	t.batches, t.items, t.length, t.labels, t.targets, t.masked = made, b.Items, b.Length, len(b.Labels), len(b.Targets), b.Mask != nil
	return nil
}

// checkBatch checks that the slices of a batch have the sizes that it names.
func (t *Trainer) checkBatch(b *Batch) error {
	parts := len(t.lists)
	if b == nil || b.Items < 1 || b.Length < 1 {
		return errors.New("the batch is empty, want at least one item")
	}
	if b.Items%parts != 0 {
		return fmt.Errorf("the batch has %d items, want a multiple of MicroBatches, %d", b.Items, parts)
	}
	if b.Items > math.MaxInt32/b.Length {
		return fmt.Errorf("the batch has %d items of %d bytes, want at most %d bytes", b.Items, b.Length, math.MaxInt32)
	}
	all := b.Items * b.Length
	switch {
	case t.graph.HasInput("ids") && len(b.IDs) != all:
		return fmt.Errorf("the batch has %d IDs, want Items * Length, %d", len(b.IDs), all)
	case b.Mask != nil && len(b.Mask) != all:
		return fmt.Errorf("the batch has a Mask of %d, want Items * Length, %d", len(b.Mask), all)
	case t.graph.HasInput("labels") && len(b.Labels) != all && len(b.Labels) != b.Items:
		return fmt.Errorf("the batch has %d Labels, want Items * Length or Items, %d or %d", len(b.Labels), all, b.Items)
	case t.graph.HasInput("targets") && (len(b.Targets) == 0 || len(b.Targets)%b.Items != 0):
		return fmt.Errorf("the batch has %d Targets, want a multiple of Items, %d", len(b.Targets), b.Items)
	}
	return nil
}

// compareBatch compares the sizes of a batch with those of the first one.
func (t *Trainer) compareBatch(b *Batch) error {
	switch {
	case t.items != b.Items || t.length != b.Length:
		return fmt.Errorf("the batch has %d items of %d bytes, want %d of %d, as the first one", b.Items, b.Length, t.items, t.length)
	case t.labels != len(b.Labels):
		return fmt.Errorf("the batch has %d Labels, want %d, as the first one", len(b.Labels), t.labels)
	case t.targets != len(b.Targets):
		return fmt.Errorf("the batch has %d Targets, want %d, as the first one", len(b.Targets), t.targets)
	case t.masked != (b.Mask != nil):
		return fmt.Errorf("the batch has a Mask of %d, want a Mask in all batches or in none", len(b.Mask))
	}
	return nil
}

// partOfRecords is the lists of the items of micro-batch i.
func partOfRecords(records []colt5.RoutingRecord, i, parts int) ([]colt5.RoutingRecord, error) {
	if parts == 1 || records == nil {
		return records, nil
	}
	list := make([]colt5.RoutingRecord, 0, len(records))
	for _, r := range records {
		if r.Lists%parts != 0 || len(r.Indices) != r.Lists*r.K || len(r.Scores) != r.Lists*r.K {
			return nil, fmt.Errorf("the record of %s has %d lists of %d slots, %d Indices and %d Scores, want a multiple of MicroBatches, %d, lists, and as many of both as slots",
				r.Router, r.Lists, r.K, len(r.Indices), len(r.Scores), parts)
		}
		r.Indices, r.Scores, r.Lists = part(r.Indices, i, parts), part(r.Scores, i, parts), r.Lists/parts
		list = append(list, r)
	}
	return list, nil
}

// Wait waits for the steps that were submitted.
func (t *Trainer) Wait(ctx context.Context) error {
	if err := t.usable(ctx); err != nil {
		return fmt.Errorf("train: Trainer.Wait: %w", err)
	}
	err := t.graph.Wait(ctx)
	for _, l := range t.lists {
		err = errors.Join(err, l.Wait(ctx))
	}
	for i := range t.batches {
		if upload := t.batches[i].upload; upload != nil { // none before the first step
			err = errors.Join(err, upload.Wait(ctx))
		}
	}
	if err != nil {
		return fmt.Errorf("train: Trainer.Wait: %w", err)
	}
	return nil
}

// Close frees the trainer and its optimiser, after the steps that were submitted. Closing again, or nil, does nothing.
func (t *Trainer) Close() error {
	if t == nil {
		return nil
	}
	var err error
	for _, l := range slices.Concat(t.lists, t.profiled) {
		err = errors.Join(err, l.Close())
	}
	for i := range t.batches {
		err = errors.Join(err, t.batches[i].close())
	}
	for _, g := range t.gradients {
		err = errors.Join(err, g.Close())
	}
	for _, l := range t.losses {
		err = errors.Join(err, l.Close())
	}
	return errors.Join(err, t.upstream.Close(), t.optimizer.Close())
}
