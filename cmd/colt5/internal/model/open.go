package model

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/colt5-vulkan/colt5/cmd/colt5/internal/settings"
	"github.com/colt5-vulkan/colt5/internal/cli/command"
	"github.com/colt5-vulkan/colt5/safetensors"
	"github.com/colt5-vulkan/colt5/train"
	"github.com/colt5-vulkan/colt5/vk"
)

// Names of the files of a checkpoint.
const (
	WeightsFile   = "model.safetensors"
	OptimizerFile = "optimizer.safetensors"
)

// Source is where the weights of a model are.
type Source struct {
	Config  settings.Config
	Step    int64  // of a checkpoint; -1: unknown
	Weights string // the file
}

// Find finds the weights of a model: in a checkpoint, in the newest one of a folder, or in a file that Save wrote.
func Find(path string) (Source, error) {
	s, err := find(path)
	if err != nil {
		return s, command.Usagef("%s: %w", path, err)
	}
	return s, nil
}

func find(path string) (s Source, err error) {
	stat, err := os.Stat(path)
	if err != nil {
		return s, errors.Unwrap(err)
	}
	var config []byte
	if stat.IsDir() {
		c, err := train.OpenCheckpoint(path)
		if err != nil {
			return s, err
		}
		s.Step, s.Weights, config = c.Step, c.File(WeightsFile), c.Config
	} else {
		f, err := safetensors.Open(path)
		if err != nil {
			return s, err
		}
		s.Step, s.Weights, config = -1, path, []byte(f.Metadata()[metadataKey])
		if err := f.Close(); err != nil {
			return s, err
		}
		if len(config) == 0 {
			return s, fmt.Errorf("the metadata has no key %s, want a checkpoint, or weights that colt5 train saved", metadataKey)
		}
	}
	s.Config, err = settings.ReadIdentity(config)
	return s, err
}

// Open makes the model and loads its weights.
func (s Source) Open(ctx context.Context, dev *vk.Device) (*Model, error) {
	m, err := New(ctx, dev, s.Config)
	if err != nil {
		return nil, err
	}
	if err := m.Load(ctx, s.Weights); err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return m, nil
}
