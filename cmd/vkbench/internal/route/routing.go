package route

import (
	"context"
	"fmt"
	"time"

	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/validate"
	"github.com/colt5-vulkan/colt5/colt5"
	"github.com/colt5-vulkan/colt5/internal/cli/command"
	"github.com/colt5-vulkan/colt5/internal/cli/scope"
)

// model is a module whose routers select bytes of a text.
type model struct {
	about   []string // lines that say what it is
	demo    bool     // not a model of the user
	routers []string // names, in the order of the module
	// forward runs the module on segments, and returns its result y and what its routers selected. A router without a
	// record selected all.
	forward func(s *scope.Scope, g segments) (y *colt5.Tensor, records []colt5.RoutingRecord, stats colt5.CallStats, err error)
}

// segments are the part of a text that is routed in one call: batch segments of length bytes, starting at byte at.
type segments struct{ at, batch, length int }

// routedText is a text, and what the routers of a model selected of it.
type routedText struct {
	text    []byte
	model   model
	routers []*routing // of the model's routers
	shown   int        // the router that terminal and tables show
	device  string
	cpu     bool // a CPU driver

	calls                   int
	time                    time.Duration // on the GPU
	maxBatch, maxTokens     int           // of a call
	workspace, deviceMemory uint64        // bytes
}

// router returns the router that is shown.
func (t *routedText) router() *routing { return t.routers[t.shown] }

// routing is what a router selected. Selected bytes are heavy: they are routed to the heavy branch.
type routing struct {
	name     string
	heavy    []bool    // by byte
	logits   []float32 // by byte, the largest of the routes; nil: not wanted
	selected int       // number of heavy bytes
	most     int       // heavy bytes of a segment and a route, at most
	routes   int
	sums     routerSums
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
	return fmt.Sprintf("the soft scores sum to %s of their target, %s of the heavy bytes have a score of 1, %s of the slots are empty, "+
		"%.0f ties at the last selected byte",
		percent(s.scoreSum/s.targetSum), percent(s.saturated/max(s.selected, 1)), percent(s.empty/s.slots), s.ties)
}

// route runs the model on the text in calls of up to batch segments of length bytes, and calls next after each. With all
// set it keeps what all routers selected, else what the shown one did.
func (t *routedText) route(ctx context.Context, s *scope.Scope, length, batch int, all bool, next func()) error {
	for i, name := range t.model.routers {
		r := &routing{name: name, routes: 1}
		if all || i == t.shown {
			r.heavy = make([]bool, len(t.text))
		}
		if i == t.shown {
			r.logits = make([]float32, len(t.text))
		}
		t.routers = append(t.routers, r)
	}
	for at := 0; at < len(t.text); {
		if err := command.Interrupted(ctx); err != nil {
			return err
		}
		left := len(t.text) - at
		g := segments{at: at, batch: min(batch, left/length), length: length}
		if g.batch == 0 { // the last segment is shorter
			g.batch, g.length = 1, left
		}
		if err := scope.Run(ctx, s.Dev, func(s *scope.Scope) error { return t.call(s, g) }); err != nil {
			return fmt.Errorf("bytes %d to %d: %w", at, at+g.batch*g.length-1, err)
		}
		at += g.batch * g.length
		next()
	}
	t.deviceMemory = s.Dev.Stats().PeakBytes
	return command.Interrupted(ctx)
}

// call routes segments.
func (t *routedText) call(s *scope.Scope, g segments) error {
	y, records, stats, err := t.model.forward(s, g)
	if err != nil {
		return err
	}
	result, err := y.Float32(s.Context())
	if err != nil {
		return err
	}
	if err := validate.Floats(result, true); err != nil {
		return fmt.Errorf("the result of the module: %w", err)
	}
	byName := map[string]colt5.RoutingRecord{}
	for _, r := range records {
		byName[r.Router] = r
	}
	for _, r := range t.routers {
		if record, ok := byName[r.name]; ok {
			r.add(g, record)
		} else {
			r.addAll(g)
		}
	}
	t.calls++
	t.time += stats.Time
	t.maxBatch, t.maxTokens, t.workspace = max(t.maxBatch, g.batch), max(t.maxTokens, g.length), max(t.workspace, stats.Workspace)
	return nil
}

// add adds what the router selected of segments. A byte is heavy if a route selects it.
func (r *routing) add(g segments, record colt5.RoutingRecord) {
	r.sums.add(record)
	r.routes, r.most = record.Routes, max(r.most, record.K)
	if r.heavy == nil {
		return
	}
	for list := range record.Lists { // in the order of the segments, then of the routes
		at := g.at + list/record.Routes*g.length
		for slot, token := range record.Indices[list*record.K:][:record.K] {
			// A score of 0 is an empty slot, or a soft score that is too small for float32. Without a mask, a record
			// either has empty slots or not.
			if record.Empty == 0 || record.Scores[list*record.K+slot] != 0 {
				r.mark(at + int(token))
			}
		}
		if r.logits == nil {
			continue
		}
		for i, logit := range record.Logits[list*record.N:][:record.N] {
			if list%record.Routes == 0 || logit > r.logits[at+i] {
				r.logits[at+i] = logit
			}
		}
	}
}

// addAll marks all bytes of segments: there are no more of them than the router selects.
func (r *routing) addAll(g segments) {
	r.most = max(r.most, g.length)
	if r.heavy == nil {
		return
	}
	for i := range g.batch * g.length {
		r.mark(g.at + i)
	}
}

func (r *routing) mark(at int) {
	if !r.heavy[at] {
		r.heavy[at] = true
		r.selected++
	}
}
