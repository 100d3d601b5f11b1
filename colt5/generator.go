package colt5

import (
	"context"
	"errors"
	"fmt"

	"github.com/colt5-vulkan/colt5/pipelines"
	"github.com/colt5-vulkan/colt5/vk"
)

// Generator computes the logits of one sequence, token after token. The rows of earlier windows, and their keys and values,
// are kept on the device: a token costs a forward pass over the window that it is in, plus the logits of the routers of all
// tokens.
//
//	g, err := colt5.NewGenerator(ctx, transformer, 8192)
//	defer g.Close()
//	logits, err := g.Append(ctx, prompt...)       // of the token after the prompt
//	logits, err = g.Append(ctx, choose(logits))   // and so on
//
// The logits are those of Forward over the same tokens; in float32, bit for bit. Weights that change do not change what the
// generator has kept: call Reset.
type Generator struct {
	lifecycle
	model    *AutoregressiveTransformer
	capacity int // tokens, whole windows
	ids      []int32
	logits   []float32 // of the window, on the host

	inputs  []*Tensor // [capacity, C] of each layer, then the last one's result
	middle  *Tensor   // [capacity, C] rows between attention and feedforward, of one layer at a time
	keys    []*Tensor // keys and values of each layer; nil with one window
	x       *Tensor   // [1, window] token ids
	y       *Tensor   // [window, V]
	plans   planCache[int]
	kernels kernels
	shares  uint64 // of the model's weights, when the plans were made
}

// NewGenerator makes a generator for sequences of up to length tokens. The transformer needs CausalQueryRouting, without which
// later tokens change the logits of earlier ones, and stays the caller's.
func NewGenerator(ctx context.Context, t *AutoregressiveTransformer, length int) (*Generator, error) {
	const op = "NewGenerator"
	switch {
	case t == nil || t.busy == nil || t.dev == nil:
		return nil, fmt.Errorf("colt5: %s: the transformer is %w", op, errors.New("nil or made without a device, want one made by NewAutoregressiveTransformer"))
	case length < 1 || length > maxSelect:
		return nil, fmt.Errorf("colt5: %s: length is %d, want 1 to %d", op, length, maxSelect)
	case !t.config.CausalQueryRouting && length > t.config.window():
		return nil, fmt.Errorf("colt5: %s: CausalQueryRouting is false, want true for more than a window, %d tokens", op, t.config.window())
	}
	if err := needContext(op, ctx); err != nil {
		return nil, err
	}
	if err := t.enter(ctx, op); err != nil {
		return nil, err
	}
	t.leave()
	window := t.config.window()
	g := &Generator{lifecycle: newLifecycle(), model: t, kernels: newKernels(t.dev), capacity: (length + window - 1) / window * window}
	if err := g.allocate(); err != nil {
		return nil, errors.Join(fmt.Errorf("colt5: %s: %w", op, err), g.Close())
	}
	return g, nil
}

func (g *Generator) allocate() error {
	c, window := g.model.config, g.model.config.window()
	g.logits = make([]float32, window*c.NumTokens)
	new := func(dtype DType, shape ...int) (*Tensor, error) { return NewTensor(g.model.dev, dtype, shape...) }
	var err error
	if g.x, err = new(I32, 1, window); err != nil {
		return err
	}
	if g.y, err = new(F32, window, c.NumTokens); err != nil {
		return err
	}
	if g.middle, err = new(F32, g.capacity, c.Dim); err != nil {
		return err
	}
	for range c.Depth + 1 {
		t, err := new(F32, g.capacity, c.Dim)
		if err != nil {
			return err
		}
		g.inputs = append(g.inputs, t)
	}
	for i := 0; i < c.Depth && g.capacity > window; i++ {
		t, err := new(F32, g.capacity, 2*c.HeavyHeads*c.HeavyDimHead) // with 16-bit elements, half of it
		if err != nil {
			return err
		}
		g.keys = append(g.keys, t)
	}
	return nil
}

// Len is the number of tokens so far.
func (g *Generator) Len() int {
	if g.lock(context.Background()) != nil {
		return 0
	}
	defer g.leave()
	return len(g.ids)
}

// Reset forgets all tokens.
func (g *Generator) Reset() {
	if g.lock(context.Background()) == nil {
		g.ids = g.ids[:0]
		g.leave()
	}
}

