package verify

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/colt5-vulkan/colt5/colt5"
	"github.com/colt5-vulkan/colt5/internal/golden"
	"github.com/colt5-vulkan/colt5/internal/ref"
)

// routings compares the routing records of a module with the golden routing records of a case: for the same routers, with the same
// values.
func (c *comparison) routings(of *golden.Case, records []colt5.RoutingRecord) error {
	missing := maps.Clone(of.Routings)
	for _, r := range records {
		if _, ok := missing[r.Router]; !ok {
			c.problem("%s: has a routing record, but the case has none", r.Router)
			continue
		}
		delete(missing, r.Router)
		if _, err := c.record(of, r, maskOf(of, r.Router)); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(missing)) {
		c.problem("%s: has no routing record, but the case has one", name)
	}
	return nil
}

// maskOf returns the mask of the tokens that a router selects from. It is nil if all are valid.
func maskOf(of *golden.Case, router string) []uint8 {
	if _, cross := of.Inputs["context"]; cross && router == "kv_router" {
		return of.Inputs["context_mask"].U8
	}
	return of.Inputs["mask"].U8
}

// record compares a routing record with a golden one: logits of valid tokens, soft scores, and, row by row, the set
// of selected tokens with their scores. It returns pairs of slots that hold the same token, or nil if the sets differ.
func (c *comparison) record(of *golden.Case, r colt5.RoutingRecord, mask []uint8) (*slotPairs, error) {
	want := of.Routings[r.Router]
	l, err := newLayout(of, r, want, mask)
	if err != nil {
		return nil, fmt.Errorf("router %q: %w", r.Router, err)
	}
	name := strings.TrimPrefix(r.Router+" ", " ")
	var logits, soft []float32
	expected := want.Logits.Float64s()
	pairs := &slotPairs{}
	var differ error
	for i, p := range l.rows() {
		recorded, reference := l.recordedRow(r, p), l.goldenRow(p, i)
		logits, soft = append(logits, recorded.logits...), append(soft, recorded.soft...)
		for j, valid := range recorded.valid {
			if !valid {
				logits[i*l.n+j], expected[i*l.n+j] = 0, 0
			}
		}
		a, b := validSlots(r.Indices, r.Scores, recorded.slot, l.count), validSlots(want.Indices.I32, want.Scores.F32, reference.slot, l.count)
		err := ref.SameSet(recorded.indices(r.Indices, a), reference.indices(want.Indices.I32, b))
		if err != nil && differ == nil {
			differ = fmt.Errorf("%sindices of row %d: %w", name, i, err)
		}
		pairs.recorded, pairs.golden = append(pairs.recorded, a...), append(pairs.golden, b...)
	}
	c.withinBound(name+"logits", logits, expected, of.ScoreBound())
	c.withinBound(name+"scores_all", soft, want.ScoresAll.Float64s(), of.ScoreBound())
	if slot := l.skippedSlot(r); slot >= 0 {
		c.problem("%sslot %d is of the first window, but not empty", name, slot)
	}
	if differ != nil {
		c.problem("%v", differ)
		return nil, nil // scores of different tokens cannot be compared
	}
	if len(pairs.recorded) > 0 {
		c.withinBound(name+"scores", pick(r.Scores, pairs.recorded), float64s(pick(want.Scores.F32, pairs.golden)), of.ScoreBound())
	}
	return pairs, nil
}

// slotPairs are pairs of slots that hold the same token.
type slotPairs struct{ recorded, golden []int }

// layout is the order of the rows of a golden routing record: by item, block or window, and route. The autoregressive module has
// no rows for the first window, and the tokens of the others are padded to whole windows.
type layout struct {
	items, blocks, routes int
	n                     int // entries of a row
	tokens                int // of an item
	count                 int // slots of a row
	skip                  int // number of first blocks without rows
	prefixes              bool
	mask                  []uint8 // nil: all tokens are valid
}

