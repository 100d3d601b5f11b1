package training

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/colt5-vulkan/colt5/cmd/colt5/internal/history"
	"github.com/colt5-vulkan/colt5/cmd/colt5/internal/model"
	"github.com/colt5-vulkan/colt5/cmd/colt5/internal/settings"
	"github.com/colt5-vulkan/colt5/internal/cli/command"
	"github.com/colt5-vulkan/colt5/internal/cli/progress"
	"github.com/colt5-vulkan/colt5/internal/cli/table"
	"github.com/colt5-vulkan/colt5/train"
	"github.com/colt5-vulkan/colt5/vk"
)

// runner is a run of the command.
type runner struct {
	env       *command.Env
	config    settings.Config
	out, init string
	data      data
	replay    *replay // nil: the routers select

	dev         *vk.Device
	checkpoints *train.Checkpoints
	model       *model.Model
	trainer     *train.Trainer
	history     *history.History
	bar         *progress.Bar
	step        int64 // steps that were submitted, with those of the runs before
	saved       int64 // step of the newest checkpoint; -1: none
	pace        pace
}

func (r *runner) printConfig() error {
	text, err := json.MarshalIndent(r.config, "", "  ")
	if err == nil {
		_, err = fmt.Fprintf(r.env.Stdout, "%s\n", text)
	}
	return err
}

// run trains until the end or a signal.
func (r *runner) run(ctx context.Context, dev *vk.Device) (err error) {
	r.dev, r.saved = dev, -1
	work := context.WithoutCancel(ctx) // a signal does not interrupt a step
	defer func() { err = errors.Join(err, r.close()) }()
	if err := r.start(work); err != nil {
		return err
	}
	r.bar = r.env.Progress(r.config.Run.Steps)
	defer r.bar.Finish()
	if err := command.InterruptedBy(ctx, r.steps(ctx, work)); err != nil && !errors.Is(err, command.ErrInterrupted) {
		return err
	}
	if err := r.finish(ctx, work); err != nil {
		return err
	}
	return command.Interrupted(ctx)
}

// start makes the model and the optimiser, new or as the newest checkpoint has them.
func (r *runner) start(ctx context.Context) error {
	c := r.config
	var err error
	r.checkpoints, err = train.OpenCheckpoints(r.out, train.CheckpointOptions{Config: c.Identity(), Keep: c.Run.Keep})
	if err != nil {
		return err
	}
	last, err := r.checkpoints.Latest()
	if errors.Is(err, train.ErrNoCheckpoint) {
		last, err = nil, nil
	}
	if err != nil {
		return command.AsUsage(err)
	}
	if r.model, err = model.New(ctx, r.dev, c); err == nil {
		r.trainer, err = train.NewTrainer(ctx, r.model.Graph, r.model.Parameters, c.OptimizerConfig())
	}
	switch {
	case errors.Is(err, vk.ErrOutOfMemory) || errors.Is(err, vk.ErrDeviceLost):
		return err
	case err != nil:
		return command.AsUsage(err)
	}
	r.history = &history.History{}
	about := "a new run"
	switch {
	case last != nil:
		if err := r.resume(ctx, last); err != nil {
			return err
		}
		about = fmt.Sprintf("resumed after step %d", r.step)
		if r.init != "" {
			about += "; -init has no effect"
		}
	case r.init != "":
		if err := r.model.Load(ctx, r.init); err != nil {
			return command.Usagef("-init %s: %w", r.init, err)
		}
	}
	parameters := 0
	for _, p := range r.model.Parameters {
		parameters += p.Tensor.Len()
	}
	r.remark("%s; %s; %s parameters on %s", r.data.about, about, table.Thousands(fmt.Sprint(parameters)), r.dev.Info().Name)
	return nil
}

// resume continues from a checkpoint.
func (r *runner) resume(ctx context.Context, c *train.Checkpoint) error {
	h, err := history.Read(c.Path, c.Step)
	if err == nil {
		err = r.model.Load(ctx, c.File(model.WeightsFile))
	}
	if err == nil {
		err = r.trainer.Load(ctx, c.File(model.OptimizerFile))
	}
	if err != nil {
		return fmt.Errorf("checkpoint %s: %w", c.Path, err)
	}
	r.history, r.step, r.saved = h, c.Step, c.Step
	return nil
}