// Append adds tokens to the sequence, and returns the logits of the token after the last one. The slice is reused by the next
// call. If it fails, the sequence is as before.
func (g *Generator) Append(ctx context.Context, ids ...int) ([]float32, error) {
	fail := func(err error) error { return fmt.Errorf("colt5: Generator.Append: %w", err) }
	if err := g.lock(ctx); err != nil {
		return nil, fail(err)
	}
	defer g.leave()
	c := g.model.config
	switch {
	case g.closed:
		return nil, fail(fmt.Errorf("the generator is %w", vk.ErrClosed))
	case len(ids) == 0:
		return nil, fail(errors.New("there are no tokens, want at least one"))
	case len(ids) > g.capacity-len(g.ids):
		return nil, fail(fmt.Errorf("%d tokens after %d, want at most %d in all", len(ids), len(g.ids), g.capacity))
	}
	before := len(g.ids)
	for i, id := range ids {
		if id < 0 || id >= c.NumTokens {
			g.ids = g.ids[:before]
			return nil, fail(fmt.Errorf("token %d is %d, want 0 to %d", i, id, c.NumTokens-1))
		}
		g.ids = append(g.ids, int32(id))
	}
	for first := before / c.window() * c.window(); first < len(g.ids); first += c.window() {
		if err := g.run(ctx, first); err != nil {
			g.ids = g.ids[:before]
			return nil, fail(err)
		}
	}
	last := (len(g.ids) - 1) % c.window()
	return g.logits[last*c.NumTokens : (last+1)*c.NumTokens], nil
}

// run computes the rows and the logits of the window from token first on. Tokens that are not there yet are 0; no row sees a
// later one.
func (g *Generator) run(ctx context.Context, first int) error {
	window := g.model.config.window()
	ids := make([]int32, window)
	copy(ids, g.ids[first:min(first+window, len(g.ids))])
	if err := g.x.Write(ctx, ids); err != nil {
		return err
	}
	m := &g.model.base
	if err := m.enter(ctx, "Forward"); err != nil {
		return err
	}
	defer m.leave()
	if g.shares != m.weights.shares { // plans hold the addresses of weights
		if err := g.plans.close(); err != nil {
			return err
		}
		g.shares = m.weights.shares
	}
	number := first / window
	p := g.plans.find(number)
	if p == nil {
		l := &generatorWindow{generator: g, number: number}
		c := call{args: args{
			{name: "x", tensor: g.x, dtype: I32, shape: shape{dimB, dimN}},
			{name: "y", tensor: g.y, shape: shape{dimN, g.model.config.NumTokens}, kind: output},
		}}
		c.bind(dimB, 1)
		c.bind(dimN, window)
		var err error
		p, err = newPlan(ctx, m.dev, "generator", singleNode(c, l, m.precision, &g.kernels), false, &g.plans)
		if err != nil {
			return err
		}
		g.plans.add(number, p, p.stats.Workspace)
	}
	if err := m.weights.cast(ctx); err != nil {
		return err
	}
	if err := p.run(ctx, []external{{g.x, false}, {g.y, true}}); err != nil {
		return err
	}
	return g.y.Read(ctx, g.logits)
}

// Close frees what the generator has kept. Closing again, or nil, does nothing.
func (g *Generator) Close() error {
	if g == nil || g.busy == nil {
		return nil
	}
	g.busy <- struct{}{}
	defer g.leave()
	g.closed = true
	err := errors.Join(g.plans.close(), g.kernels.close(), g.x.Close(), g.y.Close(), g.middle.Close())
	for _, t := range append(append([]*Tensor(nil), g.inputs...), g.keys...) {
		err = errors.Join(err, t.Close())
	}
	return err
}

// generatorWindow is the forward pass over one window of a sequence, with the rows before it in the generator's tensors.
type generatorWindow struct {
	generator *Generator
	number    int // of the window
}

func (l *generatorWindow) record(b *builder) {
	g, t := l.generator, l.generator.model.layer.(*autoregressiveTransformer)
	c, window := t.config, t.config.window()
	first := l.number * window
	own := func(t *Tensor) vk.Range { return rows(t.memory, first, window, 4*c.Dim) }
	b.embed(t.embed, own(g.inputs[0]), window)
	for i, a := range t.attention {
		var keys *Tensor
		if g.keys != nil {
			keys = g.keys[i]
		}
		a.windowForward(b, attentionInput{
			attentionSizes: attentionSizes{b: 1, n: first + window, tokensQ: c.NumHeavyTokensQ, tokensKV: c.NumHeavyTokensKV},
			y:              g.middle.memory, x: g.inputs[i].memory, residual: true,
		}, keys)
		recordInterleaved(t.feedForward[i].phases(b, own(g.inputs[i+1]), own(g.middle), window, hiddenBytes, true))
	}
	t.head().logits(b, own(g.inputs[c.Depth]), b.arg("y"), operand{}, window)
}

