package golden

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/colt5-vulkan/colt5/safetensors"
)

const directory = "../../testdata/golden"

func TestCommittedCases(t *testing.T) {
	paths, err := Cases(directory)
	require.NoError(t, err)
	assert.True(t, slices.IsSorted(paths))
	count := map[string]int{}
	for _, path := range paths {
		c, err := Load(path)
		require.NoError(t, err)
		assert.Equal(t, c.Name+".safetensors", filepath.Base(c.Path))
		assert.NotEmpty(t, c.InputGrads, c.Name)
		assert.Len(t, c.WeightGrads, len(c.Weights), c.Name)
		count[c.Module]++
	}
	for module, want := range map[string]int{
		"CoordinateDescent": 18, "TopK": 6, "CoordinateDescentRouter": 16, "ConditionalRoutedFeedForward": 9,
		"ConditionalRoutedAttention": 13, "ConditionalRoutedTransformerBlock": 3, "ConditionalRoutedCrossAttention": 8,
		"ConditionalRoutedAutoregressiveAttention": 10, "ConditionalRoutedImageAttention": 5, "ConditionalRoutedViT": 4,
	} {
		assert.Equal(t, want, count[module], module)
	}
}

func TestLoad(t *testing.T) {
	c, err := Load(filepath.Join(directory, "router_11.safetensors"))
	require.NoError(t, err)
	assert.Equal(t, "CoordinateDescentRouter", c.Module)
	assert.Equal(t, []int{2, 128, 32}, c.Inputs["x"].Shape)
	assert.Len(t, c.Inputs["x"].F32, 2*128*32)
	assert.Len(t, c.Inputs["x"].Float64s(), 2*128*32)
	assert.Len(t, c.Inputs["mask"].U8, 2*128)
	assert.Equal(t, []string{"routing_token"}, slices.Collect(maps.Keys(c.Weights)))
	assert.Equal(t, []int{2, 2, 20, 32}, c.Upstream["y"].Shape)
	assert.Len(t, c.Routings[""].Indices.I32, 2*2*20)
	assert.Equal(t, []int{4, 128}, c.Routings[""].Logits.Shape)

	var call struct {
		NumTokens int `json:"num_tokens"`
	}
	require.NoError(t, c.DecodeCall(&call))
	assert.Equal(t, 20, call.NumTokens)
	assert.ErrorContains(t, c.DecodeConfig(&call), "unknown field")
	c.Config = []byte(`{"num_tokens": 3, "flash_attn": true}`)
	require.NoError(t, c.DecodeConfig(&call))
	assert.Equal(t, 3, call.NumTokens)
}

func TestCases(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"b.safetensors", "a.safetensors", "README.md"} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), nil, 0o644))
	}
	alone := filepath.Join(dir, "README.md")
	paths, err := Cases(alone, dir)
	require.NoError(t, err)
	assert.Equal(t, []string{alone, filepath.Join(dir, "a.safetensors"), filepath.Join(dir, "b.safetensors")}, paths)
	_, err = Cases(filepath.Join(dir, "none"))
	assert.ErrorIs(t, err, os.ErrNotExist)
	_, err = Cases(t.TempDir())
	assert.ErrorContains(t, err, "holds no *.safetensors files")
	_, err = Load(alone)
	assert.ErrorContains(t, err, "golden: safetensors:")
}