func newLayout(of *golden.Case, r colt5.RoutingRecord, want golden.Routing, mask []uint8) (layout, error) {
	windows := max(r.Windows, 1)
	l := layout{items: r.Lists / (r.Routes * windows), blocks: windows, routes: r.Routes, count: r.K, prefixes: r.Windows > 0, mask: mask}
	l.tokens = len(r.Logits) / (l.items * l.routes)
	rows := want.Logits.Shape[0]
	l.n = want.Logits.Shape[1]
	if !l.prefixes {
		l.blocks = (l.tokens + r.Block - 1) / r.Block
		l.count = r.K / l.blocks
	}
	if of.Module == "ConditionalRoutedAutoregressiveAttention" {
		l.skip = 1
	}
	switch {
	case rows != len(l.rows()):
		return l, fmt.Errorf("the golden routing record has %d rows, want %d", rows, len(l.rows()))
	case !l.prefixes && l.n != r.Block || l.prefixes && (l.n%windows != 0 || l.n < l.tokens):
		return l, fmt.Errorf("the golden routing record has rows of %d entries, want %s", l.n, l.wantedEntries(r.Block, windows))
	case len(want.Indices.I32) != rows*l.count:
		return l, fmt.Errorf("the golden routing record has %d slots, want %d", len(want.Indices.I32), rows*l.count)
	case mask != nil && len(mask) != l.items*l.tokens:
		return l, fmt.Errorf("the mask has %d tokens, want %d", len(mask), l.items*l.tokens)
	}
	return l, nil
}

// wantedEntries says how many entries a row must have.
func (l layout) wantedEntries(block, windows int) string {
	if l.prefixes {
		return fmt.Sprintf("a multiple of %d windows, at least %d", windows, l.tokens)
	}
	return fmt.Sprint(block)
}

// position identifies a row of a golden routing record.
type position struct{ item, block, route int }

func (l layout) rows() []position {
	var list []position
	for item := range l.items {
		for block := l.skip; block < l.blocks; block++ {
			for route := range l.routes {
				list = append(list, position{item, block, route})
			}
		}
	}
	return list
}

// row is a row of a routing record, or the location of a row of a golden one.
type row struct {
	logits, soft []float32
	valid        []bool
	slot         int // the first one
	token        int // the first one; indices count from the first token of the item
}

// indices returns the tokens in slots, relative to the row.
func (r row) indices(all []int32, slots []int) []int32 {
	list := pick(all, slots)
	for i := range list {
		list[i] -= int32(r.token)
	}
	return list
}

// recordedRow returns a row of a routing record, padded to the length of a golden row.
func (l layout) recordedRow(r colt5.RoutingRecord, p position) row {
	at := (p.item*l.routes + p.route) * l.tokens // in Logits
	list, from, visible := p.item*l.routes+p.route, p.block*l.n, l.n
	slot := list*r.K + p.block*l.count
	if l.prefixes {
		list = (p.item*l.blocks+p.block)*l.routes + p.route
		from, visible = 0, p.block*l.n/l.blocks
		slot = list * r.K
	}
	x := row{logits: make([]float32, l.n), soft: make([]float32, l.n), valid: make([]bool, l.n), slot: slot, token: from}
	to := min(from+l.n, l.tokens)
	copy(x.logits, r.Logits[at+from:at+to])
	copy(x.soft, r.SoftScores[list*l.tokens+from:][:to-from])
	for i := range min(to-from, visible) {
		x.valid[i] = l.mask == nil || l.mask[p.item*l.tokens+from+i] != 0
	}
	return x
}

// goldenRow returns the first slot and token of a golden row.
func (l layout) goldenRow(p position, i int) row {
	if l.skip > 0 || l.prefixes {
		return row{slot: i * l.count}
	}
	return row{slot: ((p.item*l.routes+p.route)*l.blocks + p.block) * l.count, token: p.block * l.n}
}

// skippedSlot returns a valid slot of a block without rows, or -1 if there is none.
func (l layout) skippedSlot(r colt5.RoutingRecord) int {
	for slot, score := range r.Scores {
		block := slot % r.K / l.count
		if l.prefixes {
			block = slot / r.K / l.routes % l.blocks
		}
		if block < l.skip && score != 0 {
			return slot
		}
	}
	return -1
}
