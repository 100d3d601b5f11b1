package colt5

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"unicode"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/internal/half"
	"github.com/colt5-vulkan/colt5/safetensors"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// memorySource is a Source of F32 tensors in memory. read, if set, runs before the n-th read.
type memorySource struct {
	names []string
	data  map[string][]float32
	shape map[string][]int64
	read  func(n int) error
	count int
}

// newSource returns a source with other values for the parameters of a module.
func newSource(list []Parameter) *memorySource {
	s := &memorySource{data: map[string][]float32{}, shape: map[string][]int64{}}
	for i, p := range list {
		data := make([]float32, p.Tensor.Len())
		for j := range data {
			data[j] = float32(i) + float32(j)/1024
		}
		s.add(p.Name, data, p.Tensor.Shape()...)
	}
	return s
}

func (s *memorySource) add(name string, data []float32, shape ...int) {
	s.names = append(s.names, name)
	s.data[name] = data
	s.shape[name] = []int64{}
	for _, n := range shape {
		s.shape[name] = append(s.shape[name], int64(n))
	}
}

// renamed returns the source with other names.
func (s *memorySource) renamed(rename func(string) string) *memorySource {
	to := &memorySource{data: map[string][]float32{}, shape: map[string][]int64{}}
	for _, name := range s.names {
		other := rename(name)
		to.names = append(to.names, other)
		to.data[other], to.shape[other] = s.data[name], s.shape[name]
	}
	return to
}

func (s *memorySource) Names() []string { return s.names }

func (s *memorySource) Info(name string) (safetensors.Info, bool) {
	shape, ok := s.shape[name]
	return safetensors.Info{Name: name, DType: safetensors.F32, Shape: shape}, ok
}

func (s *memorySource) ReadFloat32(name string) ([]float32, error) {
	s.count++
	if s.read != nil {
		if err := s.read(s.count); err != nil {
			return nil, err
		}
	}
	return s.data[name], nil
}

// file returns the source as a file, with elements of 16, 32 or 64 bits.
func (s *memorySource) file(t *testing.T, dtype safetensors.DType) []byte {
	var tensors []safetensors.Tensor
	for _, name := range s.names {
		tensors = append(tensors, safetensors.Tensor{Name: name, DType: dtype, Shape: s.shape[name], Data: func(w io.Writer) error {
			var b []byte
			for _, v := range s.data[name] {
				switch dtype {
				case safetensors.F64:
					b = binary.LittleEndian.AppendUint64(b, math.Float64bits(float64(v)))
				case safetensors.F32:
					b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
				case safetensors.F16:
					b = binary.LittleEndian.AppendUint16(b, half.ToF16(v))
				case safetensors.BF16:
					b = binary.LittleEndian.AppendUint16(b, half.ToBF16(v))
				}
			}
			_, err := w.Write(b)
			return err
		}})
	}
	var b bytes.Buffer
	require.NoError(t, safetensors.WriteTo(&b, nil, tensors))
	return b.Bytes()
}

// values returns the elements of all parameters by name.
func (fx *fixture) values(list []Parameter) map[string][]float32 {
	values := map[string][]float32{}
	for _, p := range list {
		values[p.Name] = fx.read(p.Tensor)
	}
	return values
}

// loadFixture is a module with parameters, and what its Forward returns.
type loadFixture struct {
	*fixture
	m *ConditionalRoutedFeedForward
	x *Tensor
}

func newLoadFixture(t *testing.T) *loadFixture {
	gputest.CountCase()
	fx := newFixture(t)
	m := fx.feedForward(12, 4)
	require.NoError(t, m.Init(t.Context(), 11))
	x := make([]float32, 20*12)
	for i := range x {
		x[i] = float32(math.Sin(float64(i)))
	}
	return &loadFixture{fx, m, fx.floats(x, 1, 20, 12)}
}

func (fx *loadFixture) output() []float32 {
	fx.t.Helper()
	return fx.finiteOutput(func(y *Tensor) error { return fx.m.Forward(fx.t.Context(), y, fx.x, FeedForwardOptions{}) }, 1, 20, 12)
}

