package colt5

import (
	"errors"
	"fmt"
	"slices"

	"github.com/colt5-vulkan/colt5/pipelines"
	"github.com/colt5-vulkan/colt5/vk"
)

// ConditionalRoutedFeedForwardConfig configures a ConditionalRoutedFeedForward. Start from DefaultConditionalRoutedFeedForwardConfig,
// zero values are not the defaults.
type ConditionalRoutedFeedForwardConfig struct {
	Dim                   int           `json:"dim"`                     // C, at least 1
	NumHeavyTokens        int           `json:"num_heavy_tokens"`        // tokens for the heavy branch, at least 1; a call may want others
	LightFFMult           float64       `json:"light_ff_mult"`           // hidden size of the light branch is int(C * this), at least 1
	HeavyFFMult           float64       `json:"heavy_ff_mult"`           // hidden size of the heavy branch is int(C * this), at least 1
	RouterStraightThrough bool          `json:"router_straight_through"` // a chosen token scores 1, not its soft score
	Router                RouterOptions `json:"router_kwargs"`
}

// DefaultConditionalRoutedFeedForwardConfig returns the reference's defaults; Dim and NumHeavyTokens are left to the caller.
func DefaultConditionalRoutedFeedForwardConfig() ConditionalRoutedFeedForwardConfig {
	return ConditionalRoutedFeedForwardConfig{LightFFMult: 0.5, HeavyFFMult: 4, RouterStraightThrough: true, Router: DefaultRouterOptions()}
}

// UnmarshalJSON reads a config; what it leaves out has its default, an unknown key is an error.
func (c *ConditionalRoutedFeedForwardConfig) UnmarshalJSON(data []byte) error {
	type plain ConditionalRoutedFeedForwardConfig
	*c = DefaultConditionalRoutedFeedForwardConfig()
	return decode("ConditionalRoutedFeedForwardConfig", data, (*plain)(c))
}

func (c ConditionalRoutedFeedForwardConfig) check(op string) error {
	if err := firstError(
		atLeast(op, "Dim", c.Dim, 1), atLeast(op, "NumHeavyTokens", c.NumHeavyTokens, 1),
		aboveZero(op, "LightFFMult", c.LightFFMult), aboveZero(op, "HeavyFFMult", c.HeavyFFMult), c.Router.check(op),
	); err != nil {
		return err
	}
	return firstError(
		atLeast(op, "int(Dim * LightFFMult)", int(float64(c.Dim)*c.LightFFMult), 1),
		atLeast(op, "int(Dim * HeavyFFMult)", int(float64(c.Dim)*c.HeavyFFMult), 1),
	)
}

// feedForward is RMSNorm, Linear, GELU, Linear: the weights of one branch.
type feedForward struct {
	dim, hidden                 int
	gamma, w1, bias1, w2, bias2 *Tensor
}

func (w *weights) feedForward(name string, dim int, mult float64) (f feedForward, err error) {
	f.dim, f.hidden = dim, int(float64(dim)*mult)
	if f.gamma, err = w.add(name+".0.gamma", ones, dim); err != nil {
		return f, err
	}
	if f.w1, err = w.add(name+".1.weight", uniform(dim), f.hidden, dim); err != nil {
		return f, err
	}
	if f.bias1, err = w.add(name+".1.bias", uniform(dim), f.hidden); err != nil {
		return f, err
	}
	if f.w2, err = w.add(name+".3.weight", uniform(f.hidden), dim, f.hidden); err != nil {
		return f, err
	}
	f.bias2, err = w.add(name+".3.bias", uniform(f.hidden), dim)
	return f, err
}

