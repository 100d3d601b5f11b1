package colt5

import (
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
	Precision             DType         `json:"precision"` // of the matrix products; Float32 is the default
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

// ConditionalRoutedFeedForward sends every token through a light feedforward, and the tokens that a router chooses through a heavy
// one as well.
//
//	x, y [B, N, C] F32    mask [B, N] U8
//	y = light_ff(x) + scatter(heavy_ff(routed x) * score)
//
// A token that is not chosen gets its light output alone; with N <= NumHeavyTokens every real token is chosen.
// Source: arXiv 2303.09752, section 3.
type ConditionalRoutedFeedForward struct {
	module
	config ConditionalRoutedFeedForwardConfig
	layer  routedFeedForward
}

// FeedForwardOptions are the optional arguments of a feedforward.
type FeedForwardOptions struct {
	Mask           *Tensor // [B, N] U8; nil: all tokens are real
	NumHeavyTokens int     // 0: the config's
}

// NewConditionalRoutedFeedForward makes the module on a device, with initial values of seed 0.
func NewConditionalRoutedFeedForward(dev *vk.Device, c ConditionalRoutedFeedForwardConfig) (*ConditionalRoutedFeedForward, error) {
	f := &ConditionalRoutedFeedForward{config: c}
	err := f.start("ConditionalRoutedFeedForward", dev, c.Precision, c.check, func(w *weights) { f.layer = w.routedFeedForward("", c) })
	if err != nil {
		return nil, err
	}
	return f, nil
}

// Config is what the module was made with.
func (f *ConditionalRoutedFeedForward) Config() ConditionalRoutedFeedForwardConfig { return f.config }

// Forward computes y [B, N, C] from x [B, N, C]; the two share no memory.
func (f *ConditionalRoutedFeedForward) Forward(y, x *Tensor, o FeedForwardOptions) error {
	const op = "ConditionalRoutedFeedForward.Forward"
	f.mu.Lock()
	defer f.mu.Unlock()
	tensors := [...]*Tensor{y, x, o.Mask}
	p, err := f.prepared(op, tensors[:], o)
	if err != nil {
		return err
	}
	return f.run(op, p, tensors[:])
}

func (f *ConditionalRoutedFeedForward) prepared(op string, tensors []*Tensor, o FeedForwardOptions) (*plan, error) {
	if f.closed {
		return nil, errClosed(op)
	}
	b, n, err := sequences(op, f.dev, tensors, f.config.Dim)
	if err != nil {
		return nil, err
	}
	heavy, err := checkTokens(op, "NumHeavyTokens", o.NumHeavyTokens, f.config.NumHeavyTokens)
	if err != nil {
		return nil, err
	}
	key := planKey{sizes: [6]int{b, n, heavy}, given: [2]bool{o.Mask != nil}}
	if p := f.find(&key); p != nil {
		return p, nil
	}
	return f.plan(op, key, tensors)
}

func (f *ConditionalRoutedFeedForward) plan(op string, key planKey, tensors []*Tensor) (*plan, error) {
	return f.prepare(op, key, tensors, []string{"y", "x", "Mask"}, func(b *builder) {
		f.layer.forward(b, feedForwardInput{
			b: key.sizes[0], n: key.sizes[1], tokens: key.sizes[2], masked: key.given[0], y: b.slot(0), x: b.slot(1), mask: b.slot(2),
		})
	})
}

// Close frees the module and its weights. Closing again, or nil, does nothing.
func (f *ConditionalRoutedFeedForward) Close() error {
	if f == nil {
		return nil
	}
	return f.close()
}

// Memory tells what a call for x [b, n, C] needs of a device with these capabilities, without a mask.
func (c ConditionalRoutedFeedForwardConfig) Memory(caps vk.Caps, b, n int) (Memory, error) {
	const op = "ConditionalRoutedFeedForwardConfig.Memory"
	if err := firstError(c.check(op), checkSizes(op, b, n)); err != nil {
		return Memory{}, err
	}
	var layer routedFeedForward
	bytes := 4 * uint64(b) * uint64(n) * uint64(c.Dim)
	return measure(op, caps, c.Precision, bytes, bytes, func(w *weights) { layer = w.routedFeedForward("", c) }, func(to *builder) {
		layer.forward(to, feedForwardInput{b: b, n: n, tokens: c.NumHeavyTokens})
	})
}

// feedForward is RMSNorm, Linear, GELU, Linear: the weights of one branch.
type feedForward struct {
	dim, hidden                 int
	rows                        int // of an item, if the configuration fixes them; 0: it does not
	gamma, w1, bias1, w2, bias2 *Tensor
}

func (w *weights) feedForward(name string, dim int, mult float64) feedForward {
	hidden := int(float64(dim) * mult)
	return feedForward{
		dim: dim, hidden: hidden,
		gamma: w.add(name+".0.gamma", ones, dim),
		w1:    w.matrix(name+".1.weight", hidden, dim),
		bias1: w.add(name+".1.bias", uniform(dim), hidden),
		w2:    w.matrix(name+".3.weight", dim, hidden),
		bias2: w.add(name+".3.bias", uniform(hidden), dim),
	}
}

// up records norm, the first Linear and GELU, to hidden; down the second Linear, from it. Rows of a.X that are normed already have 16 bits.
func (f feedForward) up(b *builder, hidden operand, normed bool, c pipelines.LinearConfig, a pipelines.LinearArgs) {
	c.Bias, c.GELU, c.Norm, c.X16, c.Y16 = true, true, !normed, normed, hidden.is16
	c.Split = b.split(f.w1, f.rows)
	a.Bias, a.Y = f.bias1.memory, hidden.Range
	if !normed {
		a.Gamma = f.gamma.memory
	}
	b.linear(f.w1, 0, 0, c, a)
}

func (f feedForward) down(b *builder, hidden operand, c pipelines.LinearConfig, a pipelines.LinearArgs) {
	c.Bias, c.X16, c.Split = true, hidden.is16, b.split(f.w2, f.rows)
	a.Bias, a.X = f.bias2.memory, hidden.Range
	b.linear(f.w2, 0, 0, c, a)
}

// hiddenBytes is the most that the hidden rows of a branch that sees every token take: longer sequences go through it in groups.
const hiddenBytes = 64 << 20

// stages wires the branch for count rows: two stages a group, three with 16 bits. With residual x is added to y, which may be x itself.
func (f feedForward) phases(b *builder, y, x vk.Range, count, budget int, residual bool) phases {
	each := min(count, max(budget/(4*f.hidden)&^127, 128))
	var list phases
	for first := 0; first < count; first += each {
		var normed, hidden operand
		n := min(each, count-first)
		a := pipelines.LinearArgs{X: rows(x, first, n, 4*f.dim), Batch: 1, Rows: n}
		if b.uses16Bit(f.dim) {
			list = append(list, func() {
				normed = b.rmsNorm(a.X, f.gamma, n)
				a.X = normed.Range
			})
		}
		list = append(list, func() {
			hidden = b.allocOperand(f.hidden, n)
			f.up(b, hidden, normed.is16, pipelines.LinearConfig{}, a)
			b.release(normed.block)
		}, func() {
			a := pipelines.LinearArgs{Y: rows(y, first, n, 4*f.dim), Batch: 1, Rows: n}
			if residual {
				a.Residual = rows(x, first, n, 4*f.dim)
			}
			f.down(b, hidden, pipelines.LinearConfig{Residual: residual}, a)
			b.release(hidden.block)
		})
	}
	return list
}

// routedFeedForward is the weights and the wiring of a ConditionalRoutedFeedForward.
type routedFeedForward struct {
	config       ConditionalRoutedFeedForwardConfig
	token        *Tensor // [1, C]
	light, heavy feedForward
	budget       int // bytes of the light branch's hidden rows; hiddenBytes but in tests
}

func (w *weights) routedFeedForward(prefix string, c ConditionalRoutedFeedForwardConfig) routedFeedForward {
	return routedFeedForward{
		config: c, budget: hiddenBytes,
		token: w.routingToken(prefix+"router.routing_token", 1, c.Dim, c.Router),
		light: w.feedForward(prefix+"light_ff", c.Dim, c.LightFFMult),
		heavy: w.feedForward(prefix+"heavy_ff", c.Dim, c.HeavyFFMult),
	}
}

// feedForwardCall is one use of a routed feedforward in a plan.
type feedForwardInput struct {
	b, n, tokens int
	masked       bool
	name         string   // what its router's name starts with
	y, x, mask   vk.Range // y shares no memory with x, or, with residual, is x
	residual     bool     // add x
}

// wire puts the choice of tokens beside the first half of the light branch, and the first half of the heavy branch beside the second of
// the light one: neither needs the other. The heavy half that reads x comes before x may change.
func (f *routedFeedForward) forward(b *builder, a feedForwardInput) {
	c := f.config
	q := newRouterState(a.name+"router", f.token, c.Router, c.RouterStraightThrough, c.Router.routing(a.b, a.n, 1, c.Dim, a.tokens), a.masked)
	var hidden operand
	heavy := phases{func() { b.recordLogits(a.x, q); b.recordTopK(a.mask, q); b.finishRouting(a.mask, q) }, func() {
		hidden = b.allocOperand(f.heavy.hidden, a.b, q.k)
		if b.uses16Bit(c.Dim) {
			normed := b.rmsNormSelected(a.x, f.heavy.gamma, q)
			f.heavy.up(b, hidden, true, pipelines.LinearConfig{}, pipelines.LinearArgs{X: normed.Range, Batch: 1, Rows: a.b * q.k})
			b.release(normed.block)
			return
		}
		up := pipelines.LinearArgs{X: a.x, Batch: a.b, InRows: a.n, Rows: q.k}
		if q.hasLists {
			up.Gather, up.Valid = q.indices.Range, q.valid.Range
		}
		f.heavy.up(b, hidden, false, pipelines.LinearConfig{Gather: q.hasLists, Valid: q.hasLists}, up)
	}}
	recordInterleaved(heavy, f.light.phases(b, a.y, a.x, a.b*a.n, f.budget, a.residual))
	down := pipelines.LinearArgs{Y: a.y, Residual: a.y, Batch: a.b, Rows: q.k, OutRows: a.n, Score: q.scores.Range}
	if q.hasLists {
		down.Scatter, down.Valid = q.indices.Range, q.valid.Range
	}
	f.heavy.down(b, hidden, pipelines.LinearConfig{Residual: true, Scatter: q.hasLists, Valid: q.hasLists, Score: q.soft}, down)
	b.release(hidden.block)
	q.release(b)
}
