// Package model makes the models of the tasks, with their losses, and reads and writes their weights.
package model

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/colt5-vulkan/colt5/cmd/colt5/internal/settings"
	"github.com/colt5-vulkan/colt5/colt5"
	"github.com/colt5-vulkan/colt5/safetensors"
	"github.com/colt5-vulkan/colt5/vk"
)

// Model is the modules of a task and their graph: inputs ids, mask (Classifier) and labels, outputs logits and loss.
type Model struct {
	Config      settings.Config
	Graph       *colt5.Graph
	Parameters  []colt5.Parameter                // of all modules, under different names
	Transformer *colt5.AutoregressiveTransformer // of LM

	dev   *vk.Device
	parts []part
}

// part is a module, with the prefix of the names of its parameters.
type part struct {
	prefix string
	module module
}

type module interface {
	io.Closer
	Parameters() []colt5.Parameter
	Init(ctx context.Context, seed uint64) error
	LoadFrom(ctx context.Context, src safetensors.Source, o safetensors.LoadOptions) error
}

// New makes a model with the initial values of the seed of the configuration.
func New(ctx context.Context, dev *vk.Device, c settings.Config) (*Model, error) {
	m := &Model{Config: c, Graph: colt5.NewGraph(dev), dev: dev}
	var err error
	if c.Task == settings.LM {
		err = m.buildLM(ctx)
	} else {
		err = m.buildClassifier(ctx)
	}
	for i, p := range m.parts {
		if err == nil {
			err = p.module.Init(ctx, c.Seed+uint64(i))
		}
	}
	if err != nil {
		return nil, errors.Join(err, m.Close())
	}
	for _, p := range m.parts {
		for _, w := range p.module.Parameters() {
			w.Name = p.prefix + w.Name
			m.Parameters = append(m.Parameters, w)
		}
	}
	return m, nil
}

func (m *Model) buildLM(ctx context.Context) error {
	t, err := colt5.NewAutoregressiveTransformer(ctx, m.dev, *m.Config.Transformer)
	if err != nil {
		return err
	}
	m.Transformer, m.parts = t, []part{{"", t}}
	g, o := m.Graph, colt5.AutoregressiveOptions{RandomSeed: m.randomSeed(), Static: m.Config.Routing == "static"}
	logits := g.Value("")
	if err := t.Forward(ctx, logits, g.Input("ids", colt5.U8, 0, 0), o); err != nil {
		return err
	}
	g.Output("logits", logits)
	g.Output("loss", g.CrossEntropy(logits, g.Input("labels", colt5.I32, 0, 0)))
	return nil
}

// randomSeed is the seed of random routing; 0: the routing is not random.
func (m *Model) randomSeed() uint64 {
	if m.Config.Routing != "random" {
		return 0
	}
	return m.Config.Seed<<32 + 1 // train.Trainer adds the number of the step
}

func (m *Model) buildClassifier(ctx context.Context) error {
	if len(m.Config.Classes) < 2 {
		return fmt.Errorf("there are %d classes, want at least 2", len(m.Config.Classes))
	}
	e, err := colt5.NewEncoder(ctx, m.dev, *m.Config.Encoder)
	if err != nil {
		return err
	}
	m.parts = append(m.parts, part{"encoder.", e})
	c := colt5.Default[colt5.LinearConfig]()
	c.In, c.Out = m.Config.Encoder.Dim, len(m.Config.Classes)
	head, err := colt5.NewLinear(ctx, m.dev, c)
	if err != nil {
		return err
	}
	m.parts = append(m.parts, part{"head.", head})
	g := m.Graph
	mask, encoded, logits := g.Input("mask", colt5.U8, 0, 0), g.Value(""), g.Value("")
	err = errors.Join(
		e.Forward(ctx, encoded, g.Input("ids", colt5.U8, 0, 0), colt5.BlockOptions{Mask: mask, RandomSeed: m.randomSeed()}),
		head.Forward(ctx, logits, g.Mean(encoded, mask), colt5.CallOptions{}),
	)
	g.Output("logits", logits)
	g.Output("loss", g.CrossEntropy(logits, g.Input("labels", colt5.I32, 0)))
	return err
}

// metadataKey is the key of the configuration in the metadata of a file of weights.
const metadataKey = "colt5.config"

// Save writes the weights, with the configuration in the metadata.
func (m *Model) Save(ctx context.Context, path string) error {
	config, err := json.Marshal(m.Config.Identity())
	if err != nil {
		return err
	}
	var list []safetensors.Tensor
	for _, p := range m.Parameters {
		var shape []int64
		for _, n := range p.Tensor.Shape() {
			shape = append(shape, int64(n))
		}
		list = append(list, safetensors.Tensor{Name: p.Name, DType: safetensors.F32, Shape: shape, Data: func(w io.Writer) error {
			data, err := p.Tensor.Float32(ctx)
			if err != nil {
				return err
			}
			return safetensors.Float32s(data)(w)
		}})
	}
	return safetensors.Write(path, map[string]string{metadataKey: string(config)}, list)
}

// Load reads the weights from a file, all or none of a module.
func (m *Model) Load(ctx context.Context, path string) error {
	f, err := safetensors.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return m.load(ctx, f)
}

func (m *Model) load(ctx context.Context, f *safetensors.File) error {
	known := map[string]bool{}
	for _, p := range m.Parameters {
		known[p.Name] = true
	}
	for _, name := range f.Names() {
		if len(m.parts) > 1 && !known[name] {
			return fmt.Errorf("the file has %q, which is no parameter of a %s", name, m.Config.Task)
		}
	}
	for _, p := range m.parts {
		if err := p.module.LoadFrom(ctx, f, safetensors.LoadOptions{Prefix: p.prefix}); err != nil {
			return err
		}
	}
	return nil
}

// Close frees the model.
func (m *Model) Close() error {
	if m == nil {
		return nil
	}
	err := m.Graph.Close()
	for _, p := range m.parts {
		err = errors.Join(err, p.module.Close())
	}
	return err
}
