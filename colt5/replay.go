package colt5

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/colt5-vulkan/colt5/internal/errtext"
	"github.com/colt5-vulkan/colt5/vk"
)

// errReplayedRouter is the error of a node whose results are the selection itself.
var errReplayedRouter = errors.New("a CoordinateDescentRouter selects by itself, which GraphOptions.Replay cannot replace")

// replayedLists are the lists of a router that the host uploads before each run, in place of a selection.
type replayedLists struct {
	selectionShape
	name   string     // of the router, as in a RoutingRecord
	buffer *vk.Buffer // indices [lists, k], valid words [lists, k]
	words  []uint32   // its content in the next run
	node   *node      // of the forward pass
	router string     // name in the node
}

// replayLists sets a router's lists to those that the host uploads before each run. The backward pass has those of the
// forward pass. They are in a buffer, because steps of the run reuse the workspace.
func (b *builder) replayLists(c *routerState) {
	bytes := b.floatBytes(2, (c.lists()*c.k+3)/4, 4) // each half is aligned
	if b.gradients == nil {
		b.constants += bytes
	}
	if b.err != nil || b.list == nil {
		return
	}
	of := b.node
	if b.gradients != nil {
		of = b.gradients.of
	}
	i := slices.IndexFunc(b.plan.replayed, func(r *replayedLists) bool { return r.node == of && r.router == c.name })
	if i < 0 && b.gradients != nil {
		b.fail(fmt.Errorf("internal error: the backward pass replays %s, the forward pass did not", c.name))
		return
	}
	if i < 0 {
		buffer, err := b.list.Device().NewBuffer("replayed lists", bytes)
		if err != nil {
			b.fail(err)
			return
		}
		i = len(b.plan.replayed)
		b.plan.replayed = append(b.plan.replayed, &replayedLists{
			selectionShape: c.selectionShape, name: b.prefixed(c.name), buffer: buffer, words: make([]uint32, bytes/4), node: of, router: c.name,
		})
	}
	lists := b.plan.replayed[i].buffer.Range()
	size := 4 * uint64(c.lists()*c.k)
	c.indices = allocation{Range: lists.Slice(0, size)}
	c.valid = allocation{Range: lists.Slice(bytes/2, size)}
}

// setReplay makes the lists of the next run from records, one for each router of the plan.
func (p *plan) setReplay(records []RoutingRecord) error {
	given := map[string]int{}
	for i, r := range records {
		if _, twice := given[r.Router]; twice {
			return fmt.Errorf("GraphOptions.Replay has the router %s twice", errtext.Name(r.Router))
		}
		given[r.Router] = i
	}
	for _, to := range p.replayed {
		i, ok := given[to.name]
		if !ok {
			return fmt.Errorf("GraphOptions.Replay has no record of %s, want one of every router that selects, %d", to.name, len(p.replayed))
		}
		delete(given, to.name)
		if err := to.set(&records[i]); err != nil {
			return fmt.Errorf("GraphOptions.Replay of %s: %w", to.name, err)
		}
	}
	for _, r := range records {
		if _, left := given[r.Router]; left {
			return fmt.Errorf("GraphOptions.Replay has a record of %s, which is no router that selects in this run", errtext.Name(r.Router))
		}
	}
	return nil
}

// set sets the lists to those of a record: in each block or window the valid slots first, by index, as a selection does.
func (l *replayedLists) set(r *RoutingRecord) error {
	slots := l.lists() * l.k
	if r.Lists != l.lists() || r.K != l.k || len(r.Indices) != slots || len(r.Scores) != slots {
		return fmt.Errorf("it has %d lists of %d slots, %d Indices and %d Scores, want %d lists of %d slots, and %d of both",
			r.Lists, r.K, len(r.Indices), len(r.Scores), l.lists(), l.k, slots)
	}
	clear(l.words)
	valid := l.words[len(l.words)/2:]
	selected := make([]int32, 0, l.perBlock)
	for first := 0; first < slots; first += l.perBlock {
		from, to := l.selectable(first/l.k, first%l.k/l.perBlock)
		selected = selected[:0]
		for slot := first; slot < first+l.perBlock; slot++ {
			if r.Scores[slot] == 0 {
				continue
			}
			if i := int(r.Indices[slot]); i < from || i >= to {
				return fmt.Errorf("slot %d of list %d has token %d, want %s", slot%l.k, slot/l.k, i, wantedTokens(from, to))
			}
			selected = append(selected, r.Indices[slot])
		}
		slices.Sort(selected)
		for i, token := range selected {
			if i > 0 && token == selected[i-1] {
				return fmt.Errorf("list %d has token %d twice", first/l.k, token)
			}
			l.words[first+i] = uint32(token)
			valid[first+i] = math.Float32bits(1)
		}
	}
	return nil
}

func wantedTokens(from, to int) string {
	if from == to {
		return "an empty slot"
	}
	return fmt.Sprintf("%d to %d", from, to-1)
}
