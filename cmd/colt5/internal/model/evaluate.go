package model

import (
	"context"
	"errors"

	"github.com/colt5-vulkan/colt5/colt5"
	"github.com/colt5-vulkan/colt5/train"
)

// Pass is batches with an end: windows of a text, or a pass over documents.
type Pass interface {
	train.Batches
	Steps() int64
}

// Loss is the sum of losses over labels.
type Loss struct {
	Sum     float64 // in nats
	Labels  int64
	Correct int64 // labels of Classifier whose logit is the largest
}

// Mean is the loss of a label, in nats; 0 without labels.
func (l Loss) Mean() float64 { return l.Sum / float64(max(l.Labels, 1)) }

// Evaluate computes the loss of at most so many batches of a pass, evenly spaced; 0: all. next is called after each.
func (m *Model) Evaluate(ctx context.Context, pass Pass, most int64, next func()) (Loss, error) {
	steps := pass.Steps()
	count := steps
	if most > 0 {
		count = min(steps, most)
	}
	e := evaluator{model: m}
	var total Loss
	var err error
	for i := int64(0); i < count && err == nil; i++ {
		var b train.Batch
		if err = ctx.Err(); err != nil {
			break
		}
		if err = pass.Batch(ctx, spread(i, count, steps), &b); err == nil {
			err = e.add(context.WithoutCancel(ctx), &total, &b)
		}
		next()
	}
	return total, errors.Join(err, e.close())
}

// spread is step i of count of a pass of so many steps.
func spread(i, count, steps int64) int64 { return i * steps / count }

// evaluator has the tensors of batches of one size.
type evaluator struct {
	model   *Model
	tensors map[string]*colt5.Tensor
}

// prepare makes the tensors.
func (e *evaluator) prepare(b *train.Batch) error {
	if e.tensors != nil {
		return nil
	}
	e.tensors = map[string]*colt5.Tensor{}
	add := func(name string, dtype colt5.DType, shape ...int) error {
		t, err := colt5.NewTensor(e.model.dev, dtype, shape...)
		if err == nil {
			e.tensors[name] = t
		}
		return err
	}
	err := errors.Join(add("ids", colt5.U8, b.Items, b.Length), add("loss", colt5.F32, 2))
	if e.model.Transformer != nil {
		return errors.Join(err, add("labels", colt5.I32, b.Items, b.Length))
	}
	return errors.Join(err, add("labels", colt5.I32, b.Items), add("mask", colt5.U8, b.Items, b.Length),
		add("logits", colt5.F32, b.Items, len(e.model.Config.Classes)))
}

// add adds the losses of a batch.
func (e *evaluator) add(ctx context.Context, to *Loss, b *train.Batch) error {
	err := e.prepare(b)
	if err == nil {
		err = errors.Join(e.tensors["ids"].Write(ctx, b.IDs), e.tensors["labels"].Write(ctx, b.Labels))
	}
	if mask := e.tensors["mask"]; mask != nil && err == nil {
		err = mask.Write(ctx, b.Mask)
	}
	if err == nil {
		err = e.model.Graph.Run(ctx, e.tensors, colt5.GraphOptions{})
	}
	if err != nil {
		return err
	}
	loss, err := e.tensors["loss"].Float32(ctx)
	if err != nil {
		return err
	}
	to.Sum += float64(loss[0])
	to.Labels += int64(loss[1])
	if t := e.tensors["logits"]; t != nil {
		logits, err := t.Float32(ctx)
		if err != nil {
			return err
		}
		to.Correct += correct(logits, b.Labels)
	}
	return nil
}

// correct counts the labels whose logit is the first of the largest.
func correct(logits []float32, labels []int32) (n int64) {
	classes := len(logits) / max(len(labels), 1)
	for i, label := range labels {
		if label == train.IgnoreLabel {
			continue
		}
		best := 0
		for c, x := range logits[i*classes : (i+1)*classes] {
			if x > logits[i*classes+best] {
				best = c
			}
		}
		if best == int(label) {
			n++
		}
	}
	return n
}

func (e *evaluator) close() error {
	var err error
	for _, t := range e.tensors {
		err = errors.Join(err, t.Close())
	}
	return err
}
