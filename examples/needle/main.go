// Needle compares learned routing with two controls that cost the same: a selection at random, and evenly spaced tokens.
//
//	go run ./examples/needle "$(go env GOROOT)/src/go"
//
// The documents are pieces of the files of a folder. A byte somewhere in a document, the needle, says which class it has, and
// only the first byte is classified. The light branch sees neighbours alone, so the class must get there through the heavy
// attention, whose queries are all bytes, but whose keys are few: the needle or a byte near it must be one of them.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"math"
	"math/rand/v2"
	"os"
	"strings"

	"github.com/colt5-vulkan/colt5/colt5"
	"github.com/colt5-vulkan/colt5/train"
	"github.com/colt5-vulkan/colt5/vk"
)

// settings are the sizes of the experiment.
type settings struct {
	length, batch, steps, seeds, selected int
	depth, dim, heads, window             int // of the encoder
	evaluations                           int // batches
	rate                                  float64
}

func main() {
	s := settings{depth: 2, dim: 64, heads: 4, evaluations: 16}
	flag.IntVar(&s.length, "length", 256, "bytes of a document")
	flag.IntVar(&s.batch, "batch", 64, "documents of a step")
	flag.IntVar(&s.steps, "steps", 1500, "steps of a training")
	flag.IntVar(&s.seeds, "seeds", 3, "trainings of each kind of routing")
	flag.IntVar(&s.selected, "selected", 4, "keys that a router selects")
	flag.IntVar(&s.window, "window", 8, "bytes of a window of the light attention")
	flag.Float64Var(&s.rate, "rate", 2e-3, "peak of the learning rate")
	flag.Parse()
	if flag.NArg() == 0 {
		log.Fatal("want files or folders with text, such as $(go env GOROOT)/src/go")
	}
	if err := needle(context.Background(), os.Stdout, s, flag.Args()...); err != nil {
		log.Fatal(err)
	}
}

// needle trains with each kind of routing, and writes a table.
func needle(ctx context.Context, out io.Writer, s settings, names ...string) error {
	source := func(f train.CorpusFile) (bool, error) { return strings.HasSuffix(f.Path, ".go"), nil }
	text, _, err := train.OpenCorpus(train.CorpusOptions{Include: source}, names...)
	if err != nil {
		return err
	}
	dev, err := vk.Open(vk.Options{})
	if err != nil {
		return err
	}
	defer dev.Close()
	fmt.Fprintf(out, "| routing | accuracy of %d seeds | mean | standard deviation |\n| --- | --- | --- | --- |\n", s.seeds)
	for _, routing := range []string{"learned", "random", "static"} {
		var list []float64
		for seed := range s.seeds {
			accuracy, err := trainOnce(ctx, dev, s, routing, documents{text, s, uint64(seed)})
			if err != nil {
				return fmt.Errorf("%s routing, seed %d: %w", routing, seed, err)
			}
			list = append(list, accuracy)
		}
		mean, deviation := spread(list)
		fmt.Fprintf(out, "| %s | %.3f | %.3f | %.3f |\n", routing, list, mean, deviation)
	}
	return nil
}

// spread is the mean of a list, and the standard deviation of its values.
func spread(list []float64) (mean, deviation float64) {
	for _, x := range list {
		mean += x / float64(len(list))
	}
	for _, x := range list {
		deviation += (x - mean) * (x - mean) / float64(max(len(list)-1, 1))
	}
	return mean, math.Sqrt(deviation)
}

const (
	classes   = 4 // needles are the bytes 1 to classes
	firstByte = classes + 1
)

// documents makes pieces of a text, each with a needle.
type documents struct {
	text *train.Corpus
	settings
	seed uint64
}

// Batch implements train.Batches.
func (d documents) Batch(_ context.Context, step int64, b *train.Batch) error {
	random := rand.New(rand.NewPCG(d.seed, uint64(step)))
	b.Items, b.Length = d.batch, d.length
	b.IDs, b.Labels = make([]uint8, d.batch*d.length), make([]int32, d.batch)
	for i := range d.batch {
		document := b.IDs[i*d.length : (i+1)*d.length]
		if _, err := d.text.ReadAt(document, random.Int64N(d.text.Size()-int64(d.length)+1)); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		b.Labels[i] = random.Int32N(classes)
		document[0], document[1+random.IntN(d.length-1)] = firstByte, uint8(1+b.Labels[i])
	}
	return nil
}

// model is an encoder and a head for its first token.
type model struct {
	encoder    *colt5.Encoder
	head       *colt5.Linear
	graph      *colt5.Graph
	parameters []colt5.Parameter
}