func TestBounds(t *testing.T) {
	routed := map[string]Routing{"router": {}}
	for _, c := range []struct {
		module, config, output string
		routes                 map[string]Routing
		want                   [3]float64 // output, gradient of the input, gradient of heavy_ff.1.weight
	}{
		{"CoordinateDescent", `{"eps": 0.1}`, "y", nil, [3]float64{1e-4, 2e-3, 2e-4}},
		{"CoordinateDescent", `{"eps": 0.5}`, "y", nil, [3]float64{2e-5, 2e-4, 2e-4}},
		{"TopK", `{"eps": 0.1}`, "values", nil, [3]float64{2e-5, 2e-3, 2e-4}},
		{"TopK", `{"eps": 0.1}`, "coor_descent_values", nil, [3]float64{1e-4, 2e-3, 2e-4}},
		{"CoordinateDescentRouter", `{}`, "y", routed, [3]float64{2e-5, 2e-3, 2e-4}},
		{"CoordinateDescentRouter", `{"straight_through": false}`, "y", routed, [3]float64{1e-4, 2e-3, 2e-4}},
		{"ConditionalRoutedFeedForward", `{}`, "y", routed, [3]float64{2e-5, 2e-3, 2e-4}},
		{"ConditionalRoutedFeedForward", `{}`, "y", nil, [3]float64{2e-5, 2e-4, 2e-4}},
		{"ConditionalRoutedFeedForward", `{"router_kwargs": {"eps": 1}}`, "y", routed, [3]float64{2e-5, 2e-4, 2e-4}},
		{"ConditionalRoutedFeedForward", `{"router_straight_through": false}`, "y", routed, [3]float64{1e-4, 2e-3, 2e-4}},
		{"ConditionalRoutedTransformerBlock", `{}`, "y", routed, [3]float64{2e-5, 2e-3, 2e-3}},
		{"ConditionalRoutedViT", `{}`, "y", routed, [3]float64{2e-5, 2e-4, 2e-4}},
	} {
		k := Case{Module: c.module, Config: []byte(c.config), Routings: c.routes}
		require.NoError(t, k.readBoundRule())
		assert.Equal(t, c.want, [3]float64{k.OutputBound(c.output), k.InputGradBound(), k.WeightGradBound("heavy_ff.1.weight")}, c)
		assert.Equal(t, k.InputGradBound(), k.WeightGradBound("router.routing_token"), c)
		require.NoError(t, k.SetPrecision("bf16"))
		assert.Equal(t, [3]float64{2e-2, 5e-2, 5e-2}, [3]float64{k.OutputBound(c.output), k.InputGradBound(), k.WeightGradBound("heavy_ff.1.weight")}, c)
	}
}

func TestBoundOfCase(t *testing.T) {
	c := Case{Module: "ConditionalRoutedFeedForward", Config: []byte("{}"), Routings: map[string]Routing{"router": {}}, bound: 1e-5}
	require.NoError(t, c.readBoundRule())
	assert.Equal(t, [2]float64{1e-5, 1e-4}, [2]float64{c.OutputBound("y"), c.ScoreBound()})
	c.scoreBound = 3e-4
	assert.Equal(t, [2]float64{1e-5, 3e-4}, [2]float64{c.OutputBound("y"), c.ScoreBound()})
	c.Config = []byte(`{"router_straight_through": false}`)
	require.NoError(t, c.readBoundRule())
	assert.Equal(t, 1e-5, c.OutputBound("y"), "also of soft scores")
}

func TestCompared(t *testing.T) {
	c := &Case{Inputs: map[string]Tensor{"mask": {U8: []uint8{0, 1, 1, 0}}}}
	values := []int{0, 1, 2, 3, 4, 5, 6, 7}
	assert.Equal(t, values, Compared(c, values))
	c.ValidRowsOnly = true
	assert.Equal(t, []int{2, 3, 4, 5}, Compared(c, values))
}

