package colt5

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"unicode"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// anyConfigs are the configurations that are read from JSON.
var anyConfigs = []any{
	ConditionalRoutedFeedForwardConfig{}, ConditionalRoutedAttentionConfig{}, ConditionalRoutedTransformerBlockConfig{},
	ConditionalRoutedCrossAttentionConfig{}, ConditionalRoutedAutoregressiveAttentionConfig{}, ConditionalRoutedImageAttentionConfig{},
	ConditionalRoutedViTConfig{}, EncoderConfig{}, AutoregressiveTransformerConfig{}, RouterSettings{}, CoordinateDescentConfig{},
	TopKConfig{}, LocalMHAConfig{}, FeedForwardConfig{}, RMSNormConfig{}, LinearConfig{}, EmbeddingConfig{},
}

// FuzzConfig: no text makes a configuration panic. An error is one short line. What is accepted is written and read again
// unchanged.
func FuzzConfig(f *testing.F) {
	for i, c := range anyConfigs {
		text, err := json.Marshal(c)
		require.NoError(f, err)
		f.Add(uint8(i), text)
	}
	f.Add(uint8(0), []byte(`{"dim":32,"DIM":64}`))
	f.Add(uint8(1), []byte(`{"dim":1e400,"router_kwargs":{"eps":"x"},"precision":"float16"}`))
	f.Add(uint8(6), []byte(`{"image_size":[256,[1]],"use_triton":null}`))
	f.Add(uint8(7), []byte(`{"dim":8}{}`))
	f.Fuzz(func(t *testing.T, kind uint8, text []byte) {
		c := reflect.New(reflect.TypeOf(anyConfigs[int(kind)%len(anyConfigs)]))
		if err := json.Unmarshal(text, c.Interface()); err != nil {
			assert.LessOrEqual(t, len(err.Error()), 600)
			assert.False(t, strings.ContainsFunc(err.Error(), func(r rune) bool { return !unicode.IsPrint(r) }), "%q", err)
			return
		}
		written, err := json.Marshal(c.Interface())
		require.NoError(t, err)
		again := reflect.New(c.Type().Elem())
		require.NoError(t, json.Unmarshal(written, again.Interface()))
		require.Equal(t, c.Interface(), again.Interface())
	})
}

// FuzzIDs: whatever the ids of an embedding are, valid ones get their rows and the others are counted in the error.
func FuzzIDs(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, 1, 0, 0, 0, 255, 255, 255, 255, 5, 0, 0, 0, 0, 0, 0, 128})
	f.Add([]byte{4, 0, 0, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		ids := make([]int32, min(len(data)/4, 1000))
		for i := range ids {
			ids[i] = int32(data[4*i]) | int32(data[4*i+1])<<8 | int32(data[4*i+2])<<16 | int32(data[4*i+3])<<24
		}
		if len(ids) == 0 {
			return
		}
		gputest.CountCase()
		const vocabulary, dim = 5, 4
		fx := newFixture(t)
		e := mustNewSeeded(fx, NewEmbedding, EmbeddingConfig{NumTokens: vocabulary, Dim: dim})
		table := fx.read(e.Parameters()[0].Tensor)
		y := fx.tensor(F32, 1, len(ids), dim)
		invalid := 0
		for _, id := range ids {
			if id < 0 || id >= vocabulary {
				invalid++
			}
		}
		err := e.Forward(t.Context(), y, fx.ints(ids, 1, len(ids)), CallOptions{})
		if invalid > 0 {
			require.ErrorContains(t, err, "x has ")
		} else {
			require.NoError(t, err)
		}
		got := fx.read(y)
		for i, id := range ids {
			if id >= 0 && id < vocabulary {
				require.Equal(t, table[id*dim:][:dim], got[i*dim:][:dim])
			}
		}
	})
}
