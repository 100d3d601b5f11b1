// Package evaluate holds the command that computes the loss of a model on files.
package evaluate

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/colt5-vulkan/colt5/cmd/colt5/internal/history"
	"github.com/colt5-vulkan/colt5/cmd/colt5/internal/model"
	"github.com/colt5-vulkan/colt5/cmd/colt5/internal/settings"
	"github.com/colt5-vulkan/colt5/internal/cli/command"
	"github.com/colt5-vulkan/colt5/internal/cli/table"
	"github.com/colt5-vulkan/colt5/train"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/urfave/cli/v3"
)

const description = `The model is a checkpoint, the newest one of a folder of colt5 train, or a file of weights that colt5 train has
saved. With -held-out, the files are those that the model was trained with, and the part is used that was held out.

A language model predicts every byte of the files but the first, in windows of -length bytes; -overlap says how many
bytes a prediction sees at least, as far as there are as many. The files are read as one text. A classifier is
evaluated with the first -length bytes of each document.`

// Command evaluates a model.
func Command(env *command.Env) *cli.Command {
	return &cli.Command{
		Name: "eval", Usage: "compute bits per byte of files, or the accuracy of a classifier",
		ArgsUsage: "FOLDER|FILE FILE|FOLDER...", Description: description,
		Flags: []cli.Flag{
			command.DeviceFlag(), command.OutputFlag(),
			&cli.BoolFlag{Name: "held-out", Usage: "only the part of the files that was held out from training"},
			&cli.IntFlag{Name: "length", HideDefault: true, Usage: "`BYTES` of a window or a document (default: as in training)"},
			&cli.IntFlag{Name: "batch", HideDefault: true, Usage: "`ITEMS` of a call (default: as in training)"},
			&cli.IntFlag{Name: "overlap", Usage: "`BYTES` of a window that the one before has too"},
		},
		Action: func(ctx context.Context, c *cli.Command) error {
			e, err := parse(c)
			if err != nil {
				return err
			}
			out, err := e.table(env, c)
			if err != nil {
				return err
			}
			return env.WithDevice(c, func(dev *vk.Device) error { return e.run(ctx, env, out, dev) })
		},
	}
}

// evaluation is what is evaluated.
type evaluation struct {
	source model.Source
	pass   model.Pass
	what   string // files and bytes, or documents
}

func parse(c *cli.Command) (e evaluation, err error) {
	args := c.Args().Slice()
	if len(args) < 2 {
		return e, command.Usagef("eval needs a model and files")
	}
	if e.source, err = model.Find(args[0]); err != nil {
		return e, err
	}
	config := e.source.Config
	o := train.BatchOptions{Items: config.Batch, Length: config.Length}
	for _, f := range []struct {
		name string
		to   *int
	}{{"length", &o.Length}, {"batch", &o.Items}} {
		if !c.IsSet(f.name) {
			continue
		}
		if *f.to = c.Int(f.name); *f.to < 1 || *f.to > math.MaxInt32 {
			return e, command.Usagef("-%s is %d, want 1 to %d", f.name, *f.to, math.MaxInt32)
		}
	}
	if n := c.Int("overlap"); n < 0 || n >= o.Length {
		return e, command.Usagef("-overlap is %d, want 0 to %d", n, o.Length-1)
	}
	switch {
	case config.Task == settings.LM:
		err = e.openText(args[1:], args[0], c.Bool("held-out"), o, c.Int("overlap"))
	case len(args) > 2:
		err = fmt.Errorf("a classifier is evaluated with one file, but got %q too", args[2])
	default:
		err = e.openDocuments(args[1], c.Bool("held-out"), o)
	}
	if err != nil {
		return e, command.AsUsage(err)
	}
	return e, nil
}

var errNothingHeldOut = errors.New("-held-out: the training held nothing out of these files, as its remarks say; evaluate other files, without -held-out")

func (e *evaluation) openText(names []string, out string, heldOut bool, o train.BatchOptions, overlap int) error {
	d := e.source.Config.Data
	if !heldOut {
		d.HeldOut = 0
	}
	text, held, err := d.OpenCorpus(names, out)
	if err != nil {
		return err
	}
	if heldOut {
		if d.Fingerprint != text.Fingerprint() {
			return errors.New("-held-out needs the files of the training, but their names or sizes differ")
		}
		if text = held; text.Size() < 2 {
			return errNothingHeldOut
		}
	}
	e.what = fmt.Sprintf("%s, %s", command.Count(len(text.Files()), "file"), command.Count(int(text.Size()), "byte"))
	e.pass, err = train.NewWindows(text, o, overlap)
	return err
}

func (e *evaluation) openDocuments(name string, heldOut bool, o train.BatchOptions) error {
	d := e.source.Config.Data
	if !heldOut {
		d.HeldOut = 0
	}
	list, held, err := d.OpenDocuments(name, e.source.Config.Classes)
	if err != nil {
		return err
	}
	if heldOut {
		if list = held; list.Len() == 0 {
			return errNothingHeldOut
		}
	}
	e.what = command.Count(list.Len(), "document")
	e.pass, err = train.NewDocumentPass(list, o)
	return err
}

// table starts the table.
func (e evaluation) table(env *command.Env, c *cli.Command) (*table.Table, error) {
	columns := []table.Column{table.Text("data", "data", 0), table.Number("predictions", "predictions", 0), table.Number("loss", "loss (nats)", 0)}
	if e.source.Config.Task == settings.Classifier {
		columns = append(columns, table.Number("accuracy", "accuracy", 0))
	} else {
		columns = append(columns, table.Number("bits_per_byte", "bits per byte", 0))
	}
	return env.Table(c, columns...)
}

// run evaluates, and writes the row of the table.
func (e evaluation) run(ctx context.Context, env *command.Env, out *table.Table, dev *vk.Device) error {
	loss, err := e.loss(ctx, env, dev)
	if err != nil {
		return command.InterruptedBy(ctx, err)
	}
	var result any = history.Bits(loss.Mean())
	if e.source.Config.Task == settings.Classifier {
		result = table.Share(float64(loss.Correct) / float64(max(loss.Labels, 1)))
	}
	out.Row(e.what, loss.Labels, loss.Mean(), result)
	return out.Close()
}

func (e evaluation) loss(ctx context.Context, env *command.Env, dev *vk.Device) (loss model.Loss, err error) {
	m, err := e.source.Open(ctx, dev)
	if err != nil {
		return loss, err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	bar := env.Progress(int(e.pass.Steps()))
	defer bar.Finish()
	bar.Describe("evaluating")
	return m.Evaluate(ctx, e.pass, 0, bar.Step)
}
