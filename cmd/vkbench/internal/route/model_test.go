package route

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"
	"unicode/utf16"

	"github.com/colt5-vulkan/colt5/colt5"
	"github.com/colt5-vulkan/colt5/internal/cli/charttest"
	"github.com/colt5-vulkan/colt5/internal/cli/command"
	"github.com/colt5-vulkan/colt5/internal/cli/commandtest"
	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/safetensors"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const encoderConfig = `{"depth": 2, "num_tokens": 256, "dim": 16, "num_heavy_attn_tokens_q": 20, "num_heavy_attn_tokens_kv": 10, "num_heavy_ff_tokens": 30,
	"num_routed_kv": 2, "light_dim_head": 8, "light_heads": 2, "light_window_size": 16, "heavy_dim_head": 8, "heavy_heads": 2}`

// encoderFiles saves an Encoder, and returns it and its files.
func encoderFiles(t *testing.T) (e *colt5.Encoder, config, weights string) {
	t.Helper()
	config, weights = commandtest.File(t, "config.json", encoderConfig), filepath.Join(t.TempDir(), "weights.safetensors")
	var c colt5.EncoderConfig
	require.NoError(t, json.Unmarshal([]byte(encoderConfig), &c))
	e, err := colt5.NewEncoder(t.Context(), gputest.Device(t), c)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, e.Close()) })
	require.NoError(t, e.Init(t.Context(), 7))
	require.NoError(t, e.Save(t.Context(), weights))
	return e, config, weights
}

// classifierWeights writes the weights of an Encoder under the names that they have in a classifier.
func classifierWeights(t *testing.T, encoder string) string {
	t.Helper()
	f, err := safetensors.Open(encoder)
	require.NoError(t, err)
	defer f.Close()
	list := []safetensors.Tensor{{Name: "head.weight", DType: safetensors.F32, Shape: []int64{1}, Data: safetensors.Float32s([]float32{1})}}
	for _, name := range f.Names() {
		info, _ := f.Info(name)
		values, err := f.ReadFloat32(name)
		require.NoError(t, err)
		list = append(list, safetensors.Tensor{Name: "encoder." + name, DType: info.DType, Shape: info.Shape, Data: safetensors.Float32s(values)})
	}
	path := filepath.Join(t.TempDir(), "classifier.safetensors")
	require.NoError(t, safetensors.Write(path, nil, list))
	return path
}

// wantHeavy runs the Encoder and returns the heavy bytes of each router. Segments of length bytes are calls of their
// own.
func wantHeavy(t *testing.T, e *colt5.Encoder, text string, length int) (names []string, heavy map[string][]bool) {
	t.Helper()
	dev := gputest.Device(t)
	heavy = map[string][]bool{}
	for at := 0; at < len(text); at += length {
		part := []byte(text[at:min(at+length, len(text))])
		x, err := colt5.FromSlice(t.Context(), dev, part, 1, len(part))
		require.NoError(t, err)
		defer x.Close()
		y, err := colt5.NewTensor(dev, colt5.F32, 1, len(part), e.Config().Dim)
		require.NoError(t, err)
		defer y.Close()
		var records []colt5.RoutingRecord
		require.NoError(t, e.Forward(t.Context(), y, x, colt5.BlockOptions{Routing: &records}))
		for _, r := range records {
			if heavy[r.Router] == nil {
				heavy[r.Router] = make([]bool, len(text))
				names = append(names, r.Router)
			}
			for _, i := range r.Indices {
				heavy[r.Router][at+int(i)] = true
			}
		}
	}
	return names, heavy
}

func countTrue(list []bool) (n int) {
	for _, x := range list {
		if x {
			n++
		}
	}
	return n
}

// TestRouteEncoder compares every router of an Encoder with its routing records, in the table and on the page.
func TestRouteEncoder(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 4 s; TestRouteEncoderUsage loads an encoder")
	}
	e, config, weights := encoderFiles(t)
	text := sample()
	const length = 400
	names, heavy := wantHeavy(t, e, text, length)
	require.Len(t, names, 6)
	path, page := commandtest.File(t, "text", text), filepath.Join(t.TempDir(), "page.html")
	flags := []string{"route", path, "-config", config, "-weights", weights, "-length", "400", "-batch", "1"}
	for i, name := range []string{"layers.0.conditional_attn.kv_router", "1.conditional_ff"} {
		full := []string{name, "layers.1.conditional_ff.router"}[i]
		for _, r := range commandtest.Objects(t, program.OK(t, append(flags, "-router", name, "-o", "json")...)) {
			assert.Equal(t, full, r["router"])
			from, n := int(r["from"].(float64)), int(r["bytes"].(float64))
			assert.Equal(t, float64(countTrue(heavy[full][from:from+n])), r["heavy"])
		}
	}

	// The same encoder as a part of a classifier, in the files that colt5 train writes.
	classifier, rows := classifierWeights(t, weights), program.OK(t, append(flags, "-o", "json")...)
	for _, text := range []string{`{"task": "classifier", "encoder": ` + encoderConfig + `}`, `{"step": 1, "config": {"encoder": ` + encoderConfig + `}}`} {
		part := []string{"route", path, "-config", commandtest.File(t, "config.json", text), "-weights", classifier, "-length", "400", "-batch", "1", "-o", "json"}
		assert.Equal(t, rows, program.OK(t, part...))
	}

	out := program.OK(t, append(flags, "-html", page, "-router", "layers.0.conditional_attn.q_router")...)
	assert.Contains(t, out, "model: Encoder of 2 layers and dim 16, configuration "+config+", weights of "+weights)
	assert.Contains(t, out, "router layers.0.conditional_attn.q_router selects queries of the heavy attention")
	assert.Contains(t, out, "up to 20 of a segment")
	assert.NotContains(t, out, "untrained")
	written, err := os.ReadFile(page)
	require.NoError(t, err)
	var options []string
	selected := ""
	for _, x := range charttest.CheckPage(t, written, true) {
		if x.Name == "option" {
			options = append(options, x.Text)
			if _, ok := x.Attr["selected"]; ok {
				selected = x.Text
			}
		}
	}
	assert.ElementsMatch(t, names, options, "the page has all routers")
	assert.Equal(t, "layers.0.conditional_attn.q_router", selected)
	assert.NotContains(t, string(written), "Demonstration")
	assert.Contains(t, string(written), "up to 10 of a segment in each of 2 routes")

	// The marks of all routers, in the text that the page shows.
	var marks [][][]int
	require.NoError(t, json.Unmarshal(regexp.MustCompile(`const marks = (.*);`).FindSubmatch(written)[1], &marks))
	require.Len(t, marks, len(options))
	split := &routedText{text: []byte(text)}
	for router, name := range options {
		for i, p := range split.passages() {
			shown := split.runs(&routing{heavy: make([]bool, len(text))}, p.from, p.to)[0].Text
			var got, want []bool // by code unit
			for j, n := range marks[router][i] {
				got = append(got, slices.Repeat([]bool{j%2 == 1}, n)...)
			}
			for _, x := range split.runs(&routing{heavy: heavy[name]}, p.from, p.to) {
				want = append(want, slices.Repeat([]bool{x.Heavy}, len(utf16.Encode([]rune(x.Text))))...)
			}
			require.Len(t, want, len(utf16.Encode([]rune(shown))))
			assert.Equal(t, want, append(got, make([]bool, len(want)-len(got))...), name)
		}
	}
}

// TestRouteSelectsAll has a last segment with fewer bytes than the routers select.
func TestRouteSelectsAll(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles kernels for 4 s on CPU drivers")
	}
	_, config, weights := encoderFiles(t)
	rows := commandtest.Objects(t, program.OK(t, "route", commandtest.File(t, "text", sample()[:65]), "-config", config, "-weights", weights, "-length", "60", "-o", "json"))
	require.Len(t, rows, 1)
	assert.Equal(t, 30.0+5, rows[0]["heavy"])
}

func TestRouteEncoderUsage(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles kernels for 2 s on CPU drivers")
	}
	e, config, weights := encoderFiles(t)
	path := commandtest.File(t, "text", sample()[:300])
	fails := func(want string, args ...string) {
		t.Helper()
		code, _, remarks := program.RunOnDevice(t, append([]string{"route", path}, args...)...)
		assert.Equal(t, command.ExitUsage, code)
		assert.Contains(t, remarks, want)
	}
	fails("-weights "+config, "-config", config, "-weights", config)
	other := filepath.Join(t.TempDir(), "other.safetensors")
	block, err := colt5.NewConditionalRoutedTransformerBlock(t.Context(), gputest.Device(t), e.Config().ConditionalRoutedTransformerBlockConfig)
	require.NoError(t, err)
	defer block.Close()
	require.NoError(t, block.Save(t.Context(), other))
	fails("layers.0.", "-config", config, "-weights", other)
	fails("Eps is -1", "-config", commandtest.File(t, "c", `{"dim": 4, "depth": 1, "num_tokens": 256, "num_heavy_ff_tokens": 1, "num_heavy_attn_tokens_q": 1, "num_heavy_attn_tokens_kv": 1, "router_kwargs": {"eps": -1}}`))
	fails("want the configuration of an Encoder", "-config", commandtest.File(t, "c", `{"dim": 12, "num_heavy_tokens": 3}`))
	fails("is 255, want less than 128, the num_tokens of -config", "-config", commandtest.File(t, "c",
		`{"dim": 4, "depth": 1, "num_tokens": 128, "num_heavy_ff_tokens": 1, "num_heavy_attn_tokens_q": 1, "num_heavy_attn_tokens_kv": 1}`),
		commandtest.File(t, "t", "\xff"))
	fails(`-router is "none"`, "-config", config, "-weights", weights, "-router", "none")

	out := program.OK(t, "route", path, "-config", config, "-seed", "5")
	assert.Contains(t, out, "untrained, with the initial values of seed 5")
}

// TestSmallVocabulary has token ids that are not addressed by bytes.
func TestSmallVocabulary(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles kernels for 4 s on CPU drivers")
	}
	config := commandtest.File(t, "c", `{"dim": 8, "depth": 1, "num_tokens": 128, "num_heavy_ff_tokens": 4, "num_heavy_attn_tokens_q": 4, "num_heavy_attn_tokens_kv": 4,
		"light_dim_head": 4, "light_heads": 1, "heavy_dim_head": 4, "heavy_heads": 1}`)
	rows := commandtest.Objects(t, program.OK(t, "route", commandtest.File(t, "t", "plain text of ASCII"), "-config", config, "-o", "json"))
	assert.Equal(t, 4.0, rows[0]["heavy"])
}
