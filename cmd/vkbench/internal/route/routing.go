package route

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/command"
	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/scope"
	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/validate"
	"github.com/colt5-vulkan/colt5/colt5"
)

// routedText is a text and the routing of its bytes.
type routedText struct {
	text      []byte
	heavy     []bool    // routed to the heavy branch
	logits    []float32 // of the router
	seed      uint64
	untrained bool // without -weights
	device    string
	config    colt5.ConditionalRoutedFeedForwardConfig

	calls, selected         int           // selected: number of heavy bytes
	routerTime, moduleTime  time.Duration // on the GPU
	maxBatch, maxTokens     int           // of a call
	workspace, deviceMemory uint64        // bytes
	router                  routerSums
}

// routerSums are sums over routing records.
type routerSums struct{ targetSum, scoreSum, selected, saturated, slots, empty, ties float64 }

func (s *routerSums) add(r colt5.RoutingRecord) {
	slots := float64(len(r.Indices))
	descents, valid := float64(len(r.SoftScores))/float64(r.Block), slots*(1-r.Empty)
	s.targetSum += descents * r.KEff
	s.scoreSum += descents * r.ScoreSum
	s.slots += slots
	s.empty += slots * r.Empty
	s.selected += valid
	s.saturated += valid * r.Saturated
	s.ties += float64(r.Ties)
}

// String is a line about the router. At least one record must have been added.
func (s routerSums) String() string {
	return fmt.Sprintf("router: the soft scores sum to %s of their target, %s of the heavy tokens have a score of 1, "+
		"%s of the slots are empty, %.0f ties at the last selected token",
		percent(s.scoreSum/s.targetSum), percent(s.saturated/max(s.selected, 1)), percent(s.empty/s.slots), s.ties)
}

// route runs the router and the feedforward on the text, and calls next after each call.
func (t *routedText) route(ctx context.Context, s *scope.Scope, o options, next func()) error {
	t.config = o.module
	if _, err := o.module.Memory(s.Dev.Caps(), 1, 1); err != nil {
		return command.AsUsage(err)
	}
	f, err := colt5.NewConditionalRoutedFeedForward(ctx, s.Dev, o.module)
	if f = scope.Keep(s, f, err); f == nil {
		return s.Err()
	}
	if o.weights != "" {
		if err := f.Load(ctx, o.weights); err != nil {
			return command.Usagef("-weights %s: %w", o.weights, err)
		}
	} else if err := f.Init(ctx, o.seed); err != nil {
		return err
	}
	router, err := routerOf(ctx, s.Dev, f)
	if router = scope.Keep(s, router, err); router == nil {
		return s.Err()
	}
	e := newEmbedding(o.seed, o.module.Dim, t.text)
	for at := 0; at < len(t.text); {
		if err := command.Interrupted(ctx); err != nil {
			return err
		}
		left := len(t.text) - at
		g := segments{at: at, batch: min(o.batch, left/o.length), length: o.length, heavy: o.module.NumHeavyTokens}
		if g.batch == 0 { // the last segment is shorter
			g.batch, g.length = 1, left
			g.heavy = max(g.heavy*left/o.length, 1)
		}
		if err := scope.Run(ctx, s.Dev, func(s *scope.Scope) error { return t.call(s, f, router, e, g) }); err != nil {
			return fmt.Errorf("bytes %d to %d: %w", at, at+g.batch*g.length, err)
		}
		at += g.batch * g.length
		next()
	}
	t.deviceMemory = s.Dev.Stats().PeakBytes
	return command.Interrupted(ctx)
}

// segments are the part of a text that is routed in one call: batch segments of length bytes, starting at byte at.
// heavy tokens of each are routed to the heavy branch.
type segments struct{ at, batch, length, heavy int }

// call routes segments.
func (t *routedText) call(s *scope.Scope, f *colt5.ConditionalRoutedFeedForward, router *colt5.CoordinateDescentRouter, e *embedding, g segments) error {
	b, n, c := g.batch, g.length, t.config.Dim
	x, y := s.Float32(e.tokens(t.text, g.at, b*n), b, n, c), s.Tensor(colt5.F32, b, n, c)
	k := router.Slots(n, g.heavy)
	out := colt5.RouterResult{Scores: s.Tensor(colt5.F32, b, 1, k), Logits: s.Tensor(colt5.F32, b, 1, n)}
	routed := n > g.heavy
	if routed {
		out.Indices = s.Tensor(colt5.I32, b, 1, k)
	}
	if s.Err() != nil {
		return s.Err()
	}
	ctx := s.Context()
	var routing, module colt5.CallStats
	if err := router.Forward(ctx, out, x, g.heavy, colt5.RouterOptions{Stats: &routing}); err != nil {
		return err
	}
	if err := f.Forward(ctx, y, x, colt5.FeedForwardOptions{NumHeavyTokens: g.heavy, Stats: &module}); err != nil {
		return err
	}
	result, err := y.Float32(ctx)
	scores, scoresErr := out.Scores.Float32(ctx)
	logits, logitsErr := out.Logits.Float32(ctx)
	if err := errors.Join(err, scoresErr, logitsErr); err != nil {
		return err
	}
	if err := validate.Floats(result, true); err != nil {
		return fmt.Errorf("the feedforward's result: %w", err)
	}
	copy(t.logits[g.at:], logits)
	var indices []int32
	if routed {
		if indices, err = out.Indices.Int32(ctx); err != nil {
			return err
		}
		if err := t.record(ctx, router, out, x, g.heavy); err != nil {
			return err
		}
	}
	t.setHeavy(g, k, indices, scores)
	t.calls++
	t.routerTime, t.moduleTime = t.routerTime+routing.Time, t.moduleTime+module.Time
	t.maxBatch, t.maxTokens, t.workspace = max(t.maxBatch, b), max(t.maxTokens, n), max(t.workspace, module.Workspace)
	return nil
}

// record routes once more for the routing record, whose cost is not part of the reported times.
func (t *routedText) record(ctx context.Context, router *colt5.CoordinateDescentRouter, out colt5.RouterResult, x *colt5.Tensor, tokens int) error {
	var records []colt5.RoutingRecord
	if err := router.Forward(ctx, out, x, tokens, colt5.RouterOptions{Routing: &records}); err != nil {
		return err
	}
	for _, r := range records {
		t.router.add(r)
	}
	return nil
}

// setHeavy sets heavy for the bytes of segments that were selected. Without indices all were.
func (t *routedText) setHeavy(g segments, k int, indices []int32, scores []float32) {
	for slot, score := range scores {
		if score == 0 {
			continue
		}
		token := slot % k
		if indices != nil {
			token = int(indices[slot])
		}
		if at := g.at + slot/k*g.length + token; !t.heavy[at] {
			t.heavy[at] = true
			t.selected++
		}
	}
}
