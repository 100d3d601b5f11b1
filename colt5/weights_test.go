package colt5

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/safetensors"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestSaveAndLoad(t *testing.T) {
	gputest.CountCase()
	fx := newFixture(t)
	f := fx.feedForward(12, 4)
	require.NoError(t, f.Init(t.Context(), 11))
	saved, path := fx.parameters(f.Parameters()), filepath.Join(t.TempDir(), "ff.safetensors")
	require.NoError(t, f.Save(t.Context(), path))
	require.NoError(t, f.Init(t.Context(), 12))
	assert.NotEqual(t, saved, fx.parameters(f.Parameters()))
	require.NoError(t, f.Load(t.Context(), path))
	assert.Equal(t, saved, fx.parameters(f.Parameters()))
	g := fx.feedForward(16, 4)
	before := fx.parameters(g.Parameters())
	assert.ErrorContains(t, g.Load(t.Context(), path), "router.routing_token is F32[1 12], want f32[1 16]")
	assert.Equal(t, before, fx.parameters(g.Parameters()), "a file with other shapes changes nothing")
	r := mustNew(fx, NewCoordinateDescentRouter, RouterConfig{Dim: 12, NumRoutingTokens: 1, RouterSettings: Default[RouterSettings]()})
	err := r.Load(t.Context(), path)
	assert.ErrorContains(t, err, `all parameters have the prefix "router.", want "": LoadFrom removes it`)
	err = f.LoadFrom(t.Context(), newSource(r.Parameters()), safetensors.LoadOptions{})
	assert.ErrorContains(t, err, `all tensors lack the prefix "router."`)
	renamed := newSource(r.Parameters()).renamed(func(string) string { return "other" })
	err = r.LoadFrom(t.Context(), renamed, safetensors.LoadOptions{})
	assert.EqualError(t, err, "colt5: CoordinateDescentRouter.LoadFrom: routing_token is missing, want f32[1 12]; other is not a parameter of this module")
}

// Truncated and inconsistent files are errors and change nothing.
func TestInvalidFiles(t *testing.T) {
	gputest.CountCase()
	fx := newFixture(t)
	rc := Default[RouterConfig]()
	rc.Dim = 8
	r := mustNew(fx, NewCoordinateDescentRouter, rc)
	dir := t.TempDir()
	good := filepath.Join(dir, "good")
	require.NoError(t, r.Save(t.Context(), good))
	raw, err := os.ReadFile(good)
	require.NoError(t, err)
	before := fx.parameters(r.Parameters())
	for name, data := range map[string][]byte{
		"empty":     nil,
		"truncated": raw[:len(raw)-1],
		"longer":    append(append([]byte(nil), raw...), 0),
		"header":    raw[:20],
		"length":    append([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f}, raw[8:]...),
	} {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, data, 0o600))
		assert.Error(t, r.Load(t.Context(), path), name)
	}
	assert.ErrorIs(t, r.Load(t.Context(), filepath.Join(dir, "absent")), os.ErrNotExist)
	assert.Error(t, r.Save(t.Context(), filepath.Join(dir, "no", "folder")))
	assert.Equal(t, before, fx.parameters(r.Parameters()))
}
