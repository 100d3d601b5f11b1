//go:build linux

package faults_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/colt5-vulkan/colt5/colt5"
	"github.com/colt5-vulkan/colt5/internal/faults"
	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/train"
	"github.com/colt5-vulkan/colt5/vk"
)

var loader *faults.Loader

// TestMain starts the program again with the loader of package faults. Without a device the tests are skipped.
func TestMain(m *testing.M) {
	var err error
	if loader, err = faults.Start(); err != nil && (os.Getenv("COLT5_REQUIRE_GPU") == "1" || !errors.Is(err, vk.ErrNoDevice)) {
		fmt.Fprintln(os.Stderr, "FAIL:", err)
		os.Exit(1)
	}
	if loader != nil {
		loader.Share(true)
	}
	gputest.Main(m)
}

func needLoader(t testing.TB) {
	if loader == nil {
		t.Skip("no Vulkan device")
	}
	gputest.CountCase()
}

// state is what a program has open.
type state struct {
	dir    string
	device *vk.Device

	embedding *colt5.Embedding
	ff        *colt5.ConditionalRoutedFeedForward
	head      *colt5.Linear
	graph     *colt5.Graph
	trainer   *train.Trainer
	x, y      *colt5.Tensor
	big       *vk.Buffer
	digest    strings.Builder // of all results
}

// step is a part of a scenario. After an error run may be called again, and then succeeds, unless the device is lost.
type step struct {
	name string // of the operation, as errors have it
	run  func(context.Context, *state) error
}

const (
	dim       = 8
	tokens    = 12
	chunk     = 8 << 20        // of the staging memory of package vk
	bigBytes  = 2*chunk + 4096 // a transfer that needs both halves again
	timeLimit = 20 * time.Second
)

// scenario is modules, or with -short transfers: CPU drivers compile the kernels of modules for 13 s.
func scenario() []step {
	if testing.Short() {
		return transfers()
	}
	return modules()
}

// modules is the life of modules: construction, forward and backward passes, files.
func modules() []step {
	return []step{
		{"", func(_ context.Context, s *state) error { return s.open() }}, // vk.Open has no name of an operation
		{"NewEmbedding", func(ctx context.Context, s *state) (err error) {
			s.embedding, err = colt5.NewEmbedding(ctx, s.device, colt5.EmbeddingConfig{NumTokens: 256, Dim: dim})
			return err
		}},
		{"NewConditionalRoutedFeedForward", func(ctx context.Context, s *state) (err error) {
			c := colt5.Default[colt5.ConditionalRoutedFeedForwardConfig]()
			c.Dim, c.NumHeavyTokens, c.HeavyFFMult = dim, 4, 2
			s.ff, err = colt5.NewConditionalRoutedFeedForward(ctx, s.device, c)
			return err
		}},
		{"NewLinear", func(ctx context.Context, s *state) (err error) {
			s.head, err = colt5.NewLinear(ctx, s.device, colt5.LinearConfig{In: dim, Out: 256})
			return err
		}},
		{"FromSlice", func(ctx context.Context, s *state) (err error) {
			s.x, err = colt5.FromSlice(ctx, s.device, values(tokens*dim), 1, tokens, dim)
			return err
		}},
		{"NewTensor", func(_ context.Context, s *state) (err error) {
			s.y, err = colt5.NewTensor(s.device, colt5.F32, 1, tokens, dim)
			return err
		}},
		{"Forward", func(ctx context.Context, s *state) error {
			return s.ff.Forward(ctx, s.y, s.x, colt5.FeedForwardOptions{Stats: new(colt5.CallStats), Routing: new([]colt5.RoutingRecord)})
		}},
		{"Tensor.Read", func(ctx context.Context, s *state) error { return s.read(ctx, s.y) }},
		{"Save", func(ctx context.Context, s *state) error { return s.ff.Save(ctx, s.file("ff")) }},
		{"Init", func(ctx context.Context, s *state) error { return s.ff.Init(ctx, 1) }},
		{"Load", func(ctx context.Context, s *state) error { return s.ff.Load(ctx, s.file("ff")) }},
		{"Forward", func(ctx context.Context, s *state) error {
			return s.ff.Forward(ctx, s.y, s.x, colt5.FeedForwardOptions{})
		}},
		{"Tensor.Read", func(ctx context.Context, s *state) error { return s.read(ctx, s.y) }},
		{"NewTrainer", func(ctx context.Context, s *state) error { return s.newTrainer(ctx) }},
		{"Trainer.Step", func(ctx context.Context, s *state) error { return s.train(ctx) }},
		{"Trainer.Wait", func(ctx context.Context, s *state) error { return s.trainer.Wait(ctx) }},
		{"Trainer.Step", func(ctx context.Context, s *state) error { return s.train(ctx) }},
		{"Trainer.Wait", func(ctx context.Context, s *state) error { return s.trainer.Wait(ctx) }},
		{"Optimizer.Records", func(ctx context.Context, s *state) error {
			records, err := s.trainer.Optimizer().Records(ctx, 0)
			if err == nil {
				fmt.Fprintln(&s.digest, records)
			}
			return err
		}},
		{"Optimizer.Save", func(ctx context.Context, s *state) error { return s.trainer.Optimizer().Save(ctx, s.file("optimizer")) }},
		{"", func(ctx context.Context, s *state) error { return s.trainer.Load(ctx, s.file("optimizer")) }}, // of two operations
		{"Close", func(_ context.Context, s *state) error { return s.trainer.Close() }},
		{"Close", func(_ context.Context, s *state) error { return s.graph.Close() }},
		{"Close", func(_ context.Context, s *state) error {
			return errors.Join(s.head.Close(), s.ff.Close(), s.embedding.Close())
		}},
		{"", func(_ context.Context, s *state) error { return errors.Join(s.x.Close(), s.y.Close()) }},
		{"Close", func(_ context.Context, s *state) error { return s.device.Close() }},
	}
}

