package colt5

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/internal/ref"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// causal is a module that looks back only, as these tests see it: an item is n tokens of in values, and gives n tokens of out floats.
type causal struct {
	in, out int
	run     func(items, n int, x []float32) []float32
}

// trials is how many edits, and how many prefixes, a property is tried with; fewTrials where another config, or a whole stack, has it too.
const trials, fewTrials = 1000, 250

func causalAttention(fx *fixture, c ConditionalRoutedAutoregressiveAttentionConfig) causal {
	fx.t.Helper()
	m := mustNewSeeded(fx, NewConditionalRoutedAutoregressiveAttention, c)
	return causal{c.Dim, c.Dim, func(items, n int, x []float32) []float32 {
		y := fx.tensor(F32, items, n, c.Dim)
		require.NoError(fx.t, m.Forward(y, fx.floats(x, items, n, c.Dim), AutoregressiveOptions{}))
		return fx.read(y)
	}}
}

func causalTransformer(fx *fixture, c AutoregressiveTransformerConfig) causal {
	fx.t.Helper()
	m := mustNewSeeded(fx, NewAutoregressiveTransformer, c)
	return causal{1, c.NumTokens, func(items, n int, x []float32) []float32 {
		ids, y := make([]uint8, len(x)), fx.tensor(F32, items, n, c.NumTokens)
		for i, v := range x {
			ids[i] = uint8(v)
		}
		require.NoError(fx.t, m.Forward(y, fx.bytes(ids, items, n), AutoregressiveOptions{}))
		return fx.read(y)
	}}
}

// text are random values for tokens of a causal module: bytes if a token is one value.
func (c causal) text(r *rand.Rand, tokens int) []float32 {
	x := make([]float32, tokens*c.in)
	for i := range x {
		if x[i] = float32(r.NormFloat64()); c.in == 1 {
			x[i] = float32(r.IntN(256))
		}
	}
	return x
}

// edits changes one token of each item but the first, all else being equal, and counts the items whose output changed before that token; it
// also counts those whose output changed at all.
func (c causal) edits(t *testing.T, r *rand.Rand, items, n int) (before, after int) {
	t.Helper()
	x := c.text(r, n)
	all, at := slices.Repeat(x, items), make([]int, items)
	for i := 1; i < items; i++ {
		at[i] = r.IntN(n)
		copy(all[(i*n+at[i])*c.in:][:c.in], c.text(r, 1))
	}
	y := c.run(items, n, all)
	require.Len(t, y, items*n*c.out)
	for i := 1; i < items; i++ {
		got := y[i*n*c.out:][:n*c.out]
		if !sameBits(got[:at[i]*c.out], y[:at[i]*c.out]) {
			before++
		}
		if !sameBits(got, y[:n*c.out]) {
			after++
		}
	}
	return before, after
}

// prefixes runs random texts and their first m tokens, for every m, and fails if the outputs of these differ in a bit.
func (c causal) prefixes(t *testing.T, r *rand.Rand, items, n int) {
	t.Helper()
	x := c.text(r, items*n)
	whole := c.run(items, n, x)
	for m := 1; m < n; m++ {
		var cut []float32
		for i := range items {
			cut = append(cut, x[i*n*c.in:][:m*c.in]...)
		}
		y := c.run(items, m, cut)
		for i := range items {
			require.True(t, sameBits(whole[i*n*c.out:][:m*c.out], y[i*m*c.out:][:m*c.out]), "the first %d tokens of %d, item %d", m, n, i)
		}
	}
}

type causalConfig struct {
	name   string
	trials int
	ConditionalRoutedAutoregressiveAttentionConfig
}

// causalConfigs are small modules: fewer keys than a window has tokens, or more, so that lists are short at first, and two routes.
func causalConfigs() []causalConfig {
	few, many := smallAutoregressive(), smallAutoregressive()
	few.NumHeavyTokensKV, few.NumRoutedKV, many.NumHeavyTokensKV, many.Router.CosineSimRouting = 5, 1, 20, true
	return []causalConfig{{"few keys", trials, few}, {"many keys", fewTrials, many}}
}

// TestCausal: with CausalQueryRouting no output depends on a later token, not in a bit. Without it some do.
func TestCausal(t *testing.T) {
	fx := newFixture(t)
	for _, config := range causalConfigs() {
		t.Run(config.name, func(t *testing.T) {
			gputest.CountCase()
			c, r := causalAttention(fx.sub(t), config.ConditionalRoutedAutoregressiveAttentionConfig), rand.New(rand.NewPCG(1, 1))
			const items = 126
			for range (config.trials + items - 2) / (items - 1) {
				before, after := c.edits(t, r, items, smallN-1)
				assert.Zero(t, before, "outputs before the edited token changed")
				assert.Equal(t, items-1, after, "outputs from the edited token on did not change")
			}
		})
	}
	t.Run("the choice by windows is not", func(t *testing.T) {
		config := smallAutoregressive()
		config.CausalQueryRouting = false
		before, _ := causalAttention(fx.sub(t), config).edits(t, rand.New(rand.NewPCG(1, 1)), 126, smallN)
		assert.NotZero(t, before, "the test does not see what it is there for")
	})
}

// TestCausalPrefix: the outputs of the first tokens do not depend on how many follow.
func TestCausalPrefix(t *testing.T) {
	fx := newFixture(t)
	for _, config := range causalConfigs() {
		t.Run(config.name, func(t *testing.T) {
			gputest.CountCase()
			c := causalAttention(fx.sub(t), config.ConditionalRoutedAutoregressiveAttentionConfig)
			c.prefixes(t, rand.New(rand.NewPCG(2, 1)), config.trials/smallN+1, smallN)
		})
	}
}

