package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/colt5-vulkan/colt5/colt5"
	"github.com/colt5-vulkan/colt5/internal/golden"
	"github.com/colt5-vulkan/colt5/internal/ref"
)

// routes compares what the routers of a module decided with what the case says of them: the same routers decided, and the same.
func (c *comparison) routes(of *golden.Case, decisions []colt5.RoutingRecord) error {
	missing := maps.Clone(of.Routes)
	for _, d := range decisions {
		if _, ok := missing[d.Router]; !ok {
			c.problem("%s: it decided, but the case has no route of it", d.Router)
			continue
		}
		delete(missing, d.Router)
		if _, err := c.routed(of, d, maskOf(of, d.Router)); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(missing)) {
		c.problem("%s: it decided nothing, but the case has a route of it", name)
	}
	return nil
}

// maskOf is the mask of the tokens that a router chooses from; nil: all are real.
func maskOf(of *golden.Case, router string) []uint8 {
	if _, cross := of.Inputs["context"]; cross && router == "kv_router" {
		return of.Inputs["context_mask"].U8
	}
	return of.Inputs["mask"].U8
}

// routed compares what a router decided with a golden route: logits where the tokens are real, soft scores, and, row by row, the set of
// chosen tokens with their scores. It returns which slots hold the same token; nil if the sets differ.
func (c *comparison) routed(of *golden.Case, d colt5.RoutingRecord, mask []uint8) (*slotPairs, error) {
	want := of.Routes[d.Router]
	l, err := newLayout(of, d, want, mask)
	if err != nil {
		return nil, fmt.Errorf("router %q: %w", d.Router, err)
	}
	name := strings.TrimPrefix(d.Router+" ", " ")
	var logits, soft []float32
	expected := want.Logits.Float64s()
	pairs := &slotPairs{}
	var differ error
	for row, part := range l.parts() {
		ours, theirs := l.ours(d, part), l.theirs(part, row)
		logits, soft = append(logits, ours.logits...), append(soft, ours.soft...)
		for i, real := range ours.real {
			if !real {
				logits[row*l.n+i], expected[row*l.n+i] = 0, 0
			}
		}
		a, b := filled(d.Indices, d.Scores, ours.slot, l.count), filled(want.Indices.I32, want.Scores.F32, theirs.slot, l.count)
		err := ref.SameSet(ours.indices(d.Indices, a), theirs.indices(want.Indices.I32, b))
		if err != nil && differ == nil {
			differ = fmt.Errorf("%sindices of row %d: %w", name, row, err)
		}
		pairs.ours, pairs.theirs = append(pairs.ours, a...), append(pairs.theirs, b...)
	}
	c.near(name+"logits", logits, expected, of.ScoreBound())
	c.near(name+"scores_all", soft, want.ScoresAll.Float64s(), of.ScoreBound())
	if first := l.skipped(d); first >= 0 {
		c.problem("%sslot %d is of the first window, but not empty", name, first)
	}
	if differ != nil {
		c.problem("%v", differ)
		return nil, nil // slots of other tokens cannot be compared
	}
	if len(pairs.ours) > 0 {
		c.near(name+"scores", pick(d.Scores, pairs.ours), floats(pick(want.Scores.F32, pairs.theirs)), of.ScoreBound())
	}
	return pairs, nil
}

// slotPairs pairs slots that hold the same token.
type slotPairs struct{ ours, theirs []int }

// layout is how the rows of a golden route lie: by items, blocks or windows, routes. In the autoregressive module they leave out the first
// window, and the others' tokens are padded to whole windows.
type layout struct {
	items, blocks, routes int
	n                     int // entries of a row
	tokens                int // of an item
	count                 int // slots of a row
	skip                  int // blocks at the start that the case leaves out
	prefixes              bool
	mask                  []uint8 // nil: all tokens are real
}

