package training

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"path/filepath"
	"strings"

	"github.com/colt5-vulkan/colt5/cmd/colt5/internal/dashboard"
	"github.com/colt5-vulkan/colt5/cmd/colt5/internal/history"
	"github.com/colt5-vulkan/colt5/cmd/colt5/internal/sampling"
	"github.com/colt5-vulkan/colt5/cmd/colt5/internal/settings"
	"github.com/colt5-vulkan/colt5/colt5"
	"github.com/colt5-vulkan/colt5/internal/atomicfile"
	"github.com/colt5-vulkan/colt5/internal/cli/table"
)

// evaluate adds an evaluation to the history and writes the files. If ctx ends, it does neither.
func (r *runner) evaluate(ctx, work context.Context) error {
	e := history.Evaluation{Step: r.step}
	r.bar.Describe("evaluating")
	if r.data.pass != nil {
		loss, err := r.model.Evaluate(ctx, r.data.pass, r.data.most, func() {})
		if err != nil {
			return err
		}
		e.HeldOut, e.Labels, e.Accuracy = loss.Mean(), loss.Labels, float64(loss.Correct)/float64(max(loss.Labels, 1))
		if math.IsNaN(e.HeldOut) || math.IsInf(e.HeldOut, 0) {
			return fmt.Errorf("the held-out loss after step %d is %v", r.step, e.HeldOut)
		}
	}
	text := r.data.text[:min(len(r.data.text), r.config.Run.RoutingLength)]
	var err error
	if e.Routers, err = r.model.Route(work, text); err != nil {
		return err
	}
	e.Text = dashboard.Latin1(text)
	if err := r.sample(ctx, work, &e); err != nil {
		return err
	}
	r.history.Add(e)
	r.remark("step %d: %s", r.step, r.summary())
	r.pace.restart(r.step) // the time of an evaluation is no time of a step
	return r.writeFiles()
}

const sampleTemperature = 0.8

// sample generates the sample of an evaluation.
func (r *runner) sample(ctx, work context.Context, e *history.Evaluation) error {
	t, run := r.model.Transformer, r.config.Run
	if t == nil || run.SampleLength == 0 || !t.Config().CausalQueryRouting || r.config.Routing != "learned" {
		return nil
	}
	prompt := r.data.text[:min(len(r.data.text), run.SamplePrompt)]
	g, err := colt5.NewGenerator(work, t, len(prompt)+run.SampleLength)
	if err != nil {
		return err
	}
	defer g.Close()
	var out []byte
	o := sampling.Options{Temperature: sampleTemperature, Seed: r.config.Seed}
	next := func(token int) error { out = append(out, byte(token)); return nil }
	if err := sampling.Generate(ctx, g, prompt, run.SampleLength, o, next); err != nil {
		return err
	}
	e.Prompt, e.Sample = strings.ToValidUTF8(string(prompt), "\uFFFD"), strings.ToValidUTF8(string(out), "\uFFFD")
	return nil
}

// summary is the losses of the last evaluation.
func (r *runner) summary() string {
	e := r.history.Evaluations[len(r.history.Evaluations)-1]
	text := fmt.Sprintf("training %.4f", history.Bits(e.Training))
	if e.Labels > 0 {
		text += fmt.Sprintf(", held out %.4f", history.Bits(e.HeldOut))
	}
	text += " " + dashboard.Unit(r.config.Task)
	if r.config.Task == settings.Classifier && e.Labels > 0 {
		text += fmt.Sprintf(", accuracy %.1f %%", 100*e.Accuracy)
	}
	if rate := r.pace.rate; rate > 0 {
		text += fmt.Sprintf(", %s/s", table.Size(rate*float64(r.config.Batch*r.config.Length)))
	}
	return text
}

// writeFiles writes the losses, the chart and the page, each file as a whole.
func (r *runner) writeFiles() error {
	if err := r.history.Write(r.out); err != nil {
		return err
	}
	run := dashboard.Run{Config: r.config, History: r.history, Facts: []dashboard.Fact{
		{Label: "device", Value: r.dev.Info().Name}, {Label: "data", Value: r.data.about},
	}}
	if len(r.history.Steps) > 0 {
		png, err := dashboard.PNG(run)
		if err == nil {
			err = atomicfile.Write(filepath.Join(r.out, dashboard.ChartFile), png)
		}
		if err != nil {
			return err
		}
	}
	config, err := json.MarshalIndent(r.config, "", "  ")
	if err != nil {
		return err
	}
	var page bytes.Buffer
	if err := dashboard.Write(&page, run, config); err != nil {
		return err
	}
	return atomicfile.Write(filepath.Join(r.out, dashboard.PageFile), page.Bytes())
}

// printFiles prints the paths of what the run wrote.
func (r *runner) printFiles() error {
	names := []string{fmt.Sprintf("step-%012d", r.step), history.LossesFile, history.EvaluationsFile, dashboard.PageFile}
	if len(r.history.Steps) > 0 {
		names = append(names, dashboard.ChartFile)
	}
	for _, name := range names {
		if _, err := fmt.Fprintln(r.env.Stdout, filepath.Join(r.out, name)); err != nil {
			return err
		}
	}
	return nil
}
