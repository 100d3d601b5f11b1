package colt5

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/colt5-vulkan/colt5/vk"
)

// plansKept is how many plans a module keeps: those used last.
const plansKept = 8

// plan is a module call prepared for its shapes: a tape, the memory between its steps, and slots for the caller's tensors.
type plan struct {
	list       *vk.CommandList
	profiled   bool          // the tape times its steps
	workspace  *vk.Buffer    // nil: none needed
	constants  []*vk.Buffer  // tables that the steps read
	slots      []*vk.Binding // nil where the call had no such tensor
	logits     vk.Range      // where random logits go
	badIDs     vk.Range      // where the number of token ids outside the vocabulary is counted; absent: it cannot happen
	vocabulary int
	bad        [1]uint32
	readBad    [1]vk.Transfer // of badIDs to bad
	inspected  bool           // it keeps what routers decide:
	decisions  []decision
}

func (p *plan) close() error {
	if p == nil {
		return nil
	}
	err := errors.Join(p.list.Close(), p.workspace.Close())
	for _, c := range p.constants {
		err = errors.Join(err, c.Close())
	}
	return err
}

// run binds the caller's tensors, in the order of the slots, and runs the plan.
func (p *plan) run(tensors []*Tensor) error {
	for i, t := range tensors {
		if p.slots[i] == nil {
			continue
		}
		if err := p.list.Bind(p.slots[i], t.memory); err != nil {
			return err
		}
	}
	err := p.list.Run(context.TODO())
	for _, t := range tensors {
		if t != nil {
			t.version.Add(1) // it may be a result
		}
	}
	return err
}

// checkIDs fails if the run met token ids outside the vocabulary.
func (p *plan) checkIDs() error {
	if p.badIDs.IsZero() {
		return nil
	}
	p.readBad[0] = vk.Transfer{Range: p.badIDs, Data: vk.Bytes(p.bad[:])}
	if err := p.list.Device().Download(context.TODO(), p.readBad[:]...); err != nil {
		return err
	}
	if p.bad[0] > 0 {
		return fmt.Errorf("x holds %d token ids outside the vocabulary of %d", p.bad[0], p.vocabulary)
	}
	return nil
}

// memoryBytes is what the plan takes on the device besides weights and the caller's tensors.
func (p *plan) memoryBytes() uint64 {
	var n uint64
	if p.workspace != nil {
		n = p.workspace.Size()
	}
	for _, c := range p.constants {
		n += c.Size()
	}
	return n
}

// layout lays out the memory between the steps of a plan. Pieces are taken and given back in the order of the steps, so that those that
// are not needed at the same time share memory. It needs no device: what a call takes is a function of its shapes.
//
// Steps that share memory must wait for each other, even where nothing else is between them. So up to limit a piece that was given back rests:
// it is used again when there is no other room, the ones that rest longest first; of very many pieces (calls that are cut in thousands of
// steps) only the last ones rest. Without a limit none rests, and the memory is about as small as it gets.
type arena struct {
	live   []extent // by offset, with those that rest
	deferred []extent // in the order in which they were given back
	limit   uint64
	peak    uint64
}

// piece is a part of a workspace.
type extent struct{ offset, size uint64 }

const (
	blockAlignment = 256
	maxDeferred    = 256 // pieces: more than ten times what a module has at the sizes of its tests and benchmarks
)

// end is where another piece may start.
func (p extent) end() uint64 { return (p.offset + p.size + blockAlignment - 1) &^ (blockAlignment - 1) }

// take finds room for size bytes; 0 bytes are an absent piece.
func (l *arena) alloc(size uint64) extent {
	if size == 0 {
		return extent{}
	}
	at, i := l.firstFit(size)
	for len(l.deferred) > 0 && (at+size > l.limit || len(l.deferred) > maxDeferred) {
		l.remove(l.deferred[0])
		l.deferred = l.deferred[1:]
		at, i = l.firstFit(size)
	}
	p := extent{at, size}
	l.live = slices.Insert(l.live, i, p)
	l.peak = max(l.peak, at+size)
	return p
}

// room is the first place for size bytes, and the number of pieces before it.
func (l *arena) firstFit(size uint64) (at uint64, i int) {
	for i < len(l.live) && l.live[i].offset-at < size {
		at = l.live[i].end()
		i++
	}
	return at, i
}

// remove makes room of a piece.
func (l *arena) remove(p extent) {
	if i := slices.Index(l.live, p); i >= 0 {
		l.live = slices.Delete(l.live, i, i+1)
	}
}

// give says that a piece is not needed after this step.
func (l *arena) release(pieces ...extent) {
	for _, p := range pieces {
		if p.size > 0 && slices.Contains(l.live, p) && !slices.Contains(l.deferred, p) {
			l.deferred = append(l.deferred, p)
		}
	}
}

// plans keeps the plans of a module, those used last first.
type plans[K comparable] struct {
	keys []K
	kept []*plan
	old  []*plan // given up, but the device would not let go of them
}

// find returns the plan for a key, nil if there is none.
func (c *plans[K]) find(key K) *plan {
	i := slices.Index(c.keys, key)
	if i < 0 {
		return nil
	}
	p := c.kept[i]
	copy(c.keys[1:i+1], c.keys[:i])
	copy(c.kept[1:i+1], c.kept[:i])
	c.keys[0], c.kept[0] = key, p
	return p
}

// add keeps a new plan, and closes the one that has not been used for longest if there are too many.
func (c *plans[K]) add(key K, p *plan) error {
	c.keys, c.kept = slices.Insert(c.keys, 0, key), slices.Insert(c.kept, 0, p)
	if len(c.keys) <= plansKept {
		return nil
	}
	old := c.kept[plansKept]
	c.keys, c.kept = c.keys[:plansKept], c.kept[:plansKept]
	if err := old.close(); err != nil {
		c.old = append(c.old, old)
		return err
	}
	return nil
}

// close closes all plans; those that fail are kept for another try.
func (c *plans[K]) close() error {
	var all error
	c.keys = nil
	c.kept = slices.DeleteFunc(append(c.kept, c.old...), func(p *plan) bool {
		err := p.close()
		all = errors.Join(all, err)
		return err == nil
	})
	c.old, c.kept = c.kept, nil
	return all
}