// ConditionalRoutedFeedForward sends every token through a light feedforward, and the tokens that a router chooses through a heavy
// one as well.
//
//	x, y [B, N, C] F32    mask [B, N] U8
//	y = light_ff(x) + scatter(heavy_ff(routed x) * score)
//
// A token that is not chosen gets its light output alone; with N <= NumHeavyTokens every real token is chosen.
// Source: arXiv 2303.09752, section 3.
type ConditionalRoutedFeedForward struct {
	guard
	dev          *vk.Device
	config       ConditionalRoutedFeedForwardConfig
	weights      weights
	tokens       *Tensor // [1, C]
	light, heavy feedForward
	router       *router
	hidden       int // bytes; hiddenBytes but in tests
	linears      linears
	plans        plans[feedForwardKey]
}

// ForwardOptions are the optional arguments of a feedforward.
type ForwardOptions struct {
	Mask           *Tensor // [B, N] U8; nil: all tokens are real
	NumHeavyTokens int     // 0: the config's
}

type feedForwardKey struct {
	b, n, heavy int
	mask        bool
}

// linears are the matrix products of a module, compiled when they are first needed.
type linears map[pipelines.LinearConfig]*pipelines.Linear

func (l linears) get(dev *vk.Device, c pipelines.LinearConfig) (*pipelines.Linear, error) {
	if have := l[c]; have != nil {
		return have, nil
	}
	made, err := pipelines.NewLinear(dev, c)
	if err == nil {
		l[c] = made
	}
	return made, err
}

func (l linears) close() error {
	var err error
	for _, x := range l {
		err = errors.Join(err, x.Close())
	}
	return err
}

// NewConditionalRoutedFeedForward makes the module on a device, with initial values of seed 0.
func NewConditionalRoutedFeedForward(dev *vk.Device, c ConditionalRoutedFeedForwardConfig) (*ConditionalRoutedFeedForward, error) {
	const op = "NewConditionalRoutedFeedForward"
	if err := firstError(needDevice(op, dev), c.check(op)); err != nil {
		return nil, err
	}
	f := &ConditionalRoutedFeedForward{dev: dev, config: c, weights: weights{dev: dev}, hidden: hiddenBytes, linears: linears{}}
	if err := f.build(); err != nil {
		return nil, errors.Join(fmt.Errorf("colt5: %s: %w", op, err), f.Close())
	}
	return f, nil
}

func (f *ConditionalRoutedFeedForward) build() (err error) {
	c := f.config
	if f.tokens, err = f.weights.routingToken("router.routing_token", 1, c.Dim, c.Router); err != nil {
		return err
	}
	if f.light, err = f.weights.feedForward("light_ff", c.Dim, c.LightFFMult); err != nil {
		return err
	}
	if f.heavy, err = f.weights.feedForward("heavy_ff", c.Dim, c.HeavyFFMult); err != nil {
		return err
	}
	if f.router, err = newRouter(f.dev, c.Router, 1, c.Dim, false); err != nil {
		return err
	}
	return f.weights.init(0)
}

// Config is what the module was made with.
func (f *ConditionalRoutedFeedForward) Config() ConditionalRoutedFeedForwardConfig { return f.config }

// Parameters are the weights under their PyTorch names.
func (f *ConditionalRoutedFeedForward) Parameters() []Parameter { return slices.Clone(f.weights.list) }

// Init gives the weights their initial values; the same seed gives the same values on every device.
func (f *ConditionalRoutedFeedForward) Init(seed uint64) error {
	return f.exclusive("ConditionalRoutedFeedForward.Init", func() error { return f.weights.init(seed) })
}

// Load reads the weights from a safetensors file: all of them, and nothing else.
func (f *ConditionalRoutedFeedForward) Load(path string) error {
	const op = "ConditionalRoutedFeedForward.Load"
	return f.exclusive(op, func() error { return f.weights.load(op, path) })
}

// Save writes the weights to a safetensors file, which is replaced whole or not at all.
func (f *ConditionalRoutedFeedForward) Save(path string) error {
	const op = "ConditionalRoutedFeedForward.Save"
	return f.exclusive(op, func() error { return f.weights.save(op, path) })
}

