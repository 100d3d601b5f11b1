package vk_test

import (
	"testing"

	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestSlots(t *testing.T) {
	d := open(t, vk.Options{})
	k, tp := kernel(t, d, "mix", nil), list(t, d, vk.CommandListConfig{})
	const n = 100
	in, out := tp.NewBinding("in", 4*n), tp.NewBinding("out", 4*n)
	middle := buffer(t, d, "middle", 4*n).Range()
	// By address, and by buffer and offset; whole, and parts.
	require.NoError(t, tp.Dispatch(mix(k, in.Range(), in.Range(), middle, 5)))
	require.NoError(t, tp.Copy(out.Range(), middle))
	require.NoError(t, tp.Fill(out.Range().Slice(40, 8), 77))
	require.NoError(t, tp.Dispatch(mix(k, vk.Range{}, in.Range().Slice(200, 80), out.Range().Slice(80, 80), 1)))
	assert.ErrorContains(t, tp.Run(t.Context()), `binding "in" is not bound`)
	x := noise(1, 3*n)
	big := buffer(t, d, "big", 12*n)
	upload(t, big.Range(), x)
	outs := [2]vk.Range{buffer(t, d, "y0", 4*n).Range(), buffer(t, d, "y1", 8*n).Range().Slice(64, 4*n)}
	require.NoError(t, tp.Bind(in, big.Range().Slice(0, 4*n)))
	assert.ErrorContains(t, tp.Run(t.Context()), `binding "out" is not bound`)
	for i, from := range []int{0, 4, 4, 196, 0} {
		before := d.Stats()
		require.NoError(t, tp.Bind(in, big.Range().Slice(uint64(4*from), 4*n)))
		require.NoError(t, tp.Bind(out, outs[i%2]))
		require.NoError(t, tp.Run(t.Context()))
		piece, want := x[from:from+n], make([]uint32, n)
		mixed(want, piece, piece, 5, 0)
		want[10], want[11] = 77, 77
		mixed(want[20:40], nil, piece[50:70], 1, 0)
		assert.Equal(t, want, words(t, outs[i%2]))
		assert.Equal(t, before.CommandBufferWrites+2, d.Stats().CommandBufferWrites, "one for the binding, one for the download")
	}
	before := d.Stats().CommandBufferWrites
	require.NoError(t, tp.Bind(out, outs[0]))
	require.NoError(t, tp.Run(t.Context()))
	assert.Equal(t, before, d.Stats().CommandBufferWrites, "what is bound already changes nothing")
}

// TestTurns binds two sets of memory in turn: command buffers are written once for each. A third set takes the place of the one not used last.
func TestTurns(t *testing.T) {
	d := open(t, vk.Options{})
	k, tp := kernel(t, d, "mix", nil), list(t, d, vk.CommandListConfig{})
	const n = 100
	in, out := tp.NewBinding("in", 4*n), tp.NewBinding("out", 4*n)
	step := mix(k, in.Range(), in.Range(), out.Range(), 5)
	step.Flops = vk.SegmentFlops
	require.NoError(t, tp.Dispatch(step))
	require.NoError(t, tp.Dispatch(mix(k, vk.Range{}, in.Range(), in.Range(), 1)))
	step = mix(k, in.Range(), in.Range(), out.Range(), 3)
	step.Flops = vk.SegmentFlops
	require.NoError(t, tp.Dispatch(step))
	var x, y [3]*vk.Buffer
	for i := range x {
		x[i], y[i] = buffer(t, d, "x", 4*n), buffer(t, d, "y", 4*n)
	}
	encodes := 0
	run := func(i int) {
		t.Helper()
		data, want := noise(uint64(i), n), make([]uint32, n)
		upload(t, x[i].Range(), data)
		before := d.Stats().CommandBufferWrites
		require.NoError(t, tp.Bind(in, x[i].Range()))
		require.NoError(t, tp.Bind(out, y[i].Range()))
		require.NoError(t, tp.Run(t.Context()))
		encodes += int(d.Stats().CommandBufferWrites - before)
		mixed(data, nil, data, 1, 0)
		mixed(want, data, data, 3, 0)
		assert.Equal(t, want, words(t, y[i].Range()))
	}
	for _, c := range []struct{ set, encodes int }{
		{0, 2}, {0, 0}, {1, 2}, {0, 0}, {1, 0}, {0, 0}, {2, 2}, {0, 0}, {2, 0}, {1, 2}, {0, 2},
	} {
		encodes = 0
		run(c.set)
		assert.Equal(t, c.encodes, encodes, "set %d", c.set)
	}
	require.Equal(t, 2, tp.Submits())
	closed(t, y[0])
	require.NoError(t, tp.Bind(in, x[1].Range()))
	assert.ErrorIs(t, tp.Run(t.Context()), vk.ErrClosed)
	y[0] = buffer(t, d, "y again", 4*n) // in the same place, maybe
	run(0)
}

func TestBindRefused(t *testing.T) {
	d := open(t, vk.Options{})
	tp, other := list(t, d, vk.CommandListConfig{}), list(t, d, vk.CommandListConfig{})
	s, far := tp.NewBinding("s", 64), other.NewBinding("far", 64)
	b, gone := buffer(t, d, "b", 256), buffer(t, d, "gone", 64)
	r := b.Range()
	closed(t, gone)
	for says, err := range map[string]error{
		`binding "s": 60 bytes at offset 0, want 64 at a multiple of 16`:        tp.Bind(s, r.Slice(0, 60)),
		`binding "s": 68 bytes at offset 16, want 64`:                           tp.Bind(s, r.Slice(16, 68)),
		"64 bytes at offset 8, want 64 at a multiple of 16":                     tp.Bind(s, r.Slice(8, 64)),
		`binding "s": the range is of a binding`:                                tp.Bind(s, s.Range()),
		`binding "s": the range is the zero Range`:                              tp.Bind(s, vk.Range{}),
		`binding "s": the range is bytes [208, `:                                tp.Bind(s, r.Slice(208, 64)),
		"the binding belongs to another command list":                           tp.Bind(far, r.Slice(0, 64)),
		"Bind: the binding":                                                     tp.Bind(nil, r.Slice(0, 64)),
		`argument 0 is of binding "far", which belongs to another command list`: tp.Fill(far.Range(), 1),
		`argument 0 is bytes [32, `:                                             tp.Fill(s.Range().Slice(32, 64), 1),
	} {
		assert.ErrorContains(t, err, says)
	}
	assert.ErrorIs(t, tp.Bind(s, gone.Range()), vk.ErrClosed)
	require.NoError(t, tp.Fill(s.Range(), 1))
	require.NoError(t, tp.Bind(s, r.Slice(16, 64)))
	require.NoError(t, tp.Run(t.Context()), "refused bindings leave no trace")
}

// TestAliases binds memory that the barriers were not derived for.
func TestAliases(t *testing.T) {
	d := open(t, vk.Options{})
	b, c := buffer(t, d, "b", 1024).Range(), buffer(t, d, "c", 1024).Range()
	at := func(r vk.Range, offset uint64) vk.Range { return r.Slice(offset, 64) }
	fill := func(tp *vk.CommandList, x, _ vk.Range) error { return tp.Fill(x, 1) }
	copyXY := func(tp *vk.CommandList, x, y vk.Range) error { return tp.Copy(y, x) }
	copyYX := func(tp *vk.CommandList, x, y vk.Range) error { return tp.Copy(x, y) }
	// Both are read; c is written.
	read := func(tp *vk.CommandList, x, y vk.Range) error {
		if err := tp.Copy(at(c, 0), x); err != nil {
			return err
		}
		return tp.Copy(at(c, 64), y)
	}
	static := func(tp *vk.CommandList, x, _ vk.Range) error { return tp.Copy(at(b, 512), x) }
	onto := func(tp *vk.CommandList, x, _ vk.Range) error { return tp.Copy(x, at(b, 512)) }
	same := func(tp *vk.CommandList, x, _ vk.Range) error { return tp.Copy(at(c, 0), x.Slice(0, 64)) }
	for name, a := range map[string]struct {
		record func(tp *vk.CommandList, x, y vk.Range) error
		x, y   vk.Range
		says   string // empty: fine
	}{
		"apart":                                  {copyXY, at(b, 0), at(b, 64), ""},
		"two buffers":                            {copyXY, at(b, 0), at(c, 0), ""},
		"the same, one written":                  {copyXY, at(b, 0), at(b, 0), `bindings "x" and "y" are bound to overlapping parts of buffer "b", and one of them is written`},
		"overlap, one written":                   {copyXY, at(b, 0), at(b, 48), "overlapping parts"},
		"the same, the other written":            {copyYX, at(b, 0), at(b, 0), `bindings "x" and "y"`},
		"the same, both read":                    {read, at(b, 0), at(b, 0), ""},
		"overlap, both read":                     {read, at(b, 0), at(b, 16), ""},
		"the other is not used at all":           {fill, at(b, 0), at(b, 128), ""},
		"read slot, static range written":        {static, at(b, 512), at(c, 0), `binding "x" is bound to a part of buffer "b" that the command list uses itself`},
		"read slot, next to what is written":     {static, at(b, 448), at(c, 0), ""},
		"written slot, static range read":        {onto, at(b, 560), at(c, 0), "that the command list uses itself"},
		"written slot, next to what is read":     {onto, at(b, 576), at(c, 0), ""},
		"read slot, static range of a neighbour": {same, at(b, 0), at(c, 512), ""},
	} {
		t.Run(name, func(t *testing.T) {
			tp := list(t, d, vk.CommandListConfig{})
			x, y := tp.NewBinding("x", 64), tp.NewBinding("y", 64)
			require.NoError(t, a.record(tp, x.Range(), y.Range()))
			require.NoError(t, tp.Bind(x, a.x))
			require.NoError(t, tp.Bind(y, a.y))
			err := tp.Run(t.Context())
			if a.says == "" {
				require.NoError(t, err)
			} else {
				require.ErrorContains(t, err, a.says)
			}
			// Binding anew mends it.
			require.NoError(t, tp.Bind(x, at(b, 256)))
			require.NoError(t, tp.Bind(y, at(c, 768)))
			require.NoError(t, tp.Run(t.Context()))
		})
	}
}

// TestBindWaits: what a run under way touches is held until it is done, whatever is bound for the next.
func TestBindWaits(t *testing.T) {
	d := open(t, vk.Options{})
	from, tp := buffer(t, d, "from", 64), list(t, d, vk.CommandListConfig{})
	s := tp.NewBinding("s", 64)
	require.NoError(t, tp.Copy(s.Range(), from.Range()))
	upload(t, from.Range(), noise(1, 16))
	for range 3 {
		a, b := buffer(t, d, "a", 64), buffer(t, d, "b", 64)
		require.NoError(t, tp.Bind(s, a.Range()))
		require.NoError(t, tp.Submit(t.Context()))
		require.NoError(t, tp.Bind(s, b.Range()))
		assert.Equal(t, noise(1, 16), words(t, a.Range()))
		require.NoError(t, tp.Wait(t.Context()))
		require.NoError(t, tp.Run(t.Context()))
		assert.Equal(t, noise(1, 16), words(t, b.Range()))
		held := d.Stats().Buffers
		closed(t, a, b)
		assert.Equal(t, held-2, d.Stats().Buffers)
	}
}

func TestBuffersInUse(t *testing.T) {
	d := open(t, vk.Options{})
	a, b := buffer(t, d, "a", 64), buffer(t, d, "b", 64)
	tp := list(t, d, vk.CommandListConfig{})
	s := tp.NewBinding("s", 64)
	require.NoError(t, tp.Copy(s.Range(), a.Range()))
	require.NoError(t, tp.Bind(s, b.Range()))
	upload(t, a.Range(), noise(1, 16))
	require.NoError(t, tp.Submit(t.Context()))
	late := tp.NewBinding("late", 4) // made while the tape runs
	spare := buffer(t, d, "spare", 64)
	copying := list(t, d, vk.CommandListConfig{})
	require.NoError(t, copying.Copy(spare.Range(), a.Range()))
	require.NoError(t, copying.Submit(t.Context()))
	held := d.Stats().Buffers
	require.NoError(t, spare.Close())
	assert.Equal(t, held, d.Stats().Buffers, "until the device has finished with it")
	require.NoError(t, copying.Wait(t.Context()))
	assert.Equal(t, held-1, d.Stats().Buffers)
	require.NoError(t, tp.Wait(t.Context()))
	assert.Equal(t, noise(1, 16), words(t, b.Range()))
	require.NoError(t, tp.Bind(late, buffer(t, d, "c", 4).Range()))
	require.NoError(t, tp.Run(t.Context()))

	closed(t, b)
	assert.ErrorIs(t, tp.Run(t.Context()), vk.ErrClosed)
	assert.ErrorContains(t, tp.Run(t.Context()), `binding "s": buffer "b" is closed`)
	again := buffer(t, d, "again", 64)
	require.NoError(t, tp.Bind(s, again.Range()))
	require.NoError(t, tp.Run(t.Context()))
	closed(t, a)
	assert.ErrorContains(t, tp.Run(t.Context()), `buffer "a" is closed`)
	closed(t, again, tp) // the failed run holds nothing
}
