package vk_test

import (
	"testing"

	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestBindings(t *testing.T) {
	d := openDevice(t, vk.Options{})
	k, l := newKernel(t, d, "mix", nil), newList(t, d, vk.CommandListConfig{})
	const n = 100
	in, out := l.NewBinding("in", 4*n), l.NewBinding("out", 4*n)
	middle := newBuffer(t, d, "middle", 4*n).Range()
	// As an address, and as a buffer and offset; the whole binding, and parts of it.
	require.NoError(t, l.Dispatch(mixDispatch(k, in.Range(), in.Range(), middle, 5)))
	require.NoError(t, l.Copy(out.Range(), middle))
	require.NoError(t, l.Fill(out.Range().Slice(40, 8), 77))
	require.NoError(t, l.Dispatch(mixDispatch(k, vk.Range{}, in.Range().Slice(200, 80), out.Range().Slice(80, 80), 1)))
	assert.ErrorContains(t, l.Run(t.Context()), `binding "in" is not bound`)
	x := randomWords(1, 3*n)
	big := newBuffer(t, d, "big", 12*n)
	uploadTo(t, big.Range(), x)
	outs := [2]vk.Range{newBuffer(t, d, "y0", 4*n).Range(), newBuffer(t, d, "y1", 8*n).Range().Slice(64, 4*n)}
	require.NoError(t, l.Bind(in, big.Range().Slice(0, 4*n)))
	assert.ErrorContains(t, l.Run(t.Context()), `binding "out" is not bound`)
	for i, from := range []int{0, 4, 4, 196, 0} {
		before := d.Stats()
		require.NoError(t, l.Bind(in, big.Range().Slice(uint64(4*from), 4*n)))
		require.NoError(t, l.Bind(out, outs[i%2]))
		require.NoError(t, l.Run(t.Context()))
		part, want := x[from:from+n], make([]uint32, n)
		mixReference(want, part, part, 5, 0)
		want[10], want[11] = 77, 77
		mixReference(want[20:40], nil, part[50:70], 1, 0)
		assert.Equal(t, want, download(t, outs[i%2]))
		assert.Equal(t, before.CommandBufferWrites+2, d.Stats().CommandBufferWrites, "one for the new binding, one for the download")
	}
	before := d.Stats().CommandBufferWrites
	require.NoError(t, l.Bind(out, outs[0]))
	require.NoError(t, l.Run(t.Context()))
	assert.Equal(t, before, d.Stats().CommandBufferWrites, "binding the same memory records nothing")
}

// TestTwoSetsOfMemory binds two sets of memory alternately: command buffers are recorded once for each. A third set
// replaces the one that was not used last.
func TestTwoSetsOfMemory(t *testing.T) {
	d := openDevice(t, vk.Options{})
	k, l := newKernel(t, d, "mix", nil), newList(t, d, vk.CommandListConfig{})
	const n = 100
	in, out := l.NewBinding("in", 4*n), l.NewBinding("out", 4*n)
	step := mixDispatch(k, in.Range(), in.Range(), out.Range(), 5)
	step.Flops = vk.SegmentFlops
	require.NoError(t, l.Dispatch(step))
	require.NoError(t, l.Dispatch(mixDispatch(k, vk.Range{}, in.Range(), in.Range(), 1)))
	step = mixDispatch(k, in.Range(), in.Range(), out.Range(), 3)
	step.Flops = vk.SegmentFlops
	require.NoError(t, l.Dispatch(step))
	var x, y [3]*vk.Buffer
	for i := range x {
		x[i], y[i] = newBuffer(t, d, "x", 4*n), newBuffer(t, d, "y", 4*n)
	}
	writes := 0
	run := func(i int) {
		t.Helper()
		data, want := randomWords(uint64(i), n), make([]uint32, n)
		uploadTo(t, x[i].Range(), data)
		before := d.Stats().CommandBufferWrites
		require.NoError(t, l.Bind(in, x[i].Range()))
		require.NoError(t, l.Bind(out, y[i].Range()))
		require.NoError(t, l.Run(t.Context()))
		writes += int(d.Stats().CommandBufferWrites - before)
		mixReference(data, nil, data, 1, 0)
		mixReference(want, data, data, 3, 0)
		assert.Equal(t, want, download(t, y[i].Range()))
	}
	for _, c := range []struct{ set, writes int }{
		{0, 2}, {0, 0}, {1, 2}, {0, 0}, {1, 0}, {0, 0}, {2, 2}, {0, 0}, {2, 0}, {1, 2}, {0, 2},
	} {
		writes = 0
		run(c.set)
		assert.Equal(t, c.writes, writes, "set %d", c.set)
	}
	require.Equal(t, 2, l.Submits())
	closeAll(t, y[0])
	require.NoError(t, l.Bind(in, x[1].Range()))
	assert.ErrorIs(t, l.Run(t.Context()), vk.ErrClosed)
	y[0] = newBuffer(t, d, "y again", 4*n) // possibly at the same address
	run(0)
}

func TestBindRefused(t *testing.T) {
	d := openDevice(t, vk.Options{})
	l, other := newList(t, d, vk.CommandListConfig{}), newList(t, d, vk.CommandListConfig{})
	s, far := l.NewBinding("s", 64), other.NewBinding("far", 64)
	b, gone := newBuffer(t, d, "b", 256), newBuffer(t, d, "gone", 64)
	r := b.Range()
	closeAll(t, gone)
	for want, err := range map[string]error{
		`binding "s": 60 bytes at offset 0, want 64 at a multiple of 16`:                      l.Bind(s, r.Slice(0, 60)),
		`binding "s": 68 bytes at offset 16, want 64`:                                         l.Bind(s, r.Slice(16, 68)),
		"64 bytes at offset 8, want 64 at a multiple of 16":                                   l.Bind(s, r.Slice(8, 64)),
		`binding "s": the range is of a binding`:                                              l.Bind(s, s.Range()),
		`binding "s": the range is the zero Range`:                                            l.Bind(s, vk.Range{}),
		`binding "s": the range is 64 bytes at offset 208 of buffer "b", which has 256 bytes`: l.Bind(s, r.Slice(208, 64)),
		"the binding belongs to another command list":                                         l.Bind(far, r.Slice(0, 64)),
		"Bind: the binding is nil, want one made by NewBinding":                               l.Bind(nil, r.Slice(0, 64)),
		`argument 0 is of binding "far", which belongs to another command list`:               l.Fill(far.Range(), 1),
		`argument 0 is 64 bytes at offset 32 of binding "s", which has 64 bytes`:              l.Fill(s.Range().Slice(32, 64), 1),
	} {
		assert.ErrorContains(t, err, want)
	}
	assert.ErrorIs(t, l.Bind(s, gone.Range()), vk.ErrClosed)
	require.NoError(t, l.Fill(s.Range(), 1))
	require.NoError(t, l.Bind(s, r.Slice(16, 64)))
	require.NoError(t, l.Run(t.Context()), "rejected bindings have no effect")
}

// TestAliases binds memory for which the barriers were not derived.
func TestAliases(t *testing.T) {
	d := openDevice(t, vk.Options{})
	b, c := newBuffer(t, d, "b", 1024).Range(), newBuffer(t, d, "c", 1024).Range()
	at := func(r vk.Range, offset uint64) vk.Range { return r.Slice(offset, 64) }
	fill := func(l *vk.CommandList, x, _ vk.Range) error { return l.Fill(x, 1) }
	copyXY := func(l *vk.CommandList, x, y vk.Range) error { return l.Copy(y, x) }
	copyYX := func(l *vk.CommandList, x, y vk.Range) error { return l.Copy(x, y) }
	// Both are read; c is written.
	read := func(l *vk.CommandList, x, y vk.Range) error {
		if err := l.Copy(at(c, 0), x); err != nil {
			return err
		}
		return l.Copy(at(c, 64), y)
	}
	static := func(l *vk.CommandList, x, _ vk.Range) error { return l.Copy(at(b, 512), x) }
	onto := func(l *vk.CommandList, x, _ vk.Range) error { return l.Copy(x, at(b, 512)) }
	same := func(l *vk.CommandList, x, _ vk.Range) error { return l.Copy(at(c, 0), x.Slice(0, 64)) }
	for name, a := range map[string]struct {
		record func(l *vk.CommandList, x, y vk.Range) error
		x, y   vk.Range
		want   string // empty: no error
	}{
		"apart":                                   {copyXY, at(b, 0), at(b, 64), ""},
		"two buffers":                             {copyXY, at(b, 0), at(c, 0), ""},
		"the same, one written":                   {copyXY, at(b, 0), at(b, 0), `bindings "x" and "y" are bound to overlapping parts of buffer "b", and one of them is written`},
		"overlap, one written":                    {copyXY, at(b, 0), at(b, 48), "overlapping parts"},
		"the same, the other written":             {copyYX, at(b, 0), at(b, 0), `bindings "x" and "y"`},
		"the same, both read":                     {read, at(b, 0), at(b, 0), ""},
		"overlap, both read":                      {read, at(b, 0), at(b, 16), ""},
		"the other is not used at all":            {fill, at(b, 0), at(b, 128), ""},
		"read binding, static range written":      {static, at(b, 512), at(c, 0), `binding "x" is bound to a part of buffer "b" that the command list also uses directly`},
		"read binding, next to a written range":   {static, at(b, 448), at(c, 0), ""},
		"written binding, static range read":      {onto, at(b, 560), at(c, 0), "that the command list also uses directly"},
		"written binding, next to a read range":   {onto, at(b, 576), at(c, 0), ""},
		"read binding, neighbouring static range": {same, at(b, 0), at(c, 512), ""},
	} {
		t.Run(name, func(t *testing.T) {
			l := newList(t, d, vk.CommandListConfig{})
			x, y := l.NewBinding("x", 64), l.NewBinding("y", 64)
			require.NoError(t, a.record(l, x.Range(), y.Range()))
			require.NoError(t, l.Bind(x, a.x))
			require.NoError(t, l.Bind(y, a.y))
			err := l.Run(t.Context())
			if a.want == "" {
				require.NoError(t, err)
			} else {
				require.ErrorContains(t, err, a.want)
			}
			// Other bindings remove the error.
			require.NoError(t, l.Bind(x, at(b, 256)))
			require.NoError(t, l.Bind(y, at(c, 768)))
			require.NoError(t, l.Run(t.Context()))
		})
	}
}

// TestBindInFlight: a run in flight keeps its memory, whatever is bound for the next run.
func TestBindInFlight(t *testing.T) {
	d := openDevice(t, vk.Options{})
	from, l := newBuffer(t, d, "from", 64), newList(t, d, vk.CommandListConfig{})
	s := l.NewBinding("s", 64)
	require.NoError(t, l.Copy(s.Range(), from.Range()))
	uploadTo(t, from.Range(), randomWords(1, 16))
	for range 3 {
		a, b := newBuffer(t, d, "a", 64), newBuffer(t, d, "b", 64)
		require.NoError(t, l.Bind(s, a.Range()))
		require.NoError(t, l.Submit(t.Context()))
		require.NoError(t, l.Bind(s, b.Range()))
		assert.Equal(t, randomWords(1, 16), download(t, a.Range()))
		require.NoError(t, l.Wait(t.Context()))
		require.NoError(t, l.Run(t.Context()))
		assert.Equal(t, randomWords(1, 16), download(t, b.Range()))
		held := d.Stats().Buffers
		closeAll(t, a, b)
		assert.Equal(t, held-2, d.Stats().Buffers)
	}
}

func TestBuffersInUse(t *testing.T) {
	d := openDevice(t, vk.Options{})
	a, b := newBuffer(t, d, "a", 64), newBuffer(t, d, "b", 64)
	l := newList(t, d, vk.CommandListConfig{})
	s := l.NewBinding("s", 64)
	require.NoError(t, l.Copy(s.Range(), a.Range()))
	require.NoError(t, l.Bind(s, b.Range()))
	uploadTo(t, a.Range(), randomWords(1, 16))
	require.NoError(t, l.Submit(t.Context()))
	late := l.NewBinding("late", 4) // made while the list runs
	spare := newBuffer(t, d, "spare", 64)
	copying := newList(t, d, vk.CommandListConfig{})
	require.NoError(t, copying.Copy(spare.Range(), a.Range()))
	require.NoError(t, copying.Submit(t.Context()))
	held := d.Stats().Buffers
	require.NoError(t, spare.Close())
	assert.Equal(t, held, d.Stats().Buffers, "freed when the device has finished")
	require.NoError(t, copying.Wait(t.Context()))
	assert.Equal(t, held-1, d.Stats().Buffers)
	require.NoError(t, l.Wait(t.Context()))
	assert.Equal(t, randomWords(1, 16), download(t, b.Range()))
	require.NoError(t, l.Bind(late, newBuffer(t, d, "c", 4).Range()))
	require.NoError(t, l.Run(t.Context()))

	closeAll(t, b)
	assert.ErrorIs(t, l.Run(t.Context()), vk.ErrClosed)
	assert.ErrorContains(t, l.Run(t.Context()), `binding "s": buffer "b" is closed`)
	again := newBuffer(t, d, "again", 64)
	require.NoError(t, l.Bind(s, again.Range()))
	require.NoError(t, l.Run(t.Context()))
	closeAll(t, a)
	assert.ErrorContains(t, l.Run(t.Context()), `buffer "a" is closed`)
	closeAll(t, again, l) // the failed run keeps no memory
}