// Forward computes y [B, N, C] from x [B, N, C]; the two share no memory.
func (f *ConditionalRoutedFeedForward) Forward(y, x *Tensor, o ForwardOptions) error {
	const op = "ConditionalRoutedFeedForward.Forward"
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return errClosed(op)
	}
	tensors := [...]*Tensor{y, x, o.Mask}
	p, err := f.prepared(op, tensors[:], o)
	if err != nil {
		return err
	}
	return f.run(op, p, tensors[:])
}

// prepared checks a call and returns its plan.
func (f *ConditionalRoutedFeedForward) prepared(op string, tensors []*Tensor, o ForwardOptions) (*plan, error) {
	y, x := tensors[0], tensors[1]
	if err := x.want(op, "x", f.dev, F32, -1, -1, f.config.Dim); err != nil {
		return nil, err
	}
	b, n := x.shape[0], x.shape[1]
	heavy, err := checkTokens(op, "NumHeavyTokens", o.NumHeavyTokens, f.config.NumHeavyTokens)
	if err := firstError(err, y.want(op, "y", f.dev, F32, b, n, f.config.Dim), o.Mask.optional(op, "Mask", f.dev, U8, b, n)); err != nil {
		return nil, err
	}
	key := feedForwardKey{b, n, heavy, o.Mask != nil}
	p := f.plans.find(key)
	if p == nil {
		if p, err = f.plan(key, tensors); err != nil {
			return nil, fmt.Errorf("colt5: %s: %w", op, err)
		}
		if err := f.plans.add(key, p); err != nil {
			return nil, fmt.Errorf("colt5: %s: %w", op, err)
		}
	}
	return p, nil
}

// hiddenBytes is the most that the light branch's hidden rows take: longer sequences go through it in groups.
const hiddenBytes = 64 << 20

// feedForwardLayout is the memory between the steps of a call.
type feedForwardLayout struct {
	layout
	rows                                                   int // of the light branch that go together
	logits, soft, indices, filled, scores, choose, descent piece
	lightHidden, heavyHidden                               piece
	choice /* tokens are chosen */, scored/* by soft score */ bool
}

func (f *ConditionalRoutedFeedForward) layout(s routing, masked bool) *feedForwardLayout {
	l := &feedForwardLayout{choice: s.routed || masked, scored: s.routed && !f.config.RouterStraightThrough}
	tokens := s.b * s.n
	l.rows = min(tokens, max(f.hidden/(4*f.light.hidden)&^127, 128))
	l.lightHidden = l.take(4 * uint64(l.rows) * uint64(f.light.hidden))
	if l.choice {
		l.indices, l.filled = l.take(s.slotBytes()), l.take(s.slotBytes())
		l.logits = l.take(s.logitsBytes())
		l.choose = l.take(f.router.selectBytes(s))
	}
	if l.scored {
		l.scores, l.soft = l.take(s.slotBytes()), l.take(s.logitsBytes())
		l.descent = l.take(f.router.descentBytes(s))
	}
	l.give(l.logits, l.choose, l.soft, l.descent)
	l.heavyHidden = l.take(4 * uint64(s.b) * uint64(s.k) * uint64(f.heavy.hidden))
	return l
}

func (f *ConditionalRoutedFeedForward) plan(key feedForwardKey, tensors []*Tensor) (*plan, error) {
	s := f.config.Router.routing(key.b, key.n, 1, f.config.Dim, key.heavy)
	l := f.layout(s, key.mask)
	b, err := f.newBuilder(f.dev, "ConditionalRoutedFeedForward", &l.layout, tensors, "y", "x", "Mask")
	if err != nil {
		return nil, err
	}
	return b.done(f.record(b, s, l))
}

