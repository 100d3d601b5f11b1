package colt5

import (
	"context"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/internal/ref"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// causalModel is a causal module: run maps items of n tokens with in values each to n tokens with out values each.
type causalModel struct {
	in, out int
	run     func(items, n int, x []float32) []float32
}

// trials is the number of random edits and prefixes of a property test; fewTrials is that of further configs and of
// stacks.
func trials() int    { return inShortMode(126, 1000) }
func fewTrials() int { return inShortMode(60, 250) }

func causalAttention(fx *fixture, c ConditionalRoutedAutoregressiveAttentionConfig) causalModel {
	fx.t.Helper()
	m := mustNewSeeded(fx, NewConditionalRoutedAutoregressiveAttention, c)
	return causalModel{c.Dim, c.Dim, func(items, n int, x []float32) []float32 {
		y := fx.tensor(F32, items, n, c.Dim)
		require.NoError(fx.t, m.Forward(fx.t.Context(), y, fx.floats(x, items, n, c.Dim), AutoregressiveOptions{}))
		return fx.read(y)
	}}
}

func causalTransformer(fx *fixture, c AutoregressiveTransformerConfig) causalModel {
	fx.t.Helper()
	m := mustNewSeeded(fx, NewAutoregressiveTransformer, c)
	return causalModel{1, c.NumTokens, func(items, n int, x []float32) []float32 {
		ids, y := make([]uint8, len(x)), fx.tensor(F32, items, n, c.NumTokens)
		for i, v := range x {
			ids[i] = uint8(v)
		}
		require.NoError(fx.t, m.Forward(fx.t.Context(), y, fx.bytes(ids, items, n), AutoregressiveOptions{}))
		return fx.read(y)
	}}
}

// randomTokens returns random input: bytes if a token is a single value.
func (c causalModel) randomTokens(r *rand.Rand, tokens int) []float32 {
	x := make([]float32, tokens*c.in)
	for i := range x {
		if x[i] = float32(r.NormFloat64()); c.in == 1 {
			x[i] = float32(r.IntN(256))
		}
	}
	return x
}

// countEdits runs copies of one random item, with one token edited in each copy but the first. It returns how many
// outputs changed before the edited token, and how many changed at all.
func (c causalModel) countEdits(t *testing.T, r *rand.Rand, items, n int) (before, after int) {
	t.Helper()
	x := c.randomTokens(r, n)
	all, at := slices.Repeat(x, items), make([]int, items)
	for i := 1; i < items; i++ {
		at[i] = r.IntN(n)
		copy(all[(i*n+at[i])*c.in:][:c.in], c.randomTokens(r, 1))
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

// checkPrefixes runs random inputs and all their prefixes, and fails if the output bits of a prefix differ from those
// of the whole input.
func (c causalModel) checkPrefixes(t *testing.T, r *rand.Rand, items, n int) {
	t.Helper()
	x := c.randomTokens(r, items*n)
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

// causalConfigs returns small configs: fewer routed keys than tokens in a window, or more, so that the lists of the
// first windows have empty slots.
func causalConfigs() []causalConfig {
	few, many := smallAutoregressive(), smallAutoregressive()
	few.NumHeavyTokensKV, few.NumRoutedKV, many.NumHeavyTokensKV, many.Router.CosineSimRouting = 5, 1, 20, true
	return []causalConfig{{"few keys", trials(), few}, {"many keys", fewTrials(), many}}
}

// TestCausal: with CausalQueryRouting no output bit depends on a later token. The test is proven to detect the
// dependence without it.
func TestCausal(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 3 s")
	}
	t.Parallel()
	fx := newFixture(t)
	for _, config := range causalConfigs() {
		t.Run(config.name, func(t *testing.T) {
			gputest.CountCase()
			c, r := causalAttention(fx.sub(t), config.ConditionalRoutedAutoregressiveAttentionConfig), rand.New(rand.NewPCG(1, 1))
			const items = 126
			for range (config.trials + items - 2) / (items - 1) {
				before, after := c.countEdits(t, r, items, smallN-1)
				assert.Zero(t, before, "outputs before the edited token changed")
				assert.Equal(t, items-1, after, "an edit did not change the output")
			}
		})
	}
	t.Run("without CausalQueryRouting", func(t *testing.T) {
		config := smallAutoregressive()
		config.CausalQueryRouting = false
		before, _ := causalAttention(fx.sub(t), config).countEdits(t, rand.New(rand.NewPCG(1, 1)), 126, smallN)
		assert.NotZero(t, before, "the test does not detect a dependence on later tokens")
	})
}

// TestCausalPrefix: outputs do not depend on the number of later tokens.
func TestCausalPrefix(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 6 s; properties of kernels that TestEveryModule runs")
	}
	t.Parallel()
	fx := newFixture(t)
	for _, config := range causalConfigs() {
		t.Run(config.name, func(t *testing.T) {
			gputest.CountCase()
			c := causalAttention(fx.sub(t), config.ConditionalRoutedAutoregressiveAttentionConfig)
			c.checkPrefixes(t, rand.New(rand.NewPCG(2, 1)), config.trials/smallN+1, smallN)
		})
	}
}

// TestCausalTransformer is TestCausal and TestCausalPrefix for a transformer on bytes.
func TestCausalTransformer(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 3 s")
	}
	t.Parallel()
	gputest.CountCase()
	fx := newFixture(t)
	config := smallTransformer()
	config.NumRoutedKV = 1
	c, r := causalTransformer(fx, config), rand.New(rand.NewPCG(3, 1))
	const items = 126
	for range (trials() + items - 2) / (items - 1) {
		before, after := c.countEdits(t, r, items, smallN)
		assert.Zero(t, before, "logits before the edited byte changed")
		assert.Greater(t, after, items*9/10, "edits did not change the logits") // a few bytes are replaced by the same byte
	}
	c.checkPrefixes(t, r, fewTrials()/smallN+1, smallN)
}

// Without rotary embeddings, the order of the context tokens does not change the output.
func TestCrossAttentionPermutedContext(t *testing.T) {
	t.Parallel()
	gputest.CountCase()
	fx := newFixture(t)
	const items, n, m = 3, 20, 200 // m context tokens
	config := smallCross()
	config.NumTokensKV = 40
	a := mustNewSeeded(fx, NewConditionalRoutedCrossAttention, config)
	x, context, mask := fx.floats(normal(1, items*n*smallDim), items, n, smallDim), normal(2, items*m*smallDim), randomMask(3, items, m)
	run := func(context []float32, mask []uint8) []float32 {
		y := fx.tensor(F32, items, n, smallDim)
		require.NoError(t, a.Forward(t.Context(), y, x, fx.floats(context, items, m, smallDim), CrossAttentionOptions{ContextMask: fx.bytes(mask, items, m)}))
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

// checkLightGroups: a light branch that runs in groups of tokens gives the same bits as in one group.
func checkLightGroups(fx *fixture, s moduleCase) {
	budgets, closePlans := groupBudgets(s.module)
	if budgets == nil {
		return
	}
	for _, masks := range inShortMode([]bool{true}, []bool{false, true}) {
		fx.checkGroups(s, s.randomInput(5, 3, masks), budgets, closePlans)
	}
}

// TestLightGroupsOfWindows is checkLightGroups for an image attention that routes in windows.
func TestLightGroupsOfWindows(t *testing.T) {
	t.Parallel()
	gputest.CountCase()
	fx := newFixture(t)
	config := smallImage()
	config.RouteScope, config.NumHeavyTokensQ, config.NumHeavyTokensKV = RouteScopeWindow, 3, 5
	windows := mustNewSeeded(fx, NewConditionalRoutedImageAttention, config)
	image := []int{smallDim, 8, 12}
	checkLightGroups(fx, moduleCase{name: "image", module: windows, x: image, y: image,
		forward: func(ctx context.Context, y *Tensor, in callArgs) error {
			return windows.Forward(ctx, y, in.x, ImageOptions{Stats: in.stats})
		},
	})
}

// checkGroups compares the outputs of a light branch in one group and in groups of several sizes.
func (fx *fixture) checkGroups(s moduleCase, v inputData, budgets []*int, closePlans func() error) {
	fx.t.Helper()
	run := func(budget int) (y []float32, steps int) {
		for _, b := range budgets {
			*b = budget
		}
		require.NoError(fx.t, closePlans()) // they were recorded with the previous budget
		var stats CallStats
		out, in := fx.upload(s, 3, v)
		in.stats = &stats
		require.NoError(fx.t, out.Write(fx.t.Context(), nanFill(out.Len())))
		require.NoError(fx.t, s.forward(fx.t.Context(), out, in))
		return fx.readFinite(out), len(stats.StepNames)
	}
	defer func() {
		for _, b := range budgets {
			*b = lightBytes
		}
		require.NoError(fx.t, closePlans())
	}()
	want, steps1 := run(lightBytes)
	const perToken = 4 * (smallDim + 4*8) // workspace bytes of the light attention for one token
	for _, tokens := range inShortMode([]int{9}, []int{1, 9, 20, 2 * smallN}) {
		got, steps := run(perToken * tokens)
		assert.True(fx.t, sameBits(want, got), "groups of about %d tokens", tokens)
		assert.Greater(fx.t, steps, steps1, "groups of about %d tokens", tokens)
	}
}

// groupBudgets returns pointers to the budgets of a module's light branches, and a function that closes its plans; nil
// if it has no light attention.
func groupBudgets(module anyModule) (budgets []*int, closePlans func() error) {
	switch m := module.(type) {
	case *ConditionalRoutedAttention:
		return []*int{&m.layer.(*routedAttention).budget}, m.plans.close
	case *ConditionalRoutedAutoregressiveAttention:
		return []*int{&m.layer.(*autoregressiveAttention).budget}, m.plans.close
	case *ConditionalRoutedImageAttention:
		return []*int{&m.layer.(*imageAttention).budget}, m.plans.close
	case *ConditionalRoutedTransformerBlock:
		l := m.layer.(*routedBlock)
		return []*int{&l.attention.budget, &l.feedForward.budget}, m.plans.close
	case *Encoder:
		l := m.layer.(*encoder)
		for i := range l.blocks {
			budgets = append(budgets, &l.blocks[i].attention.budget, &l.blocks[i].feedForward.budget)
		}
		return budgets, m.plans.close
	case *AutoregressiveTransformer:
		l := m.layer.(*autoregressiveTransformer)
		for i := range l.attention {
			budgets = append(budgets, &l.attention[i].budget)
		}
		return budgets, m.plans.close
	case *ConditionalRoutedViT:
		l := m.layer.(*routedViT)
		for i := range l.attention {
			budgets = append(budgets, &l.attention[i].budget, &l.feedForward[i].budget)
		}
		return budgets, m.plans.close
	}
	return nil, nil
}