func newLayout(of *golden.Case, d colt5.RoutingRecord, want golden.Route, mask []uint8) (layout, error) {
	windows := max(d.Windows, 1)
	l := layout{items: d.Lists / (d.Routes * windows), blocks: windows, routes: d.Routes, count: d.K, prefixes: d.Windows > 0, mask: mask}
	l.tokens = len(d.Logits) / (l.items * l.routes)
	rows := want.Logits.Shape[0]
	l.n = want.Logits.Shape[1]
	if !l.prefixes {
		l.blocks = (l.tokens + d.Block - 1) / d.Block
		l.count = d.K / l.blocks
	}
	if of.Module == "ConditionalRoutedAutoregressiveAttention" {
		l.skip = 1
	}
	switch {
	case rows != len(l.parts()):
		return l, fmt.Errorf("the route has %d rows, want %d", rows, len(l.parts()))
	case !l.prefixes && l.n != d.Block || l.prefixes && (l.n%windows != 0 || l.n < l.tokens):
		return l, fmt.Errorf("rows of the route have %d entries, want those of %d tokens in blocks of %d", l.n, l.tokens, d.Block)
	case len(want.Indices.I32) != rows*l.count:
		return l, fmt.Errorf("the route has %d slots, want %d", len(want.Indices.I32), rows*l.count)
	case mask != nil && len(mask) != l.items*l.tokens:
		return l, fmt.Errorf("the mask has %d tokens, want %d", len(mask), l.items*l.tokens)
	}
	return l, nil
}

// part is one row of a route.
type part struct{ item, block, route int }

func (l layout) parts() []part {
	var list []part
	for item := range l.items {
		for block := l.skip; block < l.blocks; block++ {
			for route := range l.routes {
				list = append(list, part{item, block, route})
			}
		}
	}
	return list
}

// decided is a row of a decision.
type decided struct {
	logits, soft []float32
	real         []bool
	slot         int // the first one
	token        int // which the row starts with; indices count from the item's first
}

// indices are the tokens in slots, counted in the row.
func (d decided) indices(all []int32, slots []int) []int32 {
	list := pick(all, slots)
	for i := range list {
		list[i] -= int32(d.token)
	}
	return list
}

// ours is a row of a decision, padded to its golden length.
func (l layout) ours(d colt5.RoutingRecord, p part) decided {
	at := (p.item*l.routes + p.route) * l.tokens // of logits
	list, from, visible := p.item*l.routes+p.route, p.block*l.n, l.n
	slot := list*d.K + p.block*l.count
	if l.prefixes {
		list = (p.item*l.blocks+p.block)*l.routes + p.route
		from, visible = 0, p.block*l.n/l.blocks
		slot = list * d.K
	}
	row := decided{logits: make([]float32, l.n), soft: make([]float32, l.n), real: make([]bool, l.n), slot: slot, token: from}
	to := min(from+l.n, l.tokens)
	copy(row.logits, d.Logits[at+from:at+to])
	copy(row.soft, d.SoftScores[list*l.tokens+from:][:to-from])
	for i := range min(to-from, visible) {
		row.real[i] = l.mask == nil || l.mask[p.item*l.tokens+from+i] != 0
	}
	return row
}

// theirs is where a golden row has its slots, and from where its indices count.
func (l layout) theirs(p part, row int) decided {
	if l.skip > 0 || l.prefixes {
		return decided{slot: row * l.count}
	}
	return decided{slot: ((p.item*l.routes+p.route)*l.blocks + p.block) * l.count, token: p.block * l.n}
}

// skipped finds a filled slot in the blocks that the case leaves out, -1 if there is none.
func (l layout) skipped(d colt5.RoutingRecord) int {
	for slot, score := range d.Scores {
		block := slot % d.K / l.count
		if l.prefixes {
			block = slot / d.K / l.routes % l.blocks
		}
		if block < l.skip && score != 0 {
			return slot
		}
	}
	return -1
}
