package settings

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"strings"

	"github.com/colt5-vulkan/colt5/colt5"
	"github.com/colt5-vulkan/colt5/internal/cli/command"
	"github.com/colt5-vulkan/colt5/internal/cli/input"
	"github.com/urfave/cli/v3"
)

// flag is a flag that sets a value of a Config.
type flag struct {
	name, usage string
	task        Task // that has it; empty: all
	target      func(c *Config) any
}

// flags are all flags of a Config, in the order of the help text. A target is nil in a task that does not have it.
var flags = []flag{
	{"dim", "`C`, elements of a token's vector", "", func(c *Config) any { return either(c, &c.lm().Dim, &c.enc().Dim) }},
	{"depth", "`LAYERS` of the model", "", func(c *Config) any { return either(c, &c.lm().Depth, &c.enc().Depth) }},
	{"heads", "`HEADS` of the light and the heavy attention", "", func(c *Config) any {
		return either(c, []*int{&c.lm().LightHeads, &c.lm().HeavyHeads}, []*int{&c.enc().LightHeads, &c.enc().HeavyHeads})
	}},
	{"dim-head", "`D`, elements of a head", "", func(c *Config) any {
		return either(c, []*int{&c.lm().LightDimHead, &c.lm().HeavyDimHead}, []*int{&c.enc().LightDimHead, &c.enc().HeavyDimHead})
	}},
	{"window", "`BYTES` of a window of the light attention; of lm also of a window of routing", "", func(c *Config) any {
		return either(c, &c.lm().LightWindowSize, &c.enc().LightWindowSize)
	}},
	{"q", "`N` bytes that are routed as queries: of lm in each window", "", func(c *Config) any {
		return either(c, &c.lm().NumHeavyTokensQ, &c.enc().NumHeavyAttnTokensQ)
	}},
	{"kv", "`N` bytes that are routed as keys and values, for each route", "", func(c *Config) any {
		return either(c, &c.lm().NumHeavyTokensKV, &c.enc().NumHeavyAttnTokensKV)
	}},
	{"ff", "`N` bytes that are routed to the heavy feedforward", Classifier, func(c *Config) any { return &c.enc().NumHeavyFFTokens }},
	{"routes", "`N` routes of keys and values, a divisor of the heads", "", func(c *Config) any {
		return either(c, &c.lm().NumRoutedKV, &c.enc().NumRoutedKV)
	}},
	{"dropout", "`RATE` of elements that are dropped in training, of the embedding and of the results of all layers", "", func(c *Config) any {
		return either(c, &c.lm().Dropout, &c.enc().Dropout)
	}},
	{"causal", "queries are selected from earlier bytes only, which generating needs", LM, func(c *Config) any { return &c.lm().CausalQueryRouting }},
	{"routing", "`KIND` of selection: learned, or for comparisons random or static (evenly spaced; lm)", "", func(c *Config) any { return &c.Routing }},
	{"precision", "`PRECISION` of matrix products: f32, f16 or bf16", "", func(c *Config) any { return either(c, &c.lm().Precision, &c.enc().Precision) }},
	{"batch", "`ITEMS` of a step", "", func(c *Config) any { return &c.Batch }},
	{"length", "`BYTES` of an item", "", func(c *Config) any { return &c.Length }},
	{"micro-batches", "`PARTS` of a step's batch that are computed one after the other, to save memory", "", func(c *Config) any { return &c.Run.MicroBatches }},
	{"recompute", "`N` layers that compute their activations again in the backward pass (activation checkpointing), to save memory; -1: all", "",
		func(c *Config) any { return &c.Run.Recompute }},
	{"steps", "`N` steps in all, with those of the runs before", "", func(c *Config) any { return &c.Run.Steps }},
	{"rate", "peak of the learning `RATE`", "", func(c *Config) any { return &c.Optimizer.Rate }},
	{"schedule", "`NAME` of the course of the rate: " + scheduleNames, "", func(c *Config) any { return &c.Optimizer.Schedule }},
	{"warm-up", "`STEPS` in which the rate rises to its peak", "", func(c *Config) any { return &c.Optimizer.WarmUp }},
	{"floor", "last `RATE` of the schedule cosine", "", func(c *Config) any { return &c.Optimizer.Floor }},
	{"clip", "largest `NORM` of the gradients; 0: any", "", func(c *Config) any { return &c.Optimizer.Clip }},
	{"decay", "weight decay, a `FACTOR` of the rate", "", func(c *Config) any { return &c.Optimizer.Decay }},
	{"seed", "`S` of initial values and batches", "", func(c *Config) any { return &c.Seed }},
	{"include", "`PATTERN` of files to train with, in folders: of their names, or with a slash of their paths (may be repeated; default: all)", LM,
		func(c *Config) any { return &c.Data.Include }},
	{"exclude", "`PATTERN` of files and folders to leave out (may be repeated)", LM, func(c *Config) any { return &c.Data.Exclude }},
	{"skip-generated", "leave out files with the line \"// Code generated .. DO NOT EDIT.\"", LM, func(c *Config) any { return &c.Data.SkipGenerated }},
	{"held-out", "hold out one file or document in `N`, by a hash; 0: none", "", func(c *Config) any { return &c.Data.HeldOut }},
	{"held-out-by", "hold out each `KIND`, file or folder, as a whole", LM, func(c *Config) any { return &c.Data.HeldOutBy }},
	{"text-field", "`KEY` of a document's text", Classifier, func(c *Config) any { return &c.Data.TextField }},
	{"label-field", "`KEY` of a document's label", Classifier, func(c *Config) any { return &c.Data.LabelField }},
	{"save-every", "`STEPS` between checkpoints; 0: only at the end", "", func(c *Config) any { return &c.Run.SaveEvery }},
	{"keep", "keep the last `N` checkpoints; below 0: all", "", func(c *Config) any { return &c.Run.Keep }},
	{"evaluate-every", "`STEPS` between evaluations; 0: only at the end", "", func(c *Config) any { return &c.Run.EvaluateEvery }},
	{"held-out-bytes", "evaluate about so many `BYTES`, evenly spaced; 0: all", "", func(c *Config) any { return &c.Run.HeldOutBytes }},
	{"sample", "generate so many `BYTES` at each evaluation; 0: none", LM, func(c *Config) any { return &c.Run.SampleLength }},
}