func TestMalformed(t *testing.T) {
	f32 := func(name string, shape ...int64) safetensors.Tensor {
		return safetensors.Tensor{Name: name, DType: safetensors.F32, Shape: shape, Data: safetensors.Float32s(make([]float32, product(shape)))}
	}
	i32 := func(name string, v int32, shape ...int64) safetensors.Tensor {
		data := slices.Repeat([]int32{v}, product(shape))
		return safetensors.Tensor{Name: name, DType: safetensors.I32, Shape: shape, Data: safetensors.Int32s(data)}
	}
	mask := func(v byte) safetensors.Tensor {
		return safetensors.Tensor{Name: "in.mask", DType: safetensors.U8, Shape: []int64{1, 2}, Data: safetensors.Bytes([]byte{v, 0})}
	}
	nan := safetensors.Tensor{Name: "in.n", DType: safetensors.F32, Shape: []int64{1}, Data: safetensors.Bytes([]byte{0, 0, 0xc0, 0x7f})}
	half := safetensors.Tensor{Name: "in.h", DType: safetensors.F16, Shape: []int64{1}, Data: safetensors.Bytes(make([]byte, 2))}
	base := []safetensors.Tensor{f32("in.x", 1, 2, 4), f32("out.y", 1, 2, 4), mask(1)}
	route := []safetensors.Tensor{i32("route.r.indices", 0, 1, 2), f32("route.r.scores", 1, 2), f32("route.r.logits", 1, 3), f32("route.r.scores_all", 1, 3)}
	meta := func(module, config, call string) map[string]string {
		return map[string]string{"module": module, "config": config, "call": call}
	}
	good := meta("M", `{"dim": 4}`, "{}")
	extended := func(key, value string) map[string]string {
		m := maps.Clone(good)
		m[key] = value
		return m
	}
	with := func(more ...safetensors.Tensor) []safetensors.Tensor { return append(slices.Clone(base), more...) }
	for _, c := range []struct {
		name     string
		metadata map[string]string
		tensors  []safetensors.Tensor
		want     string // empty: accepted
	}{
		{"good", good, with(append(route, f32("param.w", 2), f32("grad.param.w", 2), f32("grad.out", 1, 2, 4))...), ""},
		{"no metadata", nil, base, "metadata has no module, so the file is no golden case; weights alone are none"},
		{"no call", meta("M", "{}", ""), base, "metadata has no call"},
		{"unknown metadata", extended("note", "x"), base, `metadata has "note", want module,`},
		{"valid rows", extended("rows", "valid"), base, ""},
		{"other rows", extended("rows", "all"), base, `metadata rows is "all", want valid`},
		{"valid rows without a mask", extended("rows", "valid"), base[:2], "the mask [] has no element for each row of out.y [1 2 4]"},
		{"valid rows with another mask", extended("rows", "valid"), []safetensors.Tensor{base[0], f32("out.y", 1, 3, 4), mask(1)}, "the mask [1 2] has no"},
		{"valid rows, all masked", extended("rows", "valid"), []safetensors.Tensor{base[0], base[1], mask(0)}, "the mask has no valid token"},
		{"bound", extended("bound", "1e-05"), base, ""},
		{"score bound of 2", extended("score_bound", "2"), base, `metadata score_bound is "2", want a number above 0`},
		{"bound of 0", extended("bound", "0"), base, `metadata bound is "0", want a number above 0`},
		{"bound of NaN", extended("bound", "NaN"), base, `metadata bound is "NaN"`},
		{"ids of another module", good, []safetensors.Tensor{i32("in.x", 0, 1, 2), base[1]}, `"in.x" is I32, want F32`},
		{"ids", meta("Encoder", "{}", "{}"), []safetensors.Tensor{i32("in.x", 0, 1, 2), base[1]}, ""},
		{"config is a list", meta("M", "[]", "{}"), base, `metadata config is "[]", want a JSON object`},
		{"call is null", meta("M", "{}", "null"), base, `metadata call is "null"`},
		{"eps is a string", meta("M", `{"eps": "1"}`, "{}"), base, "metadata config: "},
		{"no inputs", good, base[1:2], "0 inputs and 1 outputs"},
		{"no outputs", good, base[:1], "1 inputs and 0 outputs"},
		{"unknown group", good, with(f32("other.x", 1)), `"other.x": unknown name`},
		{"unknown gradient", good, with(f32("grad.other.x", 1)), `"grad.other.x": unknown name`},
		{"no name", good, with(f32("in.", 1)), `"in.": unknown name`},
		{"unknown route", good, with(f32("route.r.other", 1)), `"route.r.other": unknown name`},
		{"route without a field", good, with(f32("route.r", 1)), `"route.r": unknown name`},
		{"duplicate", good, with(f32("grad.out", 1, 2, 4), f32("grad.out.y", 1, 2, 4)), "is a duplicate"},
		{"float mask", good, []safetensors.Tensor{base[0], base[1], f32("in.mask", 1, 2)}, `"in.mask" is F32, want U8`},
		{"mask of 2", good, []safetensors.Tensor{base[0], base[1], mask(2)}, "has values other than 0 and 1"},
		{"float indices", good, with(f32("out.indices", 1)), `"out.indices" is F32, want I32`},
		{"float route indices", good, with(f32("route.r.indices", 1)), `"route.r.indices" is F32, want I32`},
		{"float16", good, with(half), `"in.h" is F16, want F32, I32 or U8`},
		{"nan", good, with(nan), `"in.n" has a NaN`},
		{"empty", good, with(f32("in.e", 0, 3)), `"in.e" is empty`},
		{"gradient of a missing tensor", good, with(f32("grad.param.w", 1)), "grad.param.w is the gradient of a missing tensor"},
		{"gradient with another shape", good, with(f32("grad.in.x", 1, 2, 3)), "grad.in.x has shape [1 2 3], want [1 2 4]"},
		{"route without scores", good, with(route[0], route[2], route[3]), `route "r": indices [1 2] and scores []`},
		{"route without logits", good, with(route[0], route[1], route[3]), `route "r": logits []`},
		{"negative index", good, with(i32("route.r.indices", -1, 1, 2), route[1], route[2], route[3]), "negative index"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "case.safetensors")
			require.NoError(t, safetensors.Write(path, c.metadata, c.tensors))
			k, err := Load(path)
			if c.want == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, c.want)
			assert.True(t, strings.HasPrefix(err.Error(), "golden: "+path), err)
			assert.Nil(t, k)
		})
	}
}

func product(shape []int64) int {
	n := 1
	for _, d := range shape {
		n *= int(d)
	}
	return n
}