func (m *model) close() error { return errors.Join(m.graph.Close(), m.head.Close(), m.encoder.Close()) }

func newModel(ctx context.Context, dev *vk.Device, s settings, routing string, seed uint64) (*model, error) {
	c := colt5.Default[colt5.EncoderConfig]()
	c.Depth, c.Dim, c.NumTokens, c.RotaryEmb = s.depth, s.dim, 256, true
	c.LightHeads, c.LightDimHead, c.LightWindowSize = s.heads, s.dim/s.heads, s.window
	c.HeavyHeads, c.HeavyDimHead = s.heads, s.dim/s.heads
	c.NumHeavyAttnTokensQ, c.NumHeavyAttnTokensKV, c.NumHeavyFFTokens = s.length, s.selected, s.selected
	c.Router.ScaleRoutingTokens = true
	m := &model{graph: colt5.NewGraph(dev)}
	var err error
	if m.encoder, err = colt5.NewEncoder(ctx, dev, c); err == nil {
		m.head, err = colt5.NewLinear(ctx, dev, colt5.LinearConfig{In: c.Dim, Out: classes, Bias: true})
	}
	if err == nil {
		err = errors.Join(m.encoder.Init(ctx, seed), m.head.Init(ctx, seed))
	}
	if err != nil {
		return nil, errors.Join(err, m.close())
	}
	o := colt5.BlockOptions{Static: routing == "static"}
	if routing == "random" {
		o.RandomSeed = seed<<32 + 1 // a Trainer adds the number of the step
	}
	g := m.graph
	encoded, logits := g.Value("encoder"), g.Value("head")
	err = errors.Join(
		m.encoder.Forward(ctx, encoded, g.Input("ids", colt5.U8, 0, 0), o),
		m.head.Forward(ctx, logits, g.First(encoded), colt5.CallOptions{}),
	)
	g.Output("logits", logits)
	g.Output("loss", g.CrossEntropy(logits, g.Input("labels", colt5.I32, 0)))
	m.parameters = m.encoder.Parameters()
	for _, p := range m.head.Parameters() {
		p.Name = "head." + p.Name
		m.parameters = append(m.parameters, p)
	}
	if err != nil {
		return nil, errors.Join(err, m.close())
	}
	return m, nil
}

// trainOnce trains a model, and returns its accuracy on other documents.
func trainOnce(ctx context.Context, dev *vk.Device, s settings, routing string, data documents) (accuracy float64, err error) {
	m, err := newModel(ctx, dev, s, routing, data.seed)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, m.close()) }()
	trainer, err := train.NewTrainer(ctx, m.graph, m.parameters, train.OptimizerConfig{
		AdamW: train.AdamW{Rate: s.rate}, Clip: 1, Schedule: train.Schedule{Kind: train.Cosine, WarmUp: s.steps / 20, Total: s.steps},
	})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, trainer.Close()) }()
	var b train.Batch
	for step := range int64(s.steps) {
		if err := data.Batch(ctx, step, &b); err != nil {
			return 0, err
		}
		if err := trainer.Step(ctx, &b); err != nil {
			return 0, err
		}
	}
	if err := trainer.Wait(ctx); err != nil {
		return 0, err
	}
	return m.accuracy(ctx, dev, data)
}

// accuracy is the share of the documents of some batches, which no training sees, that get the right class.
func (m *model) accuracy(ctx context.Context, dev *vk.Device, data documents) (float64, error) {
	ids, err := colt5.NewTensor(dev, colt5.U8, data.batch, data.length)
	if err != nil {
		return 0, err
	}
	defer ids.Close()
	logits, err := colt5.NewTensor(dev, colt5.F32, data.batch, classes)
	if err != nil {
		return 0, err
	}
	defer logits.Close()
	right := 0
	for i := range int64(data.evaluations) {
		var b train.Batch
		if err := data.Batch(ctx, -1-i, &b); err != nil {
			return 0, err
		}
		if err := ids.Write(ctx, b.IDs); err != nil {
			return 0, err
		}
		if err := m.graph.Run(ctx, map[string]*colt5.Tensor{"ids": ids, "logits": logits}, colt5.GraphOptions{RandomSeed: uint64(i) << 16}); err != nil {
			return 0, err
		}
		y, err := logits.Float32(ctx)
		if err != nil {
			return 0, err
		}
		for j, label := range b.Labels {
			best := 0
			for c, v := range y[j*classes : (j+1)*classes] {
				if v > y[j*classes+best] {
					best = c
				}
			}
			if best == int(label) {
				right++
			}
		}
	}
	return float64(right) / float64(data.evaluations*data.batch), nil
}
