package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strings"
	"time"

	"github.com/colt5-vulkan/colt5/colt5"
	"github.com/colt5-vulkan/colt5/internal/atomicfile"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/urfave/cli/v3"
)

const routeDescription = `The text's bytes are the tokens. A token's vector is a quarter of its byte's embedding (normal numbers of the seed), plus 8 times the
difference between the mean embedding of the 65 bytes around it and that of the whole text: passages that are written otherwise than
the rest stand out. Without -weights the routing token is made of the seed as well: which passages it likes is
arbitrary then, but always the same.

The text is cut in pieces of -length bytes, -batch of them a call; each piece has -heavy tokens routed to the heavy branch, a shorter
last piece fewer in proportion. Two pieces of 32,768 bytes, 512 numbers a token and 1,024 heavy tokens are the reference use.
Several files are read as one text, with a line break between them; - is the standard input.

Soft scores sum to 100 % of what they should where coordinate descent has converged; the usual 20 iterations, down to a small eps, may
leave them far above. Which tokens are the heavy ones does not depend on that.`

// route shows where a router sends the passages of a text.
func (a *app) route() *cli.Command {
	return &cli.Command{
		Name: "route", Usage: "show which passages of a text are routed to the heavy branch",
		ArgsUsage: "FILE...", Description: routeDescription,
		Flags: []cli.Flag{
			deviceFlag(),
			&cli.StringFlag{Name: "o", Value: "text", Usage: "output `FORMAT`: text, or a table of passages as md, csv, json or jsonl"},
			&cli.StringFlag{Name: "html", Usage: "also write a page with the whole text to `FILE`"},
			&cli.StringFlag{Name: "config", Usage: "`FILE` with the feedforward's configuration, JSON"},
			&cli.StringFlag{Name: "weights", Usage: "`FILE` with the feedforward's weights, safetensors (default: initial values of the seed)"},
			&cli.Uint64Flag{Name: "seed", Usage: "`S` of the embedding, and of the weights"},
			&cli.IntFlag{Name: "dim", HideDefault: true, Usage: "`C`, numbers of a token (default: the configuration's, 512 without one)"},
			&cli.IntFlag{Name: "heavy", HideDefault: true, Usage: "`N` heavy tokens of a whole piece (default: the configuration's, length / 32 without one)"},
			&cli.IntFlag{Name: "length", Value: 32768, Usage: "`BYTES` of a piece"},
			&cli.IntFlag{Name: "batch", Value: 2, Usage: "pieces of a call, `B`"},
			&cli.IntFlag{Name: "passages", Value: 8, Usage: "show the `N` passages with the most heavy tokens; the table has all"},
		},
		Action: func(ctx context.Context, c *cli.Command) error {
			o, err := routeOptions(c)
			if err != nil {
				return err
			}
			text, err := readText(c.Args().Slice())
			if err != nil {
				return usageError{err}
			}
			if o.html != "" { // before the work, which would be lost
				if err := outFile("html", o.html, append(c.Args().Slice(), c.String("config"), o.weights)); err != nil {
					return err
				}
			}
			r := &routedText{text: text, seed: o.seed, untrained: o.weights == "", heavy: make([]bool, len(text)), logits: make([]float32, len(text))}
			err = a.withDevice(c, func(dev *vk.Device) error {
				bar := a.progress(o.calls(len(text)))
				defer bar.end()
				bar.at("routing")
				r.device = dev.Info().Name
				return onStage(dev, func(s *stage) error { return r.route(ctx, s, o, bar.next) })
			})
			if err == nil && o.html != "" {
				var page bytes.Buffer
				if err = writePage(&page, r, c.Args().Slice()); err == nil {
					err = atomicfile.Write(o.html, page.Bytes())
				}
			}
			if err != nil {
				return err
			}
			return a.show(c, r, o.passages)
		},
	}
}

// routeConfig is what the flags say.
type routeConfig struct {
	html, weights           string
	seed                    uint64
	length, batch, passages int
	module                  colt5.ConditionalRoutedFeedForwardConfig
}