// TestCausalTransformer: the same of a whole transformer on bytes.
func TestCausalTransformer(t *testing.T) {
	gputest.CountCase()
	fx := newFixture(t)
	config := smallTransformer()
	config.NumRoutedKV = 1
	c, r := causalTransformer(fx, config), rand.New(rand.NewPCG(3, 1))
	const items = 126
	for range (trials + items - 2) / (items - 1) {
		before, after := c.edits(t, r, items, smallN)
		assert.Zero(t, before, "logits before the edited byte changed")
		assert.Greater(t, after, items*9/10, "logits from the edited byte on did not change") // a few bytes are replaceItem by themselves
	}
	c.prefixes(t, r, fewTrials/smallN+1, smallN)
}

// Memories in another order give the same: attention sums over a set.
func TestCrossAttentionForgetsOrder(t *testing.T) {
	gputest.CountCase()
	fx := newFixture(t)
	const items, n, m = 3, 20, 200
	config := smallCross()
	config.NumTokensKV = 40
	a := mustNewSeeded(fx, NewConditionalRoutedCrossAttention, config)
	x, context, mask := fx.floats(normal(1, items*n*smallDim), items, n, smallDim), normal(2, items*m*smallDim), randomMask(3, items, m)
	run := func(context []float32, mask []uint8) []float32 {
		y := fx.tensor(F32, items, n, smallDim)
		require.NoError(t, a.Forward(y, x, fx.floats(context, items, m, smallDim), CrossAttentionOptions{ContextMask: fx.bytes(mask, items, m)}))
		return fx.read(y)
	}
	want := run(context, mask)
	for seed := range uint64(5) {
		var shuffled []float32
		var shuffledMask []uint8
		r := rand.New(rand.NewPCG(seed, 4))
		for i := range items {
			for _, j := range r.Perm(m) {
				shuffled = append(shuffled, context[(i*m+j)*smallDim:][:smallDim]...)
				shuffledMask = append(shuffledMask, mask[i*m+j])
			}
		}
		assert.NoError(t, ref.MaxErr(run(shuffled, shuffledMask), float64s(want)).Within(2e-6))
	}
}

// The light branches in small groups give what they give at once, bit for bit, alone and in stacks.
func TestLightGroups(t *testing.T) {
	fx := newFixture(t)
	config := smallImage()
	config.RouteScope, config.NumHeavyTokensQ, config.NumHeavyTokensKV = RouteScopeWindow, 3, 5
	windows := mustNewSeeded(fx, NewConditionalRoutedImageAttention, config)
	list := fx.testModules(F32)
	for _, s := range list {
		if s.name == "image" {
			s.name, s.module = "image windows", windows
			s.forward = func(y *Tensor, in callInputs) error { return windows.Forward(y, in.x, ImageOptions{}) }
			list = append(list, s)
			break
		}
	}
	for _, s := range list {
		budgets, forget := groupBudgets(s.module)
		if budgets == nil {
			continue
		}
		t.Run(s.name, func(t *testing.T) {
			gputest.CountCase()
			sub := fx.sub(t)
			for _, masks := range []bool{false, true} {
				sub.checkGroups(s, s.randomInput(5, 3, masks), budgets, forget)
			}
		})
	}
}

// groups compares the output for three items with that of a light branch in groups of several sizes.
func (fx *fixture) checkGroups(s moduleCase, v inputData, budgets []*int, forget func() error) {
	fx.t.Helper()
	run := func(budget int) (y []float32, steps int) {
		for _, at := range budgets {
			*at = budget
		}
		require.NoError(fx.t, forget()) // plans made so far
		y = fx.run(s, 3, v)
		stats, err := s.module.LastCall()
		require.NoError(fx.t, err)
		return y, len(stats.Steps)
	}
	want, whole := run(lightBytes)
	const perToken = 4 * (smallDim + 4*8) // bytes of the light attention for a token
	for _, tokens := range []int{1, 9, 20, 2 * smallN} {
		got, steps := run(perToken * tokens)
		assert.True(fx.t, sameBits(want, got), "groups of about %d tokens", tokens)
		assert.Greater(fx.t, steps, whole, "groups of about %d tokens", tokens)
	}
}

// groupBudgets are the budgets of a module's light attentions, and what forgets the plans that were made with others; none if there are none.
func groupBudgets(module anyModule) (budgets []*int, forget func() error) {
	switch m := module.(type) {
	case *ConditionalRoutedAttention:
		return []*int{&m.layer.budget}, m.plans.close
	case *ConditionalRoutedAutoregressiveAttention:
		return []*int{&m.layer.budget}, m.plans.close
	case *ConditionalRoutedImageAttention:
		return []*int{&m.layer.budget}, m.plans.close
	case *ConditionalRoutedTransformerBlock:
		return []*int{&m.layer.attention.budget, &m.layer.feedForward.budget}, m.plans.close
	case *Encoder:
		for i := range m.layer.blocks {
			budgets = append(budgets, &m.layer.blocks[i].attention.budget, &m.layer.blocks[i].feedForward.budget)
		}
		return budgets, m.plans.close
	case *AutoregressiveTransformer:
		for i := range m.layer.attention {
			budgets = append(budgets, &m.layer.attention[i].budget)
		}
		return budgets, m.plans.close
	case *ConditionalRoutedViT:
		for i := range m.layer.attention {
			budgets = append(budgets, &m.layer.attention[i].budget, &m.layer.feedForward[i].budget)
		}
		return budgets, m.plans.close
	}
	return nil, nil
}
