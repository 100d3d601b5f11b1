package colt5

import (
	"context"
	"strings"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestControls: static routing selects evenly spaced tokens, random routing those of a seed. Both have the bits of a replay of
// their lists, where the scores are 1, and give routers no gradient.
func TestControls(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 3 s")
	}
	fx := newFixture(t)
	stack, soft := smallTransformer(), smallEncoder()
	stack.Depth, soft.Depth, soft.RouterStraightThrough, soft.Router.RouteBlockSize = 1, 1, false, 16
	transformer, encoder := mustNewSeeded(fx, NewAutoregressiveTransformer, stack), mustNewSeeded(fx, NewEncoder, soft)
	hard := smallEncoder()
	hard.Depth, hard.Router.RouteBlockSize = 1, 16
	learned := mustNewSeeded(fx, NewEncoder, hard)
	ids := make([]uint8, 2*smallN)
	for i := range ids {
		ids[i] = uint8(i * i)
	}
	type forward func(ctx context.Context, y, x *Tensor, seed uint64, static bool) error
	encode := func(e *Encoder) forward {
		return func(ctx context.Context, y, x *Tensor, seed uint64, static bool) error {
			return e.Forward(ctx, y, x, BlockOptions{RandomSeed: seed, Static: static})
		}
	}
	predict := func(ctx context.Context, y, x *Tensor, seed uint64, static bool) error {
		return transformer.Forward(ctx, y, x, AutoregressiveOptions{RandomSeed: seed, Static: static})
	}
	for _, test := range []struct {
		name           string
		parameters     []Parameter
		width          int
		forward, plain forward
	}{
		{"encoder", encoder.Parameters(), smallDim, encode(encoder), encode(learned)},
		{"transformer", transformer.Parameters(), 256, predict, predict},
	} {
		t.Run(test.name, func(t *testing.T) {
			gputest.CountCase()
			fx := fx.sub(t)
			x, y := fx.bytes(ids, 2, smallN), fx.tensor(F32, 2, smallN, test.width)
			graph := func(f forward, seed uint64, static bool) *Graph {
				return fx.backwardGraph(feed{"x": x}, func(ctx context.Context, y *Tensor, in feed) error { return f(ctx, y, in["x"], seed, static) })
			}
			run := func(g *Graph, o GraphOptions) []float32 {
				require.NoError(t, y.Write(t.Context(), nanFill(y.Len())))
				require.NoError(t, g.Run(t.Context(), feed{"x": x, "y": y}, o))
				return fx.readFinite(y)
			}
			var lists, again []RoutingRecord
			static := graph(test.forward, 0, true)
			got := run(static, GraphOptions{Routing: &lists})
			checkEvenlySpaced(t, lists)
			plain := graph(test.plain, 0, false)
			want := run(plain, GraphOptions{})
			assert.NotEqual(t, want, got)
			assert.True(t, sameBits(got, run(plain, GraphOptions{Replay: lists})), "static")

			random := graph(test.forward, 3, false)
			got = run(random, GraphOptions{Routing: &lists})
			assert.NotEqual(t, want, got)
			assert.True(t, sameBits(got, run(random, GraphOptions{})), "random")
			assert.True(t, sameBits(got, run(plain, GraphOptions{Replay: lists})), "random")
			run(random, GraphOptions{Routing: &again, RandomSeed: 1})
			assert.NotEqual(t, selections(lists), selections(again), "another seed")

			r := fx.backwardRun(test.parameters, feed{"x": x}, normal(4, y.Len()), y.Shape(), func(ctx context.Context, y *Tensor, in feed) error {
				return test.forward(ctx, y, in["x"], 0, true)
			})
			for name, g := range fx.gradients(r) {
				zero := true
				for _, v := range g {
					zero = zero && v == 0
				}
				assert.Equal(t, strings.HasSuffix(name, "routing_token"), zero, name)
			}
		})
	}
	masked := BlockOptions{Static: true, Mask: fx.bytes(randomMask(1, 1, smallN), 1, smallN)}
	assert.ErrorContains(t, learned.Forward(t.Context(), fx.tensor(F32, 1, smallN, smallDim), fx.bytes(ids[:smallN], 1, smallN), masked),
		"static routing has a mask, want none")
}

// checkEvenlySpaced requires of each list, or block of it, the tokens floor(i * n / k).
func checkEvenlySpaced(t *testing.T, records []RoutingRecord) {
	require.NotEmpty(t, records)
	for _, r := range records {
		tokens, blocks := selections(records)[r.Router], 1
		if r.Windows == 0 {
			blocks = (r.N + r.Block - 1) / r.Block
		}
		queries := strings.HasSuffix(r.Router, "attn.q_router") && strings.HasPrefix(r.Router, "y.layers.0.attn")
		for list := range r.Lists {
			var want []int32
			for block := range blocks {
				from, to := block*r.Block, min((block+1)*r.Block, r.N)
				if r.Windows > 0 {
					from, to = 0, list/r.Routes%r.Windows*r.WindowSize
				}
				if queries && block == 0 {
					to = 0
				}
				k, n := r.K/blocks, to-from
				for i := range min(k, n) {
					want = append(want, int32(from+i*n/min(k, n)))
				}
			}
			assert.Equal(t, want, tokens[list], "%s, list %d", r.Router, list)
		}
	}
}
