package soak

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/colt5-vulkan/colt5/colt5"
	"github.com/colt5-vulkan/colt5/internal/cli/scope"
	"github.com/colt5-vulkan/colt5/pipelines"
	"github.com/colt5-vulkan/colt5/train"
	"github.com/colt5-vulkan/colt5/vk"
)

// generateJob generates tokens: the size is the tokens of the prompt and of the text.
func generateJob() job {
	j := job{name: "generate", sizes: [sizes][]int{{5, 4}, {30, 4}, {17, 20}}}
	j.run = func(ctx context.Context, dev *vk.Device, _ pipelines.DType, i int) (sum digest, err error) {
		err = scope.Run(ctx, dev, func(s *scope.Scope) error {
			c := colt5.Default[colt5.AutoregressiveTransformerConfig]()
			c.Dim, c.Depth, c.NumTokens, c.CausalQueryRouting, c.LightWindowSize = 16, 1, 256, true, 16
			c.NumHeavyTokensQ, c.NumHeavyTokensKV, c.RotaryEmb = 4, 8, true
			m, err := colt5.NewAutoregressiveTransformer(ctx, dev, c)
			if m = scope.Keep(s, m, err); m == nil {
				return s.Err()
			}
			prompt, more := j.sizes[i][0], j.sizes[i][1]
			g, err := colt5.NewGenerator(ctx, m, prompt+more)
			if g = scope.Keep(s, g, err); g == nil {
				return s.Err()
			}
			ids := make([]int, prompt)
			for i := range ids {
				ids[i] = 'a' + i*i%26
			}
			hash := sha256.New()
			for range more {
				logits, err := g.Append(ctx, ids...)
				if err != nil {
					return err
				}
				hash.Write(vk.Bytes(logits))
				best := 0
				for i, x := range logits {
					if x > logits[best] {
						best = i
					}
				}
				ids = []int{best}
			}
			hash.Sum(sum[:0])
			return nil
		})
		return sum, err
	}
	return j
}

// saveLoadJob trains a model of modules and operations for some steps, saves it with its optimiser, trains it for more, loads
// what it has saved, and requires the same steps to give the same bits again: the size is batch x tokens x steps.
func saveLoadJob() job {
	j := job{name: "save_load", sizes: [sizes][]int{{2, 24, 2}, {3, 24, 1}, {1, 33, 3}}}
	j.run = func(ctx context.Context, dev *vk.Device, _ pipelines.DType, i int) (sum digest, err error) {
		dir, err := os.MkdirTemp("", "vkbench-soak-")
		if err != nil {
			return sum, err
		}
		err = scope.Run(ctx, dev, func(s *scope.Scope) error {
			m, err := newModel(ctx, s)
			if err != nil {
				return err
			}
			batch, steps := newBatch(j.sizes[i][0], j.sizes[i][1]), j.sizes[i][2]
			if err := errors.Join(m.train(ctx, batch, steps), m.save(ctx, dir)); err != nil {
				return err
			}
			if err := m.train(ctx, batch, steps); err != nil {
				return err
			}
			first, err := m.digest(ctx)
			if err != nil {
				return err
			}
			if err := errors.Join(m.load(ctx, dir), m.train(ctx, batch, steps)); err != nil {
				return err
			}
			if sum, err = m.digest(ctx); err == nil && sum != first {
				err = errors.New("training from the files gives other bits than before")
			}
			return err
		})
		return sum, errors.Join(err, os.RemoveAll(dir))
	}
	return j
}

// model is an embedding, dropout, a feedforward with a residual connection, and a linear layer to logits.
type model struct {
	embedding *colt5.Embedding
	ff        *colt5.FeedForward
	head      *colt5.Linear
	list      []colt5.Parameter
	trainer   *train.Trainer
}

func newModel(ctx context.Context, s *scope.Scope) (*model, error) {
	const dim, tokens = 16, 256
	m := &model{}
	e, err := colt5.NewEmbedding(ctx, s.Dev, colt5.EmbeddingConfig{NumTokens: tokens, Dim: dim})
	m.embedding = scope.Keep(s, e, err)
	f, err := colt5.NewFeedForward(ctx, s.Dev, colt5.FeedForwardConfig{Dim: dim, Mult: 2})
	m.ff = scope.Keep(s, f, err)
	l, err := colt5.NewLinear(ctx, s.Dev, colt5.LinearConfig{In: dim, Out: tokens})
	m.head = scope.Keep(s, l, err)
	if s.Err() != nil {
		return nil, s.Err()
	}
	g := scope.Keep(s, colt5.NewGraph(s.Dev), nil)
	x, y, logits := g.Value("x"), g.Value("y"), g.Value("logits")
	if err := errors.Join(
		m.embedding.Forward(ctx, x, g.Input("ids", colt5.U8, 0, 0), colt5.CallOptions{}),
		m.ff.Forward(ctx, y, g.Dropout(x, 0.1), colt5.CallOptions{}),
		m.head.Forward(ctx, logits, g.Add(x, y), colt5.CallOptions{}),
	); err != nil {
		return nil, err
	}
	g.Output("loss", g.CrossEntropy(logits, g.Input("labels", colt5.I32, 0, 0)))
	for i, list := range [][]colt5.Parameter{m.embedding.Parameters(), m.ff.Parameters(), m.head.Parameters()} {
		for _, p := range list {
			p.Name = fmt.Sprint(i, ".", p.Name)
			m.list = append(m.list, p)
		}
	}
	t, err := train.NewTrainer(ctx, g, m.list, train.OptimizerConfig{AdamW: train.AdamW{Rate: 0.01}, Clip: 1})
	m.trainer = scope.Keep(s, t, err)
	return m, s.Err()
}

func newBatch(items, length int) *train.Batch {
	b := &train.Batch{Items: items, Length: length}
	for i := range items * length {
		b.IDs = append(b.IDs, uint8(i*i%61))
		b.Labels = append(b.Labels, int32((i+1)*(i+1)%61))
	}
	return b
}

func (m *model) train(ctx context.Context, b *train.Batch, steps int) error {
	for range steps {
		if err := m.trainer.Step(ctx, b); err != nil {
			return err
		}
	}
	return m.trainer.Wait(ctx)
}

func (m *model) save(ctx context.Context, dir string) error {
	return errors.Join(m.embedding.Save(ctx, filepath.Join(dir, "embedding")), m.ff.Save(ctx, filepath.Join(dir, "ff")),
		m.head.Save(ctx, filepath.Join(dir, "head")), m.trainer.Optimizer().Save(ctx, filepath.Join(dir, "optimizer")))
}

func (m *model) load(ctx context.Context, dir string) error {
	return errors.Join(m.embedding.Load(ctx, filepath.Join(dir, "embedding")), m.ff.Load(ctx, filepath.Join(dir, "ff")),
		m.head.Load(ctx, filepath.Join(dir, "head")), m.trainer.Load(ctx, filepath.Join(dir, "optimizer")))
}

// digest is that of all parameters.
func (m *model) digest(ctx context.Context) (sum digest, err error) {
	hash := sha256.New()
	for _, p := range m.list {
		data, err := p.Tensor.Float32(ctx)
		if err != nil {
			return sum, err
		}
		hash.Write(vk.Bytes(data))
	}
	hash.Sum(sum[:0])
	return sum, nil
}
