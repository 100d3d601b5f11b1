package colt5

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/colt5-vulkan/colt5/vk"
)

// closer is everything that a module has to close.
type closer interface{ Close() error }

// guard runs the calls of a module one after the other, and says whether it is closed.
type guard struct {
	mu      sync.Mutex
	closed  bool
	profile bool  // time every step of the plans that are made
	inspect bool  // keep what routers decide, in the plans that are made
	last    *plan // of the last call that finished
}

// Profile says whether calls time every step, for CallStats.StepTimes; the steps then run one after the other, so that the whole call
// takes longer.
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
	Barriers  int           // places where steps wait for those before
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
	elapsed, err := g.last.list.Elapsed()
	if err != nil {
		return CallStats{}, fmt.Errorf("colt5: LastCall: %w", err)
	}
	s := CallStats{Time: elapsed, Steps: g.last.list.Kernels(), Workspace: g.last.memoryBytes()}
	s.Flops, s.Bytes = g.last.list.Work()
	s.Barriers = g.last.list.Barriers()
	if g.last.profiled {
		if s.StepTimes, err = g.last.list.Steps(); err != nil {
			return CallStats{}, fmt.Errorf("colt5: LastCall: %w", err)
		}
	}
	return s, nil
}

// run casts weights that changed, and runs a plan for the caller's tensors.
func (m *module) run(op string, p *plan, tensors []*Tensor) error {
	if err := m.weights.cast(); err != nil {
		return fmt.Errorf("colt5: %s: %w", op, err)
	}
	return m.guard.run(op, p, tensors)
}

// run runs a plan for the caller's tensors.
func (g *guard) run(op string, p *plan, tensors []*Tensor) error {
	g.last = nil
	if err := p.run(tensors); err != nil {
		return fmt.Errorf("colt5: %s: %w", op, err)
	}
	if err := p.checkIDs(); err != nil {
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

// core is what all modules have in common: kernels, and plans for the shapes of the last calls.
type core struct {
	guard
	name      string // of the type
	dev       *vk.Device
	precision DType
	kernels   kernels
	plans     plans[planKey]
}

// open makes a core ready for a device.
func (m *core) open(name string, dev *vk.Device, p DType) {
	m.name, m.dev, m.precision, m.kernels = name, dev, p, kernels{dev, map[any]closer{}}
}

// planKey tells the calls of a module apart that need different plans: by sizes, and by which tensors are there.
type planKey struct {
	sizes            [6]int
	given            [2]bool
	profile, inspect bool
}

// find is the plan for a call, nil if it has to be made.
func (m *core) find(key *planKey) *plan {
	key.profile, key.inspect = m.profile, m.inspect
	return m.plans.find(*key)
}

// prepare makes a plan and keeps it.
func (m *core) prepare(op string, key planKey, tensors []*Tensor, names []string, wire func(*builder)) (*plan, error) {
	p, err := newPlan(m.dev, &m.kernels, m.name, m.precision, m.profile, m.inspect, tensors, names, wire)
	if err == nil {
		err = m.plans.add(key, p)
	}
	if err != nil {
		return nil, fmt.Errorf("colt5: %s: %w", op, err)
	}
	return p, nil
}

// close frees everything: plans, what others names, and kernels. What fails to close, because the device is still busy, is tried again by another
// call.
func (m *core) close(others ...func() error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	err := m.plans.close()
	for _, f := range others {
		err = errors.Join(err, f())
	}
	return errors.Join(err, m.kernels.close())
}

// module is a core with weights. Its methods are those of the modules.
type module struct {
	core
	weights weights
}

// start makes a module ready for a device and builds it: build adds the weights, which then get the initial values of seed 0.
func (m *module) start(name string, dev *vk.Device, p DType, check func(op string) error, build func(*weights)) error {
	op := "New" + name
	if err := firstError(needDevice(op, dev), check(op), checkPrecision(op, p)); err != nil {
		return err
	}
	if err := p.Supported(dev.Caps()); err != nil {
		return fmt.Errorf("colt5: %s: Precision: %w", op, err)
	}
	m.open(name, dev, p)
	m.weights.dev, m.weights.precision = dev, p
	build(&m.weights)
	err := m.weights.err
	if err == nil {
		err = m.weights.init(0)
	}
	if err == nil {
		err = m.weights.recordCasts(&m.kernels)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("colt5: %s: %w", op, err), m.close())
	}
	return nil
}

// Parameters are the weights under their PyTorch names.
func (m *module) Parameters() []Parameter { return slices.Clone(m.weights.list) }

// Init gives the weights their initial values; the same seed gives the same values on every device.
func (m *module) Init(seed uint64) error {
	return m.exclusive(m.name+".Init", func() error { return m.weights.init(seed) })
}

// Load reads the weights from a safetensors file: all of them, and nothing else.
func (m *module) Load(path string) error {
	op := m.name + ".Load"
	return m.exclusive(op, func() error { return m.weights.load(op, path) })
}

// Save writes the weights to a safetensors file, which is replaced whole or not at all.
func (m *module) Save(path string) error {
	op := m.name + ".Save"
	return m.exclusive(op, func() error { return m.weights.save(op, path) })
}

// close frees the weights too.
func (m *module) close() error { return m.core.close(m.weights.close) }

// Memory is what a call of a module needs of a device, in bytes.
type Memory struct {
	Weights   uint64
	Inputs    uint64
	Outputs   uint64
	Workspace uint64 // between the steps, tables included
}

// Total is the sum.
func (m Memory) Total() uint64 { return m.Weights + m.Inputs + m.Outputs + m.Workspace }

// measure tells what a call needs, without a device: build adds the weights, wire the steps.
func measure(op string, caps vk.Caps, p DType, inputs, outputs uint64, build func(*weights), wire func(*builder)) (Memory, error) {
	if err := checkPrecision(op, p); err != nil {
		return Memory{}, err
	}
	w := weights{precision: p}
	build(&w)
	if w.err != nil {
		return Memory{}, fmt.Errorf("colt5: %s: %w", op, w.err)
	}
	b := &builder{caps: caps, precision: p}
	b.measure(wire)
	m := Memory{Weights: w.castBytes, Inputs: inputs, Outputs: outputs, Workspace: b.peak + b.constants}
	for _, p := range w.list {
		m.Weights += uint64(p.Tensor.size())
	}
	if b.err != nil {
		return Memory{}, fmt.Errorf("colt5: %s: %w", op, b.err)
	}
	return m, nil
}
