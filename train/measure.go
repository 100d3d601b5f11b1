package train

import (
	"context"
	"errors"
	"fmt"

	"github.com/colt5-vulkan/colt5/colt5"
	"github.com/colt5-vulkan/colt5/vk"
)

// Measure is Step, but waits for the step, and tells what it cost: stats.Time is the sum of the GPU times of the graph's runs
// and of the optimiser. Their steps, work and barriers are in the order of submission; Workspace is that of the graph. The
// nodes are those of the graph's runs, one after another.
func (t *Trainer) Measure(ctx context.Context, b *Batch, stats *colt5.CallStats) error {
	if err := t.measure(ctx, b, stats); err != nil {
		return fmt.Errorf("train: Trainer.Measure: %w", err)
	}
	return nil
}

func (t *Trainer) measure(ctx context.Context, b *Batch, stats *colt5.CallStats) error {
	if stats == nil {
		return errors.New("stats is nil, want the place for the statistics")
	}
	profile := stats.Profile
	*stats = colt5.CallStats{Profile: profile}
	batch, err := t.next(ctx, b)
	if err != nil {
		return err
	}
	lists, err := t.listsFor(profile)
	if err != nil {
		return err
	}
	for i, tensors := range batch.tensors {
		run := colt5.CallStats{Profile: profile}
		o := batch.options[i]
		o.Stats = &run
		if err := t.graph.Run(ctx, tensors, o); err != nil {
			return err
		}
		addRun(stats, run)
		if lists[i].Steps() == 0 {
			continue
		}
		if err := lists[i].Run(ctx); err != nil {
			return err
		}
		if err := addList(stats, lists[i]); err != nil {
			return err
		}
	}
	t.finish()
	return nil
}

// listsFor is the command lists of the optimiser. Those that time every step are made when they are needed first.
func (t *Trainer) listsFor(profile bool) ([]*vk.CommandList, error) {
	if !profile {
		return t.lists, nil
	}
	for i := len(t.profiled); i < len(t.lists); i++ {
		list, err := t.dev.NewCommandList(vk.CommandListConfig{Name: "optimiser", Profile: true})
		if err != nil {
			return nil, err
		}
		if err := t.record(list, i); err != nil {
			return nil, errors.Join(err, list.Close())
		}
		t.profiled = append(t.profiled, list)
	}
	return t.profiled, nil
}

// addRun adds the cost of a run of the graph.
func addRun(to *colt5.CallStats, run colt5.CallStats) {
	for _, n := range run.Nodes {
		n.FirstStep += len(to.StepNames)
		to.Nodes = append(to.Nodes, n)
	}
	to.Time += run.Time
	to.Flops += run.Flops
	to.Bytes += run.Bytes
	to.Workspace = max(to.Workspace, run.Workspace)
	to.Barriers += run.Barriers
	to.StepNames = append(to.StepNames, run.StepNames...)
	to.StepTimes = append(to.StepTimes, run.StepTimes...)
}

// addList adds the cost of a command list's last run.
func addList(to *colt5.CallStats, list *vk.CommandList) error {
	flops, bytes := list.Work()
	run := colt5.CallStats{Flops: flops, Bytes: bytes, Barriers: list.Barriers(), StepNames: list.StepNames()}
	if list.Device().Caps().TimestampNanoseconds > 0 {
		var err error
		if run.Time, err = list.Elapsed(); err == nil && to.Profile {
			run.StepTimes, err = list.StepTimes()
		}
		if err != nil {
			return err
		}
	}
	addRun(to, run)
	return nil
}
