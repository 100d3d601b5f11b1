//go:build linux

package faults_test

import (
	"regexp"
	"strconv"
	"testing"

	"github.com/colt5-vulkan/colt5/colt5"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const mib = 1 << 20

// openWithBudget opens a device of which VK_EXT_memory_budget says that so many bytes are free.
func openWithBudget(t *testing.T, free uint64) *vk.Device {
	needLoader(t)
	loader.SetBudget(free+3*mib, 3*mib)
	d, err := vk.Open(vk.Options{CacheDir: "-"})
	require.NoError(t, err)
	t.Cleanup(func() {
		assert.NoError(t, d.Close())
		loader.SetBudget(0, 0)
		assert.Empty(t, loader.Live())
	})
	return d
}

// TestBudget: a buffer beyond the budget of the process is refused.
func TestBudget(t *testing.T) {
	d := openWithBudget(t, 40*mib)
	budget, used := d.MemoryBudget()
	assert.Equal(t, []uint64{43 * mib, 3 * mib}, []uint64{budget, used})
	require.Equal(t, uint64(40*mib), d.FreeMemory())
	_, err := d.NewBuffer("b", 40*mib+1)
	require.ErrorIs(t, err, vk.ErrOutOfMemory)
	assert.ErrorContains(t, err, "41943296 bytes are needed, and 41943040 are free")
	b, err := d.NewBuffer("b", 40*mib)
	require.NoError(t, err)
	require.NoError(t, b.Close())
	loader.SetBudget(2*mib, 3*mib) // other processes use more than before
	assert.Zero(t, d.FreeMemory())
	_, err = d.NewBuffer("b", 1)
	require.ErrorIs(t, err, vk.ErrOutOfMemory)
	loader.SetBudget(43*mib, 3*mib)
}

// TestMaxBuffer: a buffer beyond maxBufferSize is refused before Vulkan is called.
func TestMaxBuffer(t *testing.T) {
	needLoader(t)
	loader.SetMaxBuffer(mib)
	defer loader.SetMaxBuffer(0)
	d, err := vk.Open(vk.Options{CacheDir: "-"})
	require.NoError(t, err)
	_, err = colt5.NewTensor(d, colt5.F32, mib)
	require.ErrorIs(t, err, vk.ErrOutOfMemory)
	assert.ErrorContains(t, err, "colt5: NewTensor f32 [1048576]: ")
	assert.ErrorContains(t, err, "the device has no buffers of more than 1048576 bytes (maxBufferSize)")
	require.NoError(t, d.Close())
	assert.Zero(t, d.FreeMemory())
}

var batchAdvice = regexp.MustCompile(`out of memory: \d+ bytes are needed, and \d+ are free; a batch of at most (\d+) of the 64 items fits$`)

// TestBatchAdvice: a call that does not fit says how large a batch would, before it starts; that one fits, and one more
// item does not.
func TestBatchAdvice(t *testing.T) {
	d := openWithBudget(t, 200*mib)
	ctx := t.Context()
	const items, tokens, dim = 64, 512, 32
	c := colt5.Default[colt5.ConditionalRoutedFeedForwardConfig]()
	c.Dim, c.NumHeavyTokens, c.LightFFMult = dim, 16, 2
	ff, err := colt5.NewConditionalRoutedFeedForward(ctx, d, c)
	require.NoError(t, err)
	x, err := colt5.NewTensor(d, colt5.F32, items, tokens, dim)
	require.NoError(t, err)
	y, err := colt5.NewTensor(d, colt5.F32, items, tokens, dim)
	require.NoError(t, err)
	g := colt5.NewGraph(d)
	out := g.Value("y")
	require.NoError(t, ff.Forward(ctx, out, g.Input("x", colt5.F32, 0, 0, dim), colt5.FeedForwardOptions{}))
	g.Output("y", out)
	rows := func(n int) (a, b *colt5.Tensor) {
		a, err := x.Rows(0, n)
		require.NoError(t, err)
		b, err = y.Rows(0, n)
		require.NoError(t, err)
		return a, b
	}
	for name, forward := range map[string]func(y, x *colt5.Tensor) error{
		"ConditionalRoutedFeedForward.Forward": func(y, x *colt5.Tensor) error {
			return ff.Prepare(ctx, y, x, colt5.FeedForwardOptions{})
		},
		"Graph.Prepare": func(y, x *colt5.Tensor) error {
			return g.Prepare(ctx, map[string]*colt5.Tensor{"x": x, "y": y}, colt5.GraphOptions{})
		},
	} {
		loader.SetBudget(mib, 0)
		err := forward(y, x)
		require.ErrorIs(t, err, vk.ErrOutOfMemory, name)
		found := batchAdvice.FindStringSubmatch(err.Error())
		require.NotNil(t, found, err)
		most, err := strconv.Atoi(found[1])
		require.NoError(t, err)
		assert.Greater(t, most, 1, name)
		part, result := rows(most + 1)
		require.ErrorIs(t, forward(result, part), vk.ErrOutOfMemory, name)
		require.NoError(t, result.Close())
		require.NoError(t, part.Close())
		part, result = rows(most)
		require.NoError(t, forward(result, part), name)
		require.NoError(t, result.Close())
		require.NoError(t, part.Close())
		loader.SetBudget(200*mib, 0)
		require.NoError(t, forward(y, x), name)
	}
	loader.SetBudget(40*mib, 0)
	const long = 1 << 15 // tokens; the workspace of one item is larger than the memory that is free in a shared block
	x2, err := colt5.NewTensor(d, colt5.F32, 2, long, dim)
	require.NoError(t, err)
	y2, err := colt5.NewTensor(d, colt5.F32, 2, long, dim)
	require.NoError(t, err)
	loader.SetBudget(mib, 0)
	err = ff.Forward(ctx, y2, x2, colt5.FeedForwardOptions{})
	assert.ErrorContains(t, err, "are needed, and 1048576 are free; not even one batch item fits")
	for _, c := range []interface{ Close() error }{g, ff, x, y, x2, y2} {
		require.NoError(t, c.Close())
	}
}
