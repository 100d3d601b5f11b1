package verify

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/colt5-vulkan/colt5/colt5"
	"github.com/colt5-vulkan/colt5/internal/cli/scope"
	"github.com/colt5-vulkan/colt5/internal/golden"
	"github.com/colt5-vulkan/colt5/internal/ref"
)

// errNoGradients is the error of a case that cannot be compared with -grad.
var errNoGradients = errors.New("the case has no gradients: -grad needs the cases of a checkout, such as testdata/golden")

// checkGradients runs a case forward and backward in a graph, twice, and compares the gradients of inputs and weights. got has
// the outputs of a run forward, whose bits the graph must reproduce.
func (x *instance) checkGradients(s *scope.Scope, c *golden.Case, got values, found *comparison) error {
	if len(c.Upstream) == 0 {
		return errNoGradients
	}
	ctx := s.Context()
	g, err := x.graph(ctx, s)
	if err != nil {
		return err
	}
	back, err := x.backward(s, c, got)
	if err != nil {
		return err
	}
	run := maps.Clone(x.inputs)
	maps.Copy(run, x.outputs)
	results := instance{tensors: tensors{outputs: map[string]*colt5.Tensor{}}}
	for name, t := range back.Inputs {
		results.outputs["grad.in."+name] = t
	}
	if back.Parameters != nil {
		for _, p := range back.Parameters.List() {
			results.outputs["grad.param."+p.Name] = p.Tensor
		}
	}
	options := colt5.GraphOptions{Backward: back}
	if c.RoutingMayDiffer() {
		if options.Replay, err = found.replay(c, got.records); err != nil {
			return err
		}
	}
	var gradients [2]values
	for i := range gradients {
		if err := errors.Join(x.poison(ctx, i), results.poison(ctx, i)); err != nil {
			return err
		}
		back.Recompute = -i // the second run with activation checkpointing of all layers
		if err := g.Run(ctx, run, options); err != nil {
			return err
		}
		outputs, err := x.read(ctx)
		if err != nil {
			return err
		}
		if options.Replay == nil {
			found.sameBits(got, outputs, "a run with a backward pass has different bits")
		} else if err := compareOutputs(c, outputs, found); err != nil {
			return err
		}
		if gradients[i], err = results.read(ctx); err != nil {
			return err
		}
	}
	found.sameBits(gradients[0], gradients[1], "the second run, with activation checkpointing, has different bits")
	if options.Replay != nil {
		var records []colt5.RoutingRecord
		if err := g.Run(ctx, run, colt5.GraphOptions{Replay: options.Replay, Routing: &records}); err != nil {
			return err
		}
		if differ, err := found.saturation(c, records); err != nil || differ {
			return err
		}
	}
	return compareGradients(c, gradients[0].floats, found)
}

// node is the name of the only node, which is that of the module's output, before those of its routers.
const node = "y."

// replay returns routing records with the tokens of the case. The note says in how many lists the run selected others.
func (c *comparison) replay(of *golden.Case, records []colt5.RoutingRecord) ([]colt5.RoutingRecord, error) {
	list, rows, differ := []colt5.RoutingRecord{}, 0, 0
	for _, r := range records {
		want, ok := of.Routings[r.Router]
		if !ok {
			return nil, fmt.Errorf("the case has no routing record of router %q", r.Router)
		}
		l, err := newLayout(of, r, want, maskOf(of, r.Router))
		if err != nil {
			return nil, fmt.Errorf("router %q: %w", r.Router, err)
		}
		own := r
		r.Indices, r.Scores = make([]int32, len(r.Indices)), make([]float32, len(r.Scores))
		for i, p := range l.rows() {
			to, from := l.recordedRow(own, p), l.goldenRow(p, i)
			for j := range l.count {
				r.Indices[to.slot+j] = want.Indices.I32[from.slot+j] + int32(to.token-from.token)
				r.Scores[to.slot+j] = want.Scores.F32[from.slot+j]
			}
			valid := validSlots(r.Indices, r.Scores, to.slot, l.count)
			if ref.SameSet(pick(own.Indices, validSlots(own.Indices, own.Scores, to.slot, l.count)), pick(r.Indices, valid)) != nil {
				differ++
			}
			rows++
		}
		r.Router = node + r.Router
		list = append(list, r)
	}
	if differ > 0 {
		c.note = fmt.Sprintf("%d of %d lists name other tokens than the case, whose tokens the gradients replay", differ, rows)
	}
	return list, nil
}

