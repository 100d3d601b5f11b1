package route

import (
	"context"
	"fmt"

	"github.com/colt5-vulkan/colt5/colt5"
	"github.com/colt5-vulkan/colt5/internal/cli/command"
	"github.com/colt5-vulkan/colt5/internal/cli/scope"
)

// demoRouter is the name of the demonstration's router in its feedforward.
const demoRouter = "router"

// newDemo makes the demonstration: a feedforward that was never trained, on vectors of an embedding of its own. See
// description.
func newDemo(ctx context.Context, s *scope.Scope, o options, text []byte) (model, error) {
	c := colt5.Default[colt5.ConditionalRoutedFeedForwardConfig]()
	c.Dim, c.NumHeavyTokens = o.dim, o.heavy
	if _, err := c.Memory(s.Dev.Caps(), 1, 1); err != nil {
		return model{}, command.AsUsage(err)
	}
	f, err := colt5.NewConditionalRoutedFeedForward(ctx, s.Dev, c)
	if f = scope.Keep(s, f, err); f == nil {
		return model{}, s.Err()
	}
	if err := f.Init(ctx, o.seed); err != nil {
		return model{}, err
	}
	e := newEmbedding(o.seed, c.Dim, text)
	m := model{demo: true, routers: []string{demoRouter}, about: []string{
		fmt.Sprintf("Demonstration: an untrained router of seed %d on an invented embedding of bytes.", o.seed),
		"Which passages it selects is arbitrary; -config and -weights route with an Encoder of yours.",
	}}
	m.forward = func(s *scope.Scope, g segments) (*colt5.Tensor, []colt5.RoutingRecord, colt5.CallStats, error) {
		x := s.Float32(e.tokens(text, g.at, g.batch*g.length), g.batch, g.length, c.Dim)
		y := s.Tensor(colt5.F32, g.batch, g.length, c.Dim)
		var records []colt5.RoutingRecord
		var stats colt5.CallStats
		if s.Err() == nil {
			options := colt5.FeedForwardOptions{NumHeavyTokens: o.heavyOf(g.length), Stats: &stats, Routing: &records}
			s.Fail(f.Forward(s.Context(), y, x, options))
		}
		return y, records, stats, s.Err()
	}
	return m, nil
}

// heavyOf is the number of heavy tokens of the demonstration in a segment: fewer in a shorter one, in proportion.
func (o options) heavyOf(length int) int {
	return max(o.heavy*length/o.length, 1)
}
