package colt5

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/colt5-vulkan/colt5/vk"
)

// plansKept is how many plans a module keeps: those used last.
const plansKept = 8

// plan is a module call prepared for its shapes: a tape, the memory between its steps, and slots for the caller's tensors.
type plan struct {
	tape      *vk.Tape
	profiled  bool       // the tape times its steps
	workspace *vk.Buffer // nil: none needed
	slots     []*vk.Slot // nil where the call had no such tensor
	logits    vk.Range   // where random logits go
}

func (p *plan) close() error {
	if p == nil {
		return nil
	}
	return errors.Join(p.tape.Close(), p.workspace.Close())
}

// run binds the caller's tensors, in the order of the slots, and runs the plan.
func (p *plan) run(tensors []*Tensor) error {
	for i, t := range tensors {
		if p.slots[i] == nil {
			continue
		}
		if err := p.tape.Bind(p.slots[i], t.memory); err != nil {
			return err
		}
	}
	return p.tape.Run()
}

// builder makes a plan: it lays out the workspace and records.
type builder struct {
	dev       *vk.Device
	tape      *vk.Tape
	plan      *plan
	workspace vk.Range
}

// newBuilder starts a plan for the tensors of a call; nil ones have no slot.
func (g *guard) newBuilder(dev *vk.Device, name string, l *layout, tensors []*Tensor, names ...string) (*builder, error) {
	tape, err := dev.NewTape(vk.TapeConfig{Name: name, Profile: g.profile})
	if err != nil {
		return nil, err
	}
	b := &builder{dev: dev, tape: tape, plan: &plan{tape: tape, profiled: g.profile}}
	for i, t := range tensors {
		var s *vk.Slot
		if t != nil {
			s = tape.NewSlot(names[i], t.memory.Size())
		}
		b.plan.slots = append(b.plan.slots, s)
	}
	if l.peak > 0 {
		b.plan.workspace, err = dev.NewBuffer(name+" workspace", l.peak)
		if err != nil {
			return nil, errors.Join(err, b.plan.close())
		}
		b.workspace = b.plan.workspace.Range()
	}
	return b, nil
}

// slot is the range of the i-th tensor of the call, absent if there is none.
func (b *builder) slot(i int) vk.Range {
	if b.plan.slots[i] == nil {
		return vk.Range{}
	}
	return b.plan.slots[i].Range()
}

// at is the place of a piece of the layout, absent for an empty one.
func (b *builder) at(p piece) vk.Range {
	if p.size == 0 {
		return vk.Range{}
	}
	return b.workspace.Slice(p.offset, p.size)
}

// done ends the plan, or takes it down if recording failed.
func (b *builder) done(err error) (*plan, error) {
	if err != nil {
		return nil, errors.Join(err, b.plan.close())
	}
	return b.plan, nil
}

// layout lays out the memory between the steps of a plan. Pieces are taken and given back in the order of the steps, so that those that
// are not needed at the same time share memory. It needs no device: what a call takes is a function of its shapes.
type layout struct {
	taken []piece // by offset
	peak  uint64
}

// piece is a part of a workspace.
type piece struct{ offset, size uint64 }

const pieceAlignment = 256

// take finds room for size bytes; 0 bytes are an absent piece.
func (l *layout) take(size uint64) piece {
	if size == 0 {
		return piece{}
	}
	at, i := uint64(0), 0
	for i < len(l.taken) && l.taken[i].offset-at < size {
		at = l.taken[i].offset + (l.taken[i].size+pieceAlignment-1)&^(pieceAlignment-1)
		i++
	}
	p := piece{at, size}
	l.taken = slices.Insert(l.taken, i, p)
	l.peak = max(l.peak, at+size)
	return p
}

// give says that a piece is not needed after this step.
func (l *layout) give(pieces ...piece) {
	for _, p := range pieces {
		if i := slices.Index(l.taken, p); i >= 0 && p.size > 0 {
			l.taken = slices.Delete(l.taken, i, i+1)
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

// closer is everything that a module has to close.
type closer interface{ Close() error }

// guard runs the calls of a module one after the other, and says whether it is closed.
type guard struct {
	mu      sync.Mutex
	closed  bool
	profile bool  // time every step of the plans that are made
	last    *plan // of the last call that finished
}

// Profile says whether calls time every step, for CallStats.StepTimes; the steps then run one after the other, so that the whole call
// takes longer. It concerns shapes that the module has not seen before.
func (g *guard) Profile(on bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.profile = on
}

// CallStats is what a call cost on the device.
type CallStats struct {
	Time      time.Duration // GPU time, from the first step to the last
	Flops     float64       // floating-point operations of the matrix products and reductions
	Bytes     float64       // memory that the steps must move at least
	Workspace uint64        // bytes of device memory between the steps
	Steps     []string      // kernels, in order
	StepTimes []vk.StepTime // of kernels, fills and copies, in order; nil without Profile
}

// LastCall tells what the last Forward cost. Before the first one it is an error.
func (g *guard) LastCall() (CallStats, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return CallStats{}, errClosed("LastCall")
	}
	if g.last == nil {
		return CallStats{}, errors.New("colt5: LastCall: there was no call yet")
	}
	elapsed, err := g.last.tape.Elapsed()
	if err != nil {
		return CallStats{}, fmt.Errorf("colt5: LastCall: %w", err)
	}
	s := CallStats{Time: elapsed, Steps: g.last.tape.Kernels()}
	s.Flops, s.Bytes = g.last.tape.Work()
	if g.last.workspace != nil {
		s.Workspace = g.last.workspace.Size()
	}
	if g.last.profiled {
		if s.StepTimes, err = g.last.tape.Steps(); err != nil {
			return CallStats{}, fmt.Errorf("colt5: LastCall: %w", err)
		}
	}
	return s, nil
}

// run runs a plan for the caller's tensors.
func (g *guard) run(op string, p *plan, tensors []*Tensor) error {
	g.last = nil
	if err := p.run(tensors); err != nil {
		return fmt.Errorf("colt5: %s: %w", op, err)
	}
	g.last = p
	return nil
}

// exclusive runs f while nothing else runs on the module.
func (g *guard) exclusive(op string, f func() error) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return errClosed(op)
	}
	return f()
}

func errClosed(op string) error { return fmt.Errorf("colt5: %s: the module is %w", op, vk.ErrClosed) }
