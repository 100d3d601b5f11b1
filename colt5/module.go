package colt5

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/colt5-vulkan/colt5/safetensors"
	"github.com/colt5-vulkan/colt5/vk"
)

// lifecycle serialises the calls of a module and records whether it is closed.
type lifecycle struct {
	busy   chan struct{} // holds a value while a call runs; unlike a mutex, waiting for it can end with the context
	closed bool
}

var errZeroValue = errors.New("it is the zero value, want one made by its New function")

func newLifecycle() lifecycle { return lifecycle{busy: make(chan struct{}, 1)} }

// lock waits until no call is in progress, or the context ends.
func (l *lifecycle) lock(ctx context.Context) error {
	if l.busy == nil {
		return errZeroValue
	}
	if ctx == nil {
		return errNilContext
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case l.busy <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (l *lifecycle) leave() { <-l.busy }

// base is the state that all modules have.
type base struct {
	lifecycle
	serial    uint64 // order in which a graph locks its modules
	name      string // of the type
	dev       *vk.Device
	precision DType
	layer     layer
	weights   weights // none in modules without parameters
	kernels   kernels
	plans     planCache[planKey]
}

// moduleBase is a base with its configuration. Modules without weights embed it.
type moduleBase[C config] struct {
	base
	config C
}

// Config returns the configuration that the module was made with.
func (m *moduleBase[C]) Config() C { return m.config }

// module is a moduleBase with the methods for weights.
type module[C config] struct{ moduleBase[C] }

// serials counts the modules of the process.
var serials atomic.Uint64

// newModule makes a module on a device. Its weights get the initial values of seed 0. Without a device the weights have
// shapes but no memory.
func newModule[C config](ctx context.Context, name string, dev *vk.Device, c C) (module[C], error) {
	m, err := newModuleBase(ctx, name, dev, c)
	return module[C]{m}, err
}

func newModuleBase[C config](ctx context.Context, name string, dev *vk.Device, c C) (moduleBase[C], error) {
	op := "New" + name
	m := moduleBase[C]{config: c}
	k := checker{op: op}
	if err := firstError(needContext(op, ctx), c.check(k), k.precision(c.precision())); err != nil {
		return m, err
	}
	if dev != nil {
		if err := c.precision().Supported(dev.Caps()); err != nil {
			return m, fmt.Errorf("colt5: %s: Precision: %w", op, err)
		}
	}
	m.base = base{
		lifecycle: newLifecycle(), serial: serials.Add(1), name: name, dev: dev, precision: c.precision(),
		weights: weights{dev: dev, precision: c.precision()}, kernels: newKernels(dev),
	}
	m.layer = c.build(&m.weights)
	err := m.weights.err
	if dev == nil && err == nil {
		return m, nil
	}
	if err == nil {
		err = m.weights.replaceInPlace(ctx, m.weights.all(), m.weights.initial(0))
	}
	if err == nil {
		err = m.weights.recordCasts(&m.kernels)
	}
	if err != nil {
		return m, errors.Join(fmt.Errorf("colt5: %s: %w", op, err), m.close())
	}
	return m, nil
}

// enter begins a call once the current one ends. It fails when the context ends first.
func (m *base) enter(ctx context.Context, op string) error {
	if m.busy == nil {
		return fmt.Errorf("colt5: %s: the module is the zero value, want one made by its New function", op)
	}
	if m.dev == nil {
		return m.fail(op, errors.New("the module was made without a device: it can only be a part of a graph that is not run"))
	}
	if err := m.lock(ctx); err != nil {
		return m.fail(op, err)
	}
	if m.closed {
		m.leave()
		return m.fail(op, fmt.Errorf("the module is %w", vk.ErrClosed))
	}
	return nil
}

// fail adds the names of the module and the method to an error.
func (m *base) fail(op string, err error) error {
	return fmt.Errorf("colt5: %s.%s: %w", m.name, op, err)
}

// exclusive runs f, which uses the module's weights, while no other call runs.
func (m *base) exclusive(ctx context.Context, op string, f func() error) error {
	if err := m.enter(ctx, op); err != nil {
		return err
	}
	defer m.leave()
	if err := f(); err != nil {
		return m.fail(op, err)
	}
	return nil
}

// Parameters returns the weights under their PyTorch names.
func (m *module[C]) Parameters() []Parameter { return slices.Clone(m.weights.list) }

// Init draws initial weights from the distributions that PyTorch uses. The same seed gives the same weights on every
// device. If it fails, the weights keep their values, as after LoadFrom.
func (m *module[C]) Init(ctx context.Context, seed uint64) error {
	return m.exclusive(ctx, "Init", func() error {
		return m.weights.replace(ctx, m.weights.all(), m.weights.initial(seed))
	})
}

// Load reads the weights from a safetensors file, or from the files of a sharded checkpoint, given its index. They must
// hold every parameter, as F64, F32, F16 or BF16, and nothing else. It is LoadFrom with the zero options.
func (m *module[C]) Load(ctx context.Context, path string) error {
	return m.exclusive(ctx, "Load", func() error { return m.weights.loadFile(ctx, path) })
}

// LoadFrom reads the weights from src, for instance a file of package safetensors, which need not be a file of the
// operating system. The options say how the names of tensors become those of parameters, and what may be missing or
// left over. Modules with RotaryEmb ignore rotary_emb.inv_freq, the frequencies that PyTorch saves.
//
// LoadFrom changes all weights or none: if it fails, or the context ends, the weights keep their values. It needs host
// memory for the largest parameter, and device memory for a second copy of the parameters that it loads. If the device
// has no memory for that, src is read twice, first to check it, and the parameters are written one by one. Should that
// fail midway, Forward and Save return an error until Load, LoadFrom or Init has replaced all weights.
func (m *module[C]) LoadFrom(ctx context.Context, src safetensors.Source, o safetensors.LoadOptions) error {
	return m.exclusive(ctx, "LoadFrom", func() error { return m.weights.load(ctx, src, "", o) })
}

// Save writes the weights to a safetensors file. An existing file is replaced atomically.
func (m *module[C]) Save(ctx context.Context, path string) error {
	return m.exclusive(ctx, "Save", func() error { return m.weights.save(ctx, path) })
}

// closeModule is the Close of all modules. A nil module is closed already.
func closeModule[P interface {
	*T
	closer
	shared() *base
}, T any](m P) error {
	if m == nil {
		return nil
	}
	return m.shared().close()
}

func (m *base) shared() *base { return m }

// close waits for the call in progress and frees plans, weights and kernels. If something cannot be closed because the
// device is busy, calling Close again retries.
func (m *base) close() error {
	if m.busy == nil {
		return nil
	}
	m.busy <- struct{}{}
	defer m.leave()
	m.closed = true
	return errors.Join(m.plans.close(), m.weights.close(), m.kernels.close())
}