// transfers is the life of a buffer that is larger than the staging memory of a device.
func transfers() []step {
	return []step{
		{"", func(_ context.Context, s *state) error { return s.open() }},
		{"NewBuffer", func(_ context.Context, s *state) (err error) {
			s.big, err = s.device.NewBuffer("big", bigBytes)
			return err
		}},
		{"Upload", func(ctx context.Context, s *state) error {
			return s.device.Upload(ctx, vk.Transfer{Range: s.big.Range(), Data: bigData})
		}},
		{"Download", func(ctx context.Context, s *state) error {
			clear(bigResult)
			err := s.device.Download(ctx, vk.Transfer{Range: s.big.Range(), Data: bigResult})
			if err == nil && !bytes.Equal(bigData, bigResult) {
				return errors.New("the data that was downloaded differs")
			}
			return err
		}},
		{"Close", func(_ context.Context, s *state) error { return s.big.Close() }},
		{"Close", func(_ context.Context, s *state) error { return s.device.Close() }},
	}
}

// closeAll closes what is open, with further tries: a Close may fail while the device is busy.
func (s *state) closeAll() error {
	var err error
	for range 3 {
		err = errors.Join(s.trainer.Close(), s.graph.Close(), s.head.Close(), s.ff.Close(), s.embedding.Close(), s.x.Close(), s.y.Close(),
			s.big.Close())
		if err == nil {
			break
		}
	}
	return errors.Join(err, s.device.Close())
}

var (
	bigData   = bytes.Repeat([]byte{1, 2, 3, 4, 5, 6, 7}, bigBytes/7+1)[:bigBytes]
	bigResult = make([]byte, bigBytes)
)

func (s *state) file(name string) string { return filepath.Join(s.dir, name+".safetensors") }

func (s *state) open() (err error) {
	s.device, err = vk.Open(vk.Options{CacheDir: s.dir, Timeout: timeLimit})
	return err
}

func (s *state) read(ctx context.Context, t *colt5.Tensor) error {
	data, err := t.Float32(ctx)
	if err == nil {
		fmt.Fprintln(&s.digest, data)
	}
	return err
}

// newTrainer makes a graph of all modules, with a loss, and a trainer of it.
func (s *state) newTrainer(ctx context.Context) (err error) {
	if s.graph == nil {
		g := colt5.NewGraph(s.device)
		s.graph = g
		x, y, logits := g.Value("embedding"), g.Value("feedforward"), g.Value("logits")
		if err := errors.Join(
			s.embedding.Forward(ctx, x, g.Input("ids", colt5.U8, 0, 0), colt5.CallOptions{}),
			s.ff.Forward(ctx, y, x, colt5.FeedForwardOptions{}),
			s.head.Forward(ctx, logits, g.Add(x, y), colt5.CallOptions{}),
		); err != nil {
			return err
		}
		g.Output("loss", g.CrossEntropy(logits, g.Input("labels", colt5.I32, 0, 0)))
	}
	var parameters []colt5.Parameter
	for i, list := range [][]colt5.Parameter{s.embedding.Parameters(), s.ff.Parameters(), s.head.Parameters()} {
		for _, p := range list {
			p.Name = fmt.Sprint(i, ".", p.Name)
			parameters = append(parameters, p)
		}
	}
	s.trainer, err = train.NewTrainer(ctx, s.graph, parameters, train.OptimizerConfig{AdamW: train.AdamW{Rate: 0.01}, Clip: 1})
	return err
}

func (s *state) train(ctx context.Context) error {
	b := train.Batch{Items: 2, Length: tokens, IDs: make([]uint8, 2*tokens), Labels: make([]int32, 2*tokens)}
	for i := range b.IDs {
		b.IDs[i], b.Labels[i] = uint8(17*i), int32(17*i+17)%256
	}
	return s.trainer.Step(ctx, &b)
}

func values(n int) []float32 {
	list := make([]float32, n)
	for i := range list {
		list[i] = float32(i*i%37)/16 - 1
	}
	return list
}