// record puts the choice of tokens beside the first half of the light branch, and the first half of the heavy branch beside the
// second of the light one: neither needs the other.
func (f *ConditionalRoutedFeedForward) record(b *builder, s routing, l *feedForwardLayout) error {
	a := routed{
		x: b.slot(1), mask: b.slot(2), tokens: f.tokens.memory, logits: b.at(l.logits), indices: b.at(l.indices), filled: b.at(l.filled),
		softScores: b.at(l.soft), scores: b.at(l.scores), select_: b.at(l.choose), descentTmp: b.at(l.descent),
	}
	if s.routed {
		if err := f.router.recordLogits(b.tape, s, a); err != nil {
			return err
		}
	} else if l.choice {
		if err := b.tape.Fill(a.logits, 0); err != nil { // all real tokens are taken
			return err
		}
	}
	if l.choice {
		if err := f.router.recordChoice(b.tape, s, a); err != nil {
			return err
		}
	}
	if l.scored {
		if err := f.router.recordScores(b.tape, s, a); err != nil {
			return err
		}
	}
	return f.recordBranches(b, s, l, a)
}

func (f *ConditionalRoutedFeedForward) recordBranches(b *builder, s routing, l *feedForwardLayout, a routed) error {
	first := pipelines.LinearConfig{Bias: true, GELU: true, Norm: true}
	second := pipelines.LinearConfig{Bias: true}
	y, x, row := b.slot(0), b.slot(1), 4*uint64(s.c)
	for start := 0; start < s.b*s.n; start += l.rows {
		rows := min(l.rows, s.b*s.n-start)
		at, size := uint64(start)*row, uint64(rows)*row
		hidden := b.at(l.lightHidden).Slice(0, 4*uint64(rows)*uint64(f.light.hidden))
		if err := f.first(b, f.light, first, pipelines.LinearArgs{X: x.Slice(at, size), Y: hidden, Batch: 1, Rows: rows}); err != nil {
			return err
		}
		if err := f.second(b, f.light, second, pipelines.LinearArgs{X: hidden, Y: y.Slice(at, size), Batch: 1, Rows: rows}); err != nil {
			return err
		}
	}
	up := pipelines.LinearArgs{X: x, Y: b.at(l.heavyHidden), Batch: s.b, InRows: s.n, Rows: s.k}
	down := pipelines.LinearArgs{X: b.at(l.heavyHidden), Y: y, Residual: y, Batch: s.b, Rows: s.k, OutRows: s.n}
	second.Residual = true
	if l.choice {
		first.Gather, first.Filled, second.Scatter, second.Filled = true, true, true, true
		up.Gather, up.Filled, down.Scatter, down.Filled = a.indices, a.filled, a.indices, a.filled
	}
	if l.scored {
		second.Score, down.Score = true, a.scores
	}
	if err := f.first(b, f.heavy, first, up); err != nil {
		return err
	}
	return f.second(b, f.heavy, second, down)
}

// first records norm, the first Linear and GELU of a branch; second its second Linear.
func (f *ConditionalRoutedFeedForward) first(b *builder, w feedForward, c pipelines.LinearConfig, a pipelines.LinearArgs) error {
	c.In, c.Out = w.dim, w.hidden
	a.W, a.Bias, a.Gamma = w.w1.memory, w.bias1.memory, w.gamma.memory
	return f.linear(b, c, a)
}

func (f *ConditionalRoutedFeedForward) second(b *builder, w feedForward, c pipelines.LinearConfig, a pipelines.LinearArgs) error {
	c.In, c.Out = w.hidden, w.dim
	a.W, a.Bias = w.w2.memory, w.bias2.memory
	return f.linear(b, c, a)
}

func (f *ConditionalRoutedFeedForward) linear(b *builder, c pipelines.LinearConfig, a pipelines.LinearArgs) error {
	l, err := f.linears.get(f.dev, c)
	if err != nil {
		return err
	}
	return l.Record(b.tape, a)
}

// Close frees the module and its weights. Closing again, or nil, does nothing.
func (f *ConditionalRoutedFeedForward) Close() error {
	if f == nil {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true // what fails to close, because the device is still busy, is tried again by another Close
	return errors.Join(f.plans.close(), f.linears.close(), f.router.Close(), f.weights.close())
}