func routeOptions(c *cli.Command) (routeConfig, error) {
	o := routeConfig{
		html: c.String("html"), weights: c.String("weights"), seed: c.Uint64("seed"),
		length: c.Int("length"), batch: c.Int("batch"), passages: c.Int("passages"),
		module: colt5.Default[colt5.ConditionalRoutedFeedForwardConfig](),
	}
	if !c.Args().Present() {
		return o, usage("route needs a text file")
	}
	for _, name := range []string{"length", "batch", "passages", "dim", "heavy"} {
		if n := c.Int(name); (c.IsSet(name) || n != 0) && (n < 1 || n > math.MaxInt32) {
			return o, usage("-%s is %d, want 1 to %d", name, n, math.MaxInt32)
		}
	}
	if !strings.Contains(" text md csv json jsonl ", " "+c.String("o")+" ") {
		return o, usage("-o is %q, want text, md, csv, json or jsonl", c.String("o"))
	}
	if path := c.String("config"); path != "" {
		data, err := os.ReadFile(path)
		if err == nil {
			err = json.Unmarshal(data, &o.module)
		}
		if err != nil {
			return o, usage("-config %s: %w", path, err)
		}
	}
	if c.Int("dim") > 0 {
		o.module.Dim = c.Int("dim")
	} else if o.module.Dim == 0 {
		o.module.Dim = 512
	}
	if c.Int("heavy") > 0 {
		o.module.NumHeavyTokens = c.Int("heavy")
	} else if o.module.NumHeavyTokens == 0 {
		o.module.NumHeavyTokens = max(o.length/32, 1)
	}
	return o, nil
}

// calls is how many calls a text of so many bytes takes: those of whole pieces, and one of the rest.
func (o routeConfig) calls(bytes int) int {
	whole, rest := bytes/o.length, min(bytes%o.length, 1)
	return (whole+o.batch-1)/o.batch + rest
}

// readText reads files one after the other, with a line between them.
func readText(paths []string) ([]byte, error) {
	var text []byte
	for i, path := range paths {
		data, err := readFile(path)
		if err != nil {
			return nil, err
		}
		if i > 0 && len(data) > 0 && len(text) > 0 {
			text = append(text, '\n')
		}
		text = append(text, data...)
	}
	if len(text) == 0 {
		return nil, fmt.Errorf("%s is empty, want at least one byte", strings.Join(paths, ", "))
	}
	return text, nil
}

func readFile(path string) ([]byte, error) {
	if path == "-" {
		return io.ReadAll(os.Stdin)
	}
	return os.ReadFile(path)
}

// routedText is a text and what became of its bytes.
type routedText struct {
	text      []byte
	heavy     []bool    // routed to the heavy branch
	logits    []float32 // of the router
	seed      uint64
	untrained bool // no weights of the user's
	device    string
	config    colt5.ConditionalRoutedFeedForwardConfig

	calls, chosen           int
	routerTime, moduleTime  time.Duration // on the GPU
	mostBatch, mostTokens   int           // of a call
	workspace, deviceMemory uint64
	router                  routerSums
}

// routerSums are sums over a router's decisions.
type routerSums struct{ wanted, scores, chosen, saturated, slots, empty, ties float64 }

func (s *routerSums) add(d colt5.RoutingRecord) {
	r, slots := d.Statistics, float64(len(d.Indices))
	descents, filled := float64(len(d.SoftScores))/float64(d.Block), slots*(1-r.Empty)
	s.wanted, s.scores = s.wanted+descents*r.K, s.scores+descents*r.ScoreSum
	s.slots, s.empty, s.chosen, s.saturated = s.slots+slots, s.empty+slots*r.Empty, s.chosen+filled, s.saturated+filled*r.Saturated
	s.ties += float64(r.Ties)
}

// String is a line about the router, which must have decided something.
func (s routerSums) String() string {
	return fmt.Sprintf("router: the soft scores sum to %s of what they should, %s of the heavy tokens have a score of 1, %s of the slots are empty, %.0f ties at a cut",
		percent(s.scores/s.wanted), percent(s.saturated/max(s.chosen, 1)), percent(s.empty/s.slots), s.ties)
}