// windowForward is forward for the last window of a.n tokens of one item, a whole number of windows. The rows of y before it
// are not computed. kept has the keys and values of all windows but the last two; those of the second but last are added.
func (l *autoregressiveAttention) windowForward(b *builder, a attentionInput, kept *Tensor) {
	c, window := l.config, l.config.window()
	last := a.n - window
	output := lightOutput{b: b, x: a.x, y: a.y, residual: a.residual}
	light := func() phases {
		s := tokenGroup{items: 1, first: max(0, last/l.light.window*l.light.window-l.light.window), from: last, count: window}
		s.rows = a.n - s.first
		return l.light.group(output, vk.Range{}, l.light.rotaryTable(b, a.n), 1, a.n, s)
	}
	if last == 0 {
		recordInterleaved(light())
		return
	}
	x := rows(a.x, 0, a.n, 4*c.Dim)
	q, kv := l.routers(a)
	h := &heavyForward{heavyAttention: &l.heavy, b: b, x: x, context: x, q: q, kv: kv, projectAllKeys: true}
	out := unselectedRows{b: b, q: q, y: a.y, x: a.x, null: l.null, dim: c.Dim, residual: a.residual, prefix: window}
	b.recordLogits(x, q, kv)
	l.recordTopK(b, q, kv)
	out.recordMembershipMask()
	output = out.lightOutput()
	recordInterleaved(light())
	out.release()

	h.keys = b.allocHeads(h.dimHead, 2*h.heads, 0)
	h.keys.Range = kept.memory
	width := 2 * h.inner()
	before := h.keys.rows(last-window, window)
	h.projectKeyRows(rows(x, last-window, window, 4*c.Dim), before, window)
	if h.rotary {
		h.rotateKeyRows(b.rotaryTable(a.n, h.dimHead), h.keys, before, 1, window, last-window)
	}
	h.keys.Range = h.keys.rows(0, a.n)
	h.keys.width = width
	l.attendLastWindow(b, h, a)
	b.release(q.logits, q.indices, q.valid, kv.logits, kv.indices, kv.valid)
}

// attendLastWindow records the attention of the queries of the last window and the output projection. It is recorded for the
// lists of the last two windows, because lists see keys by the number of their window.
func (l *autoregressiveAttention) attendLastWindow(b *builder, h *heavyForward, a attentionInput) {
	all, keys := h.q, h.kv
	two, kv := *all, *keys
	lastWords := func(m allocation, count int) allocation {
		if !m.IsZero() {
			m.Range = m.Slice(m.Size()-4*uint64(count), 4*uint64(count))
		}
		return m
	}
	lists := func(count int) routerState {
		s := *all
		s.k = count * all.perBlock
		s.indices, s.valid = lastWords(all.indices, s.k), lastWords(all.valid, s.k)
		return s
	}
	two = lists(2)
	kv.windows, kv.windowSize = 2, a.n-l.config.window()
	kv.indices, kv.valid = lastWords(keys.indices, 2*kv.r*kv.k), lastWords(keys.valid, 2*kv.r*kv.k)
	h.q, h.kv = &two, &kv
	h.projectQueries()
	if h.rotary {
		h.rotateQueries(b.rotaryTable(a.n, h.dimHead), h.queries)
	}
	h.recordAttention(false)
	b.release(h.queries.allocation)
	one := lists(1)
	out := h.attended
	if !out.IsZero() {
		out.Range = out.rows(two.k-one.k, one.k)
	}
	b.linear(h.toOut, 0, 0, pipelines.LinearConfig{X16: out.is16, Residual: true, Scatter: true, Valid: true}, pipelines.LinearArgs{
		X: out.Range, Y: rows(a.y, 0, a.n, 4*h.dim), Residual: rows(a.y, 0, a.n, 4*h.dim), Batch: 1, Rows: one.k, OutRows: a.n,
		Scatter: one.indices.Range, Valid: one.valid.Range,
	})
	b.release(h.attended.allocation)
}