// steps runs the remaining steps, or those until ctx ends.
func (r *runner) steps(ctx, work context.Context) (err error) {
	run, total := r.config.Run, int64(r.config.Run.Steps)
	if r.step >= total {
		r.remark("all %d steps are done; -steps sets more", r.step)
		return nil
	}
	loader := train.NewLoader(ctx, r.data.batches, r.step, 0)
	defer func() { err = errors.Join(err, loader.Close()) }()
	r.bar.Set(int(r.step))
	r.pace.restart(r.step)
	for r.step < total {
		b, err := loader.Next(ctx)
		if err != nil {
			return err
		}
		if err := r.runStep(work, b); err != nil {
			return err
		}
		r.step++
		due := func(every int) bool { return every > 0 && r.step%int64(every) == 0 }
		evaluate, save := due(run.EvaluateEvery), due(run.SaveEvery)
		if evaluate || save || r.pace.due(r.step) {
			if err := r.readRecords(work); err != nil {
				return err
			}
		}
		if evaluate {
			if err := r.evaluate(ctx, work); err != nil {
				return err
			}
		}
		if save {
			if err := r.save(work); err != nil {
				return err
			}
		}
	}
	return nil
}

// runStep submits a step.
func (r *runner) runStep(ctx context.Context, b *train.Batch) error {
	if r.replay == nil {
		return r.trainer.Step(ctx, b)
	}
	records, err := r.replay.step(r.step)
	if err != nil {
		return fmt.Errorf("-replay: %w", err)
	}
	return r.trainer.StepReplay(ctx, b, records)
}

// finish evaluates at the end of the run, and writes a checkpoint and the files, also after a signal.
func (r *runner) finish(ctx, work context.Context) error {
	if err := r.readRecords(work); err != nil {
		return err
	}
	evaluations := r.history.Evaluations
	done := len(evaluations) > 0 && evaluations[len(evaluations)-1].Step == r.step
	if ctx.Err() == nil && !done {
		err := command.InterruptedBy(ctx, r.evaluate(ctx, work))
		if err != nil && !errors.Is(err, command.ErrInterrupted) {
			return err
		}
	}
	if r.saved != r.step {
		if err := r.save(work); err != nil {
			return err
		}
	}
	if err := r.writeFiles(); err != nil {
		return err
	}
	r.bar.Finish()
	return r.printFiles()
}

const mostSkipped = 100 // steps in a row

// readRecords waits for the steps so far and adds their records to the history.
func (r *runner) readRecords(ctx context.Context) error {
	if err := r.trainer.Wait(ctx); err != nil {
		return err
	}
	have := len(r.history.Steps)
	list, err := r.trainer.Optimizer().Records(ctx, have)
	if err != nil {
		return err
	}
	if have+len(list) != int(r.step) {
		return fmt.Errorf("internal error: there are %d records after %d, want %d", len(list), have, r.step-int64(have))
	}
	r.history.Steps = append(r.history.Steps, list...)
	r.bar.Set(int(r.step))
	r.pace.add(r.step)
	r.bar.Describe(r.status())
	skipped := 0
	for i := len(r.history.Steps) - 1; i >= 0 && r.history.Steps[i].Skipped; i-- {
		skipped++
	}
	if skipped >= mostSkipped {
		return fmt.Errorf("the gradients of the last %d steps had an infinity or a NaN, and changed nothing: a lower -rate may help", skipped)
	}
	return nil
}

// status is the text of the bar: the mean loss of the last steps, the rate, and the time left.
func (r *runner) status() string {
	steps := r.history.Steps
	recent := history.Bits(history.Mean(steps[max(len(steps)-20, 0):]))
	unit := map[settings.Task]string{settings.LM: "bits/byte", settings.Classifier: "bits/document"}[r.config.Task]
	text := fmt.Sprintf("%.3f %s", recent, unit)
	if rate := r.pace.rate; rate > 0 {
		left := time.Duration(float64(int64(r.config.Run.Steps)-r.step) / rate * float64(time.Second))
		text += fmt.Sprintf("  %s/s  %s left", table.Size(rate*float64(r.config.Batch*r.config.Length)), left.Round(time.Second))
	}
	return text
}

// save writes a checkpoint.
func (r *runner) save(ctx context.Context) error {
	err := r.checkpoints.Save(r.step, nil, func(dir string) error {
		return errors.Join(r.model.Save(ctx, filepath.Join(dir, model.WeightsFile)),
			r.trainer.Optimizer().Save(ctx, filepath.Join(dir, model.OptimizerFile)), r.history.Write(dir))
	})
	if err == nil {
		r.saved = r.step
	}
	return err
}

// remark prints a line to stderr.
func (r *runner) remark(format string, args ...any) {
	if r.bar != nil {
		r.bar.Clear()
	}
	fmt.Fprintf(r.env.Stderr, format+"\n", args...)
}

func (r *runner) close() error {
	return errors.Join(r.trainer.Close(), r.model.Close(), r.checkpoints.Close(), r.replay.close())
}