// route runs the text through the router and the feedforward.
func (r *routedText) route(ctx context.Context, s *stage, o routeConfig, next func()) error {
	r.config = o.module
	if _, err := o.module.Memory(s.dev.Caps(), 1, 1); err != nil {
		return usageError{err}
	}
	f, err := colt5.NewConditionalRoutedFeedForward(ctx, s.dev, o.module)
	if f = keep(s, f, err); f == nil {
		return s.err
	}
	if o.weights != "" {
		if err := f.Load(ctx, o.weights); err != nil {
			return usage("-weights %s: %w", o.weights, err)
		}
	} else if err := f.Init(ctx, o.seed); err != nil {
		return err
	}
	choice, err := routerOf(s.dev, f)
	if choice = keep(s, choice, err); choice == nil {
		return s.err
	}
	e := newEmbedding(o.seed, o.module.Dim, r.text)
	for at := 0; at < len(r.text); {
		if err := interrupted(ctx); err != nil {
			return err
		}
		left := len(r.text) - at
		batch, length, heavy := min(o.batch, left/o.length), o.length, o.module.NumHeavyTokens
		if batch == 0 { // the rest
			batch, length = 1, left
			heavy = max(heavy*left/o.length, 1)
		}
		p := piece{at: at, batch: batch, length: length, heavy: heavy}
		if err := onStage(s.dev, func(s *stage) error { return r.call(s, f, choice, e, p) }); err != nil {
			return fmt.Errorf("bytes %d to %d: %w", at, at+batch*length, err)
		}
		at += batch * length
		next()
	}
	r.deviceMemory = s.dev.Stats().PeakBytes
	return interrupted(ctx)
}

// piece is the part of a text that goes through a call: batch times length bytes.
type piece struct{ at, batch, length, heavy int }

// call runs a piece.
func (r *routedText) call(s *stage, f *colt5.ConditionalRoutedFeedForward, choice *colt5.CoordinateDescentRouter,
	e *embedding, p piece) error {
	b, n, c := p.batch, p.length, r.config.Dim
	x, y := s.floats(e.tokens(r.text, p.at, b*n), b, n, c), s.tensor(colt5.F32, b, n, c)
	k := choice.Slots(n, p.heavy)
	out := colt5.Routing{Scores: s.tensor(colt5.F32, b, 1, k), Logits: s.tensor(colt5.F32, b, 1, n)}
	routed := n > p.heavy
	if routed {
		out.Indices = s.tensor(colt5.I32, b, 1, k)
	}
	if s.err != nil {
		return s.err
	}
	if err := choice.Forward(context.TODO(), out, x, p.heavy, colt5.RoutingOptions{}); err != nil {
		return err
	}
	if err := f.Forward(context.TODO(), y, x, colt5.FeedForwardOptions{NumHeavyTokens: p.heavy}); err != nil {
		return err
	}
	routing, err := choice.LastCall()
	module, moduleErr := f.LastCall()
	result, resultErr := y.Float32(context.TODO())
	scores, scoresErr := out.Scores.Float32(context.TODO())
	logits, logitsErr := out.Logits.Float32(context.TODO())
	if err := errors.Join(err, moduleErr, resultErr, scoresErr, logitsErr); err != nil {
		return err
	}
	if err := saneFloats(result, true); err != nil {
		return fmt.Errorf("the feedforward's result: %w", err)
	}
	copy(r.logits[p.at:], logits)
	var indices []int32
	if routed {
		if indices, err = out.Indices.Int32(context.TODO()); err != nil {
			return err
		}
		if err := r.inspect(choice, out, x, p.heavy); err != nil {
			return err
		}
	}
	r.mark(p, k, indices, scores)
	r.calls++
	r.routerTime, r.moduleTime = r.routerTime+routing.Time, r.moduleTime+module.Time
	r.mostBatch, r.mostTokens, r.workspace = max(r.mostBatch, b), max(r.mostTokens, n), max(r.workspace, module.Workspace)
	return nil
}

// inspect routes once more, to see how the router is doing: what that takes is no part of the times.
func (r *routedText) inspect(choice *colt5.CoordinateDescentRouter, out colt5.Routing, x *colt5.Tensor, tokens int) error {
	choice.Inspect(true)
	defer choice.Inspect(false)
	if err := choice.Forward(context.TODO(), out, x, tokens, colt5.RoutingOptions{}); err != nil {
		return err
	}
	decisions, err := choice.LastRouting()
	for _, d := range decisions {
		r.router.add(d)
	}
	return err
}

// mark notes which bytes of a piece were chosen. Without indices all were.
func (r *routedText) mark(p piece, k int, indices []int32, scores []float32) {
	for slot, score := range scores {
		if score == 0 {
			continue
		}
		token := slot % k
		if indices != nil {
			token = int(indices[slot])
		}
		if at := p.at + slot/k*p.length + token; !r.heavy[at] {
			r.heavy[at] = true
			r.chosen++
		}
	}
}