func (fx *loadFixture) load(src safetensors.Source, o safetensors.LoadOptions) error {
	return fx.m.LoadFrom(fx.t.Context(), src, o)
}

// TestLoadFrom loads from every kind of source, with every dtype.
func TestLoadFrom(t *testing.T) {
	fx := newLoadFixture(t)
	src := newSource(fx.m.Parameters())
	for _, dtype := range []safetensors.DType{safetensors.F64, safetensors.F32, safetensors.F16, safetensors.BF16} {
		want := maps.Clone(src.data)
		for name, data := range want {
			data = slices.Clone(data)
			for i, v := range data {
				switch dtype {
				case safetensors.F16:
					data[i] = half.FromF16(half.ToF16(v))
				case safetensors.BF16:
					data[i] = half.FromBF16(half.ToBF16(v))
				}
			}
			want[name] = data
		}
		file := src.file(t, dtype)
		f, err := safetensors.NewReader(bytes.NewReader(file), int64(len(file)))
		require.NoError(t, err)
		require.NoError(t, fx.m.Init(t.Context(), 1))
		require.NoError(t, fx.load(f, safetensors.LoadOptions{}))
		assert.Equal(t, want, fx.values(fx.m.Parameters()), dtype)
	}

	// The first two parameters in one shard, the others in another.
	one, other := &memorySource{data: src.data, shape: src.shape, names: src.names[:2]}, &memorySource{data: src.data, shape: src.shape, names: src.names[2:]}
	index := `{"weight_map":{`
	for i, name := range src.names {
		index += fmt.Sprintf(`%q:"%d.safetensors",`, name, min(i/2, 1))
	}
	files := fstest.MapFS{
		"model.safetensors.index.json": {Data: []byte(strings.TrimSuffix(index, ",") + "}}")},
		"0.safetensors":                {Data: one.file(t, safetensors.F32)}, "1.safetensors": {Data: other.file(t, safetensors.F64)},
	}
	f, err := safetensors.OpenFS(files, "model.safetensors.index.json")
	require.NoError(t, err)
	require.NoError(t, fx.m.Init(t.Context(), 1))
	require.NoError(t, fx.load(f, safetensors.LoadOptions{}))
	assert.Equal(t, src.data, fx.values(fx.m.Parameters()))
	dir := t.TempDir()
	require.NoError(t, os.CopyFS(dir, files))
	require.NoError(t, fx.m.Init(t.Context(), 1))
	require.NoError(t, fx.m.Load(t.Context(), filepath.Join(dir, "model.safetensors.index.json")))
	assert.Equal(t, src.data, fx.values(fx.m.Parameters()))
}

