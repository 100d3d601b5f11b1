package scope

import (
	"errors"
	"io"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestMain(m *testing.M) { gputest.Main(m) }

// closer appends its name when it is closed.
type closer struct {
	name   string
	closed *[]string
}

func (c closer) Close() error {
	*c.closed = append(*c.closed, c.name)
	return errors.New("closing " + c.name)
}

// TestRun requires objects to be closed in reverse order, and all errors to be returned.
func TestRun(t *testing.T) {
	var closed []string
	err := Run(t.Context(), nil, func(s *Scope) error {
		Keep[io.Closer](s, closer{"a", &closed}, nil)
		Keep[io.Closer](s, closer{"b", &closed}, nil)
		assert.Nil(t, Keep[io.Closer](s, closer{"c", &closed}, errors.New("first")))
		Keep[io.Closer](s, nil, errors.New("second"))
		assert.EqualError(t, s.Err(), "first")
		assert.Equal(t, t.Context(), s.Context())
		return s.Err()
	})
	assert.Equal(t, []string{"b", "a"}, closed)
	assert.EqualError(t, err, "first\nclosing b\nclosing a")
}

// TestTensors requires the data of tensors, and that none is left open.
func TestTensors(t *testing.T) {
	dev := gputest.Device(t)
	gputest.CountCase()
	before := dev.Stats().Buffers
	require.NoError(t, Run(t.Context(), dev, func(s *Scope) error {
		floats, err := s.Float32([]float32{1, 2}, 2).Float32(t.Context())
		require.NoError(t, err)
		assert.Equal(t, []float32{1, 2}, floats)
		bytes, err := s.Uint8([]uint8{3, 4}, 1, 2).Uint8(t.Context())
		require.NoError(t, err)
		assert.Equal(t, []uint8{3, 4}, bytes)
		assert.Nil(t, s.Float32([]float32{1}, 2), "a wrong shape")
		assert.Error(t, s.Err())
		return nil
	}))
	assert.Equal(t, before, dev.Stats().Buffers)
}