// lm is the configuration of the language model; one that is dropped in another task.
func (c *Config) lm() *colt5.AutoregressiveTransformerConfig {
	if c.Transformer == nil {
		return &colt5.AutoregressiveTransformerConfig{}
	}
	return c.Transformer
}

// enc is the configuration of the encoder; one that is dropped in another task.
func (c *Config) enc() *colt5.EncoderConfig {
	if c.Encoder == nil {
		return &colt5.EncoderConfig{}
	}
	return c.Encoder
}

// either returns the target of the task.
func either(c *Config, lm, classifier any) any {
	if c.Task == LM {
		return lm
	}
	return classifier
}

// Flags are the flags of a Config, with the defaults in their usage.
func Flags() []cli.Flag {
	list := []cli.Flag{&cli.StringFlag{Name: "config", Usage: "JSON `FILE` of a configuration; flags take precedence, and absent keys have the defaults"}}
	lm, classifier := Default(LM), Default(Classifier)
	for _, f := range flags {
		c := &lm
		if f.task == Classifier {
			c = &classifier
		}
		list = append(list, f.cli(c, &classifier))
	}
	return list
}

// cli makes the flag of the library.
func (f flag) cli(c, classifier *Config) cli.Flag {
	value := text(f.target(c))
	usage := f.usage
	switch other := text(f.target(classifier)); {
	case f.task != "" && value != "":
		usage += fmt.Sprintf(" (%s; default: %s)", f.task, value)
	case f.task != "":
		usage += fmt.Sprintf(" (%s)", f.task)
	case other != value:
		usage += fmt.Sprintf(" (default: %s, of %s %s)", value, Classifier, other)
	default:
		usage += fmt.Sprintf(" (default: %s)", value)
	}
	switch f.target(c).(type) {
	case *int, []*int:
		return &cli.IntFlag{Name: f.name, Usage: usage, HideDefault: true}
	case *uint64, *uint32:
		return &cli.Uint64Flag{Name: f.name, Usage: usage, HideDefault: true}
	case *float64:
		return &cli.FloatFlag{Name: f.name, Usage: usage, HideDefault: true}
	case *bool:
		return &cli.BoolFlag{Name: f.name, Usage: usage, HideDefault: true}
	case *[]string:
		return &cli.StringSliceFlag{Name: f.name, Usage: usage, HideDefault: true}
	}
	return &cli.StringFlag{Name: f.name, Usage: usage, HideDefault: true}
}

// text formats the value of a target.
func text(target any) string {
	switch t := target.(type) {
	case []*int:
		return fmt.Sprint(*t[0])
	case *[]string:
		return strings.Join(*t, ", ")
	}
	return fmt.Sprint(reflect.ValueOf(target).Elem())
}

// Parse makes the configuration of a task from a file and flags.
func Parse(task Task, c *cli.Command) (Config, error) {
	config := Default(task)
	if name := c.String("config"); name != "" {
		data, err := input.ReadFile(name, input.ConfigLimit)
		if err == nil {
			config, err = Read(task, data)
		}
		if err != nil {
			return config, command.Usagef("-config %s: %w", name, err)
		}
	}
	for _, f := range flags {
		if !c.IsSet(f.name) {
			continue
		}
		if f.task != "" && f.task != task {
			return config, command.Usagef("-%s is a flag of the task %s, not of %s", f.name, f.task, task)
		}
		if err := set(f.target(&config), f.name, c); err != nil {
			return config, err
		}
	}
	if err := config.Check(); err != nil {
		return config, command.AsUsage(flagNames(err))
	}
	config.Complete()
	return config, nil
}

// set sets a target to the value of a flag.
func set(target any, name string, c *cli.Command) error {
	switch t := target.(type) {
	case *int:
		*t = c.Int(name)
	case []*int:
		for _, x := range t {
			*x = c.Int(name)
		}
	case *uint64:
		*t = c.Uint64(name)
	case *uint32:
		if c.Uint64(name) > math.MaxUint32 {
			return command.Usagef("-%s is %d, want at most %d", name, c.Uint64(name), uint32(math.MaxUint32))
		}
		*t = uint32(c.Uint64(name))
	case *float64:
		*t = c.Float(name)
	case *bool:
		*t = c.Bool(name)
	case *[]string:
		*t = c.StringSlice(name)
	case *string:
		*t = c.String(name)
	case *scheduleName:
		*t = scheduleName(c.String(name))
	case *colt5.DType:
		p, err := command.ParsePrecision(c.String(name))
		if err != nil {
			return err
		}
		*t = p
	}
	return nil
}

// flagNames has the name of a flag in place of that of a key.
func flagNames(err error) error {
	key, rest, ok := strings.Cut(err.Error(), " ")
	for _, f := range flags {
		if ok && (key == strings.ReplaceAll(f.name, "-", "_") || key == "sample_length" && f.name == "sample") {
			return errors.New("-" + f.name + " " + rest)
		}
	}
	return err
}