// TestLoadNames: prefixes, renamed, missing and extra tensors.
func TestLoadNames(t *testing.T) {
	fx := newLoadFixture(t)
	src := newSource(fx.m.Parameters())
	with := func(prefix string) *memorySource {
		return src.renamed(func(name string) string { return prefix + name })
	}
	extra := with("encoder.")
	extra.add("head.weight", []float32{1}, 1)
	extra.add("encoder.step", []float32{1}, 1)
	part := &memorySource{data: src.data, shape: src.shape, names: src.names[1:3]}
	for _, c := range []struct {
		name    string
		src     safetensors.Source
		options safetensors.LoadOptions
		want    string // of the error
		loaded  []string
	}{
		{"removed", with("module."), safetensors.LoadOptions{Prefix: "module."}, "", src.names},
		{"added", src.renamed(func(n string) string { return strings.TrimPrefix(n, "h") }), safetensors.LoadOptions{Rename: func(n string) string {
			if strings.HasPrefix(n, "eavy") {
				return "h" + n
			}
			return n
		}}, "", src.names},
		{"selected", extra, safetensors.LoadOptions{Prefix: "encoder.", AllowExtra: true}, "", src.names},
		{"extra", extra, safetensors.LoadOptions{Prefix: "encoder."}, "step is not a parameter of this module", nil},
		{"ignored", extra, safetensors.LoadOptions{Prefix: "encoder.", Rename: func(n string) string { return strings.TrimPrefix(n, "step") }}, "", src.names},
		{"missing", part, safetensors.LoadOptions{}, "is missing, want f32", nil},
		{"some missing", part, safetensors.LoadOptions{AllowMissing: true}, "", part.names},
		{"all missing", with("x"), safetensors.LoadOptions{AllowMissing: true, AllowExtra: true}, "is missing, want f32", nil},
		{"none", &memorySource{}, safetensors.LoadOptions{AllowMissing: true}, "is missing, want f32", nil},
		{"wrong prefix", src, safetensors.LoadOptions{Prefix: "m.", AllowMissing: true}, fmt.Sprintf(`none of %d tensors begins with the prefix "m."`, len(src.names)), nil},
		{"two for one", src, safetensors.LoadOptions{Rename: func(string) string { return src.names[0] }, AllowMissing: true},
			src.names[0] + " is the parameter of two tensors, want one", nil},
		{"DDP", with("module."), safetensors.LoadOptions{},
			`all parameters have the prefix "module.", want "": LoadFrom removes it with LoadOptions.Prefix`, nil},
		{"DDP of DDP", with("module.module."), safetensors.LoadOptions{Prefix: "module."}, `have the prefix "module.module.", want "module."`, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			require.NoError(t, fx.m.Init(t.Context(), 3))
			want := fx.values(fx.m.Parameters())
			err := fx.load(c.src, c.options)
			if c.want != "" {
				require.ErrorContains(t, err, "colt5: ConditionalRoutedFeedForward.LoadFrom: ")
				assert.ErrorContains(t, err, c.want)
				assert.Less(t, len(err.Error()), 300)
			} else {
				require.NoError(t, err)
			}
			for _, name := range c.loaded {
				want[name] = src.data[name]
			}
			assert.Equal(t, want, fx.values(fx.m.Parameters()))
		})
	}
	config := Default[EncoderConfig]()
	config.Dim, config.Depth, config.LightDimHead, config.LightHeads, config.HeavyDimHead, config.HeavyHeads = 8, 1, 4, 1, 4, 1
	config.NumHeavyAttnTokensQ, config.NumHeavyAttnTokensKV, config.NumHeavyFFTokens = 4, 4, 4
	var layers memorySource
	encoder := mustNew(fx.fixture, NewEncoder, config)
	all := newSource(encoder.Parameters())
	layers = *all.renamed(func(n string) string { return strings.TrimPrefix(n, "layers.") })
	layers.names = slices.DeleteFunc(layers.names, func(n string) bool { return n[0] != '0' }) // as in a ModuleList of blocks
	assert.ErrorContains(t, encoder.LoadFrom(t.Context(), &layers, safetensors.LoadOptions{}), `all tensors lack the prefix "layers.": LoadFrom adds it with LoadOptions.AddPrefix`)
	require.NoError(t, encoder.LoadFrom(t.Context(), &layers, safetensors.LoadOptions{AddPrefix: "layers.", AllowMissing: true}))
	got := fx.values(encoder.Parameters())
	for _, name := range layers.names {
		assert.Equal(t, layers.data[name], got["layers."+name])
	}
}

// TestLoadBuffers: the frequencies of rotary embeddings are ignored where they belong, other buffers are not.
func TestLoadBuffers(t *testing.T) {
	gputest.CountCase()
	fx := newFixture(t)
	config := Default[ConditionalRoutedAttentionConfig]()
	config.Dim, config.LightDimHead, config.LightHeads, config.HeavyDimHead, config.HeavyHeads = 8, 4, 1, 4, 1
	config.NumHeavyTokensQ, config.NumHeavyTokensKV = 4, 4
	for _, rotary := range []bool{false, true} {
		config.RotaryEmb = rotary
		m := mustNew(fx, NewConditionalRoutedAttention, config)
		src := newSource(m.Parameters())
		src.add("rotary_emb.inv_freq", []float32{1, 0.01}, 2)
		err := m.LoadFrom(t.Context(), src, safetensors.LoadOptions{})
		if rotary {
			require.NoError(t, err)
			src.add("light_attn.attn_fn.rel_pos.inv_freq", []float32{1, 0.01}, 2) // rotary embeddings in the light branch: another model
			err = m.LoadFrom(t.Context(), src, safetensors.LoadOptions{})
			assert.ErrorContains(t, err, "light_attn.attn_fn.rel_pos.inv_freq is not a parameter of this module")
		} else {
			assert.ErrorContains(t, err, "rotary_emb.inv_freq is of a module with rotary_emb, which this module has not")
		}
	}
	transformer := Default[AutoregressiveTransformerConfig]()
	transformer.Dim, transformer.Depth, transformer.NumTokens, transformer.HeavyDimHead, transformer.HeavyHeads = 8, 2, 16, 4, 1
	transformer.NumHeavyTokensQ, transformer.NumHeavyTokensKV = 4, 4
	m := mustNew(fx, NewAutoregressiveTransformer, transformer)
	src := newSource(m.Parameters())
	for i := range 2 {
		src.add(fmt.Sprintf("layers.%d.attn.rotary_emb.inv_freq", i), []float32{1, 0.01}, 2)
	}
	require.NoError(t, m.LoadFrom(t.Context(), src, safetensors.LoadOptions{}))
}

