package colt5

import (
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestGenerator: the logits of a sequence that grows token by token, or in parts, have the bits of one forward pass.
func TestGenerator(t *testing.T) {
	few := smallTransformer()
	few.NumHeavyTokensKV = 100 // every key is selected
	wide := smallTransformer()
	wide.NumRoutedKV, wide.RotaryEmb, wide.LightRotaryEmb, wide.UseNullQTokens, wide.NumHeavyTokensQ = 1, false, true, false, 16
	for name, c := range map[string]AutoregressiveTransformerConfig{"small": smallTransformer(), "all keys": few, "all queries": wide} {
		if testing.Short() && name != "small" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			gputest.CountCase()
			fx := newFixture(t)
			m := mustNewSeeded(fx, NewAutoregressiveTransformer, c)
			n := inShortMode(37, 53) // a short last window
			ids := make([]uint8, n)
			tokens := make([]int, n)
			for i, v := range normal(8, n) {
				ids[i] = uint8(int(v*1000) & 255)
				tokens[i] = int(ids[i])
			}
			y := fx.tensor(F32, 1, n, 256)
			require.NoError(t, m.Forward(t.Context(), y, fx.bytes(ids, 1, n), AutoregressiveOptions{}))
			want := fx.read(y)
			g, err := NewGenerator(t.Context(), m, n)
			require.NoError(t, err)
			fx.closeAtEnd(g)
			for _, parts := range [][]int{{n}, {5, 1, 1, 20}} {
				g.Reset()
				at := 0
				for at < n {
					size := min(parts[0], n-at)
					if len(parts) > 1 {
						parts = parts[1:]
					}
					got, err := g.Append(t.Context(), tokens[at:at+size]...)
					require.NoError(t, err)
					at += size
					require.True(t, sameBits(want[(at-1)*256:at*256], got), "the logits after %d tokens", at)
				}
				assert.Equal(t, n, g.Len())
			}
			other := mustNew(fx, NewAutoregressiveTransformer, c)
			require.NoError(t, m.Share(t.Context(), other.Parameters()))
			require.NoError(t, m.Forward(t.Context(), y, fx.bytes(ids, 1, n), AutoregressiveOptions{}))
			g.Reset()
			got, err := g.Append(t.Context(), tokens...)
			require.NoError(t, err)
			assert.True(t, sameBits(fx.read(y)[(n-1)*256:], got), "with other weights")
			_, err = g.Append(t.Context(), make([]int, 100)...)
			assert.ErrorContains(t, err, "colt5: Generator.Append: 100 tokens after")
			_, err = g.Append(t.Context(), 256)
			assert.ErrorContains(t, err, "token 0 is 256, want 0 to 255")
		})
	}
}

// TestGeneratorOfClosedTransformer: transformer and generator close in any order.
func TestGeneratorOfClosedTransformer(t *testing.T) {
	gputest.CountCase()
	fx := newFixture(t)
	m := mustNewSeeded(fx, NewAutoregressiveTransformer, smallTransformer())
	g, err := NewGenerator(t.Context(), m, 20)
	require.NoError(t, err)
	_, err = g.Append(t.Context(), 1)
	require.NoError(t, err)
	require.NoError(t, m.Close())
	_, err = g.Append(t.Context(), 1)
	assert.ErrorIs(t, err, vk.ErrClosed)
	assert.Equal(t, 1, g.Len())
	require.NoError(t, g.Close())
	_, err = NewGenerator(t.Context(), m, 20)
	assert.ErrorIs(t, err, vk.ErrClosed)
	assert.Zero(t, new(Generator).Len())
	assert.NoError(t, new(Generator).Close())
}