// saturation reports whether a soft score is 1 in the run or in the case only, where it is nearly 1: a score of 1 passes no
// gradient to the router, so the gradients jump there and cannot be compared.
func (c *comparison) saturation(of *golden.Case, records []colt5.RoutingRecord) (differ bool, err error) {
	for _, r := range records {
		name := strings.TrimPrefix(r.Router, node)
		want := of.Routings[name]
		l, err := newLayout(of, r, want, maskOf(of, name))
		if err != nil {
			return false, fmt.Errorf("router %q: %w", name, err)
		}
		for i, p := range l.rows() {
			row := l.recordedRow(r, p)
			for j, got := range row.soft {
				reference := want.ScoresAll.F32[i*l.n+j]
				switch {
				case (got == 1) == (reference == 1):
				case min(got, reference) < 1-golden.OutputBound16Bit:
					c.problem("%s: the soft score of token %d of row %d is %v, want %v", name, j, i, got, reference)
				default:
					differ = true
					c.note = fmt.Sprintf("gradients not compared: they jump where a soft score reaches 1, and one of %s is %v, in the case %v", name, got, reference)
				}
			}
		}
	}
	return differ, nil
}

// graph makes a graph of the module alone.
func (x *instance) graph(ctx context.Context, s *scope.Scope) (*colt5.Graph, error) {
	g := scope.Keep(s, colt5.NewGraph(s.Dev), nil)
	values := tensors{map[string]*colt5.Tensor{}, map[string]*colt5.Tensor{}}
	for _, name := range slices.Sorted(maps.Keys(x.inputs)) {
		t := x.inputs[name]
		values.inputs[name] = g.Input(name, t.DType(), t.Shape()...)
	}
	for name := range x.outputs {
		values.outputs[name] = g.Value(name)
	}
	if err := x.forward(ctx, values, nil); err != nil {
		return nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(x.outputs)) {
		g.Output(name, values.outputs[name])
	}
	return g, nil
}

// backward makes the tensors of a backward pass.
func (x *instance) backward(s *scope.Scope, c *golden.Case, got values) (*colt5.Backward, error) {
	upstream := map[string][]float32{}
	if x.upstream != nil {
		var err error
		if upstream, err = x.upstream(got); err != nil {
			return nil, err
		}
	} else {
		for name, t := range c.Upstream {
			upstream[name] = t.F32
		}
	}
	back := &colt5.Backward{Upstream: map[string]*colt5.Tensor{}, Inputs: map[string]*colt5.Tensor{}}
	for name, data := range upstream {
		y := x.outputs[name]
		if y == nil || y.Len() != len(data) {
			return nil, fmt.Errorf("grad.out.%s has %d elements, want those of %v", name, len(data), y)
		}
		back.Upstream[name] = s.Float32(data, y.Shape()...)
	}
	for name := range c.InputGrads {
		in := x.inputs[name]
		if in == nil {
			return nil, fmt.Errorf("the case has grad.in.%s, which is the gradient of no input of the module", name)
		}
		back.Inputs[name] = s.Tensor(colt5.F32, in.Shape()...)
	}
	if len(x.parameters) > 0 {
		p, err := colt5.NewGradients(s.Dev, x.parameters)
		back.Parameters = scope.Keep(s, p, err)
	}
	return back, s.Err()
}

// compareGradients compares the gradients of inputs, and of weights: 0 where the case has none, since the call does not use
// the weight.
func compareGradients(c *golden.Case, got map[string][]float32, found *comparison) error {
	for _, name := range slices.Sorted(maps.Keys(c.InputGrads)) {
		found.withinBound("grad.in."+name, got["grad.in."+name], c.InputGrads[name].Float64s(), c.InputGradBound())
	}
	for _, name := range slices.Sorted(maps.Keys(c.Weights)) {
		want := make([]float64, len(c.Weights[name].F32))
		if g, ok := c.WeightGrads[name]; ok {
			want = g.Float64s()
		}
		found.withinBound("grad.param."+name, got["grad.param."+name], want, c.WeightGradBound(name))
	}
	return nil
}

// upstreamOfTokens is the gradients of a router's selected tokens, in the order of the slots of a record: a case lists its
// slots in another order.
func upstreamOfTokens(c *golden.Case, r colt5.RoutingRecord) (map[string][]float32, error) {
	up, ok := c.Upstream["y"]
	if !ok {
		return nil, errNoGradients
	}
	pairs, err := (&comparison{}).record(c, r, maskOf(c, r.Router))
	if err != nil {
		return nil, err
	}
	list := make([]float32, len(up.F32))
	dim := len(list) / len(r.Indices)
	for i, to := range pairs.recorded {
		copy(list[to*dim:(to+1)*dim], up.F32[pairs.golden[i]*dim:])
	}
	return map[string][]float32{"tokens": list}, nil
}