// TestLoadNonFinite: NaN and infinities are an error that names the element, unless the options allow them.
func TestLoadNonFinite(t *testing.T) {
	fx := newLoadFixture(t)
	before := fx.values(fx.m.Parameters())
	for _, v := range []float32{float32(math.NaN()), float32(math.Inf(1)), float32(math.Inf(-1))} {
		src := newSource(fx.m.Parameters())
		const name = "heavy_ff.1.weight" // [48, 12]
		src.data[name][3*12+5] = v
		want := fmt.Sprintf("heavy_ff.1.weight: element [3 5] is %v, want a finite number, or LoadOptions.AllowNonFinite", v)
		assert.ErrorContains(t, fx.load(src, safetensors.LoadOptions{}), want)
		path := filepath.Join(t.TempDir(), "x")
		require.NoError(t, os.WriteFile(path, src.file(t, safetensors.F16), 0o600))
		assert.EqualError(t, fx.m.Load(t.Context(), path), "colt5: ConditionalRoutedFeedForward.Load: "+path+": "+want)
		assert.Equal(t, before, fx.values(fx.m.Parameters()))
		require.NoError(t, fx.load(src, safetensors.LoadOptions{AllowNonFinite: true}))
		got := fx.values(fx.m.Parameters())[name][3*12+5]
		assert.True(t, got == v || got != got && v != v, "%v", got)
		require.NoError(t, fx.m.Init(t.Context(), 11))
	}
}

// TestLoadErrorsAreShort: an error names the first few problems, escaped, and counts the others.
func TestLoadErrorsAreShort(t *testing.T) {
	fx := newLoadFixture(t)
	src := newSource(fx.m.Parameters())
	src.shape[src.names[0]] = []int64{7}
	for i := range 300 {
		src.add(fmt.Sprintf("\x1b[31m%d\n", i), []float32{1}, 1)
	}
	err := fx.load(src, safetensors.LoadOptions{})
	assert.ErrorContains(t, err, src.names[0]+" is F32[7], want f32[")
	assert.ErrorContains(t, err, `"\x1b[31m0\n" is not a parameter of this module; "\x1b[31m1\n" is not a parameter of this module; ... and 298 more`)
	hostile := newSource(fx.m.Parameters()).renamed(func(name string) string { return strings.Repeat("\x1b]8;;x\x07", 1000) + name })
	for _, o := range []safetensors.LoadOptions{{}, {AllowMissing: true}, {Prefix: strings.Repeat("\x00", 1000)}} {
		for _, s := range []safetensors.Source{src, hostile, &memorySource{}} {
			err := fx.load(s, o)
			require.Error(t, err)
			assert.LessOrEqual(t, len(err.Error()), 500)
			assert.False(t, strings.ContainsFunc(err.Error(), func(r rune) bool { return !unicode.IsPrint(r) }), "%q", err)
		}
	}
	assert.EqualError(t, fx.load(nil, safetensors.LoadOptions{}), "colt5: ConditionalRoutedFeedForward.LoadFrom: src is nil, want a safetensors.Source")
	var none *safetensors.File
	assert.ErrorContains(t, fx.load(none, safetensors.LoadOptions{}), "is missing")
}
