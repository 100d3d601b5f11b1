package main

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/colt5-vulkan/colt5/colt5"
	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/internal/ref"
	"github.com/colt5-vulkan/colt5/pipelines"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// tiny has a small size for every case.
func tiny() map[string]string {
	return map[string]string{
		"rmsnorm": "5x12", "linear": "9x12x20", "router_logits": "2x33x12x2", "coor_descent": "2x100x7", "select": "2x100x7", "gather": "2x50x12x5",
		"scatter": "2x50x12x5", "feedforward": "2x40x16x5", "router": "2x40x16x5", "topk": "2x100x7", "topk_differentiable": "2x100x7",
		"coordinate_descent": "2x100x7x5x100", "attention": "2x140x16x5", "block": "2x140x16x5", "cross": "2x20x256x16x2x64",
		"autoregressive": "2x140x16x5", "image": "1x12x16x8x4x10", "vit": "1x16x2x16x1", "encoder": "2x70x16x5x1",
		"autoregressive_transformer": "1x140x16x5x1", "block_length": "1x140x16x5", "dense_attention": "1x40x2x8",
		"coor_descent_windows": "2x2x100x5x7", "select_windows": "2x2x100x5x7",
	}
}

// sizesOf are flags that give cases their small size.
func sizesOf(names ...string) []string {
	var flags []string
	for _, name := range names {
		flags = append(flags, "-size", name+"="+tiny()[name])
	}
	return flags
}

// quickly are the arguments of a short bench.
func quickly(args ...string) []string {
	return append([]string{"bench", "-reps", "2", "-warmup", "0"}, args...)
}

func TestBench(t *testing.T) {
	rows := objects(t, fine(t, append(quickly("-o", "json"), sizesOf(slices.Collect(maps.Keys(tiny()))...)...)...))
	names := append([]string{copyRoof, matmulRoof}, caseNames(benchCases())...)
	require.Len(t, rows, len(names))
	for i, r := range rows {
		name := r["name"].(string)
		assert.Equal(t, names[i], name)
		if size, ok := tiny()[name]; ok {
			assert.Equal(t, size, r["shape"])
		}
		assert.Equal(t, 2.0, r["runs"], name)
		assert.Positive(t, r["wall_ms"], name)
		assert.Positive(t, r["peak_bytes"], name)
		low, middle, high := r["gpu_p10_ms"].(float64), r["gpu_ms"].(float64), r["gpu_p90_ms"].(float64)
		assert.True(t, 0 <= low && low <= middle && middle <= high, name)
		if middle > 0 {
			assert.Positive(t, r["gb_per_s"], name)
		}
	}
	assert.Positive(t, rows[0]["gb_per_s"])
	assert.Equal(t, 1.0, rows[1]["roof_share"])
	assert.Positive(t, rows[1]["tflop_per_s"])
	feedforward := rows[slices.Index(names, "feedforward")]
	assert.Positive(t, feedforward["workspace_bytes"])
	assert.Positive(t, feedforward["roof_share"])
}

func TestBenchSteps(t *testing.T) {
	rows := objects(t, fine(t, append(quickly("-steps", "-o", "json", "-only", "feedforward,scatter"), sizesOf("feedforward", "scatter")...)...))
	kernels := map[string][]string{}
	sum := map[string]float64{}
	for _, r := range rows {
		name := r["name"].(string)
		assert.Equal(t, float64(len(kernels[name])+1), r["step"])
		kernels[name] = append(kernels[name], r["kernel"].(string))
		if part, ok := r["time_share"].(float64); ok {
			sum[name] += part
		}
	}
	assert.Equal(t, []string{"scatter_vec4_initial", "scatter_vec4"}, kernels["scatter"])
	require.Len(t, kernels["feedforward"], 6, kernels)
	assert.Contains(t, kernels["feedforward"][0], "router_logits")
	assert.Equal(t, "select", kernels["feedforward"][1])
	for _, k := range kernels["feedforward"][2:] {
		assert.Contains(t, k, "linear")
	}
	for name, x := range sum {
		assert.InDelta(t, 1, x, 1e-6, name)
	}
}

func TestBenchRemarks(t *testing.T) {
	dev := gputest.Device(t)
	code, out, remarks := onDevice(t, "bench", "-o", "csv", "-reps", "1", "-warmup", "0", "-only", "rmsnorm", "-size", "3x4")
	assert.Equal(t, exitFine, code)
	assert.Contains(t, out, "\nrmsnorm,3x4,f32,")
	assert.Contains(t, remarks, dev.Info().Name)
	assert.Equal(t, dev.Caps().CPU, strings.Contains(remarks, "no GPU figures"))
}

func TestBenchFailures(t *testing.T) {
	// Not routed: 5 of 5 tokens. The other case still runs.
	code, out, remarks := onDevice(t, "bench", "-o", "csv", "-reps", "1", "-warmup", "0", "-only", "router,topk", "-size", "router=1x5x4x5", "-size", "topk=1x10x3")
	assert.Equal(t, exitFailed, code)
	assert.Contains(t, remarks, "router 1x5x4x5 f32: 5 heavy tokens of 5, want fewer")
	assert.NotContains(t, out, "\nrouter,")
	assert.Contains(t, out, "\ntopk,1x10x3,f32,")
}

// TestInsaneResults plants workloads whose results are wrong: none may be timed.
func TestInsaneResults(t *testing.T) {
	dev := gputest.Device(t)
	gputest.CountCase()
	nan := float32(math.NaN())
	for _, test := range []struct {
		name   string
		floats []float32
		ints   []int32
		want   string
	}{
		{"fine", []float32{1, 2, 3}, []int32{4, 0, 4, 3}, ""},
		{"NaN", []float32{1, 2, nan}, nil, "y: element 2 is NaN"},
		{"infinite", []float32{1, float32(math.Inf(1)), 3}, nil, "y: element 1 is +Inf"},
		{"constant", []float32{1, 1, 1}, nil, "y: all 3 elements are 1"},
		{"not written", nil, nil, "y: element 0 is NaN"},
		{"negative", []float32{1, 2, 3}, []int32{0, -1, 2, 3}, "indices: element 1 is -1"},
		{"too large", []float32{1, 2, 3}, []int32{0, 1, 2, 5}, "indices: element 3 is 5"},
		{"twice", []float32{1, 2, 3}, []int32{0, 1, 2, 2}, "indices: element 3 is 2"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var out bytes.Buffer
			b := newBenchmark(context.Background(), dev, newPace(true, 1, 0))
			b.table = &table{out: &out, remarks: &out, format: "csv", before: func() {}, columns: b.columns(nil)}
			runs := 0
			err := b.run(sized{benchCase: benchCase{name: "planted", setup: func(s *benchStage, _ []int) (*workload, error) {
				y, indices := s.tensor(colt5.F32, 3), s.tensor(colt5.I32, 2, 2)
				run := func() error {
					runs++
					if test.floats == nil {
						return nil
					}
					if test.ints == nil {
						return y.Write(t.Context(), test.floats)
					}
					return errors.Join(y.Write(t.Context(), test.floats), indices.Write(t.Context(), test.ints))
				}
				last := func() (colt5.CallStats, error) { return colt5.CallStats{Time: time.Millisecond, Bytes: 8}, nil }
				return &workload{run: run, last: last, results: []result{tensorResult("y", y), tensorIndices("indices", indices, 5)}}, nil
			}}, size: []int{3}})
			if test.want != "" {
				assert.ErrorContains(t, err, test.want)
				assert.Equal(t, 1, runs)
				assert.Empty(t, out.String())
				return
			}
			require.NoError(t, err)
			assert.Equal(t, 2, runs)
			assert.Contains(t, out.String(), "planted,3,f32,1,1,1,")
		})
	}
	assert.Zero(t, dev.Stats().Buffers)
}

// TestProductResult changes one number of a product, in every row that is computed again and in one that is not, and leaves out some inputs.
func TestProductResult(t *testing.T) {
	dev := gputest.Device(t)
	gputest.CountCase()
	const rows, in, out = 36, 2048, 12
	for _, p := range []pipelines.DType{pipelines.F32, pipelines.F16, pipelines.BF16} {
		if p.Supported(dev.Caps()) != nil {
			continue
		}
		require.NoError(t, onStage(dev, func(s *stage) error {
			b := &benchStage{stage: s, precision: p}
			w, err := setupLinear(b, []int{rows, in, out})
			require.NoError(t, err)
			require.NoError(t, w.check())
			y, _, err := w.results[0].read()
			require.NoError(t, err)
			for row := range rows {
				y[row*out+row%out] += 8
				err := w.results[0].exact(y)
				y[row*out+row%out] -= 8
				if row%5 == 0 { // the 8 rows are 0, 5 .. 35
					assert.ErrorContains(t, err, "bound", "%v, row %d", p, row)
				} else {
					assert.NoError(t, err, "%v, row %d", p, row)
				}
			}
			require.NoError(t, w.results[0].exact(y))
			args := ref.LinearArgs{X: normals(1, rows*in), W: normals(2, in*out), Rows: rows, In: in, Out: out}
			for row := range rows {
				clear(args.X[row*in+in-8:][:8])
			}
			less := ref.Linear32(args)
			for i := range less {
				less[i] = b.rounded(less[i])
			}
			assert.ErrorContains(t, w.results[0].exact(less), "bound", "%v: 8 inputs are missing", p)
			return nil
		}))
	}
}

func TestChooseCases(t *testing.T) {
	chosen, err := chooseCases(benchCases(), []string{"topk", "linear"}, []string{"topk=1x5x2", "3x5x4", "linear=7x8x9"})
	require.NoError(t, err)
	assert.Equal(t, []string{"linear", "topk"}, caseNames(chosen))
	assert.Equal(t, [][]int{{3, 5, 4}, {7, 8, 9}}, chosen[0].sizes)
	assert.Equal(t, [][]int{{1, 5, 2}, {3, 5, 4}}, chosen[1].small)
	assert.Equal(t, "7x8x9", chosen[0].at(false, []pipelines.DType{pipelines.F32})[1].shape())

	chosen, err = chooseCases(benchCases(), []string{"cross"}, []string{"1x2x3x4x5x0"})
	require.NoError(t, err)
	assert.Equal(t, [][]int{{1, 2, 3, 4, 5, 0}}, chosen[0].sizes, "no blocks")

	chosen, err = chooseCases(benchCases(), []string{"rmsnorm"}, []string{"3,5x12,16", "rmsnorm=7x8"})
	require.NoError(t, err)
	assert.Equal(t, [][]int{{3, 12}, {3, 16}, {5, 12}, {5, 16}, {7, 8}}, chosen[0].sizes, "all combinations")

	all, err := chooseCases(benchCases(), nil, nil)
	require.NoError(t, err)
	assert.Equal(t, caseNames(benchCases()), caseNames(all))
	for _, c := range all {
		for _, size := range append(c.sizes, c.small...) {
			assert.Len(t, size, len(c.dims), c.name)
			assert.NoError(t, c.fits(size), c.name)
		}
		assert.NotEmpty(t, c.sizes, c.name)
		assert.NotEmpty(t, c.small, c.name)
	}
}

func TestParseSizes(t *testing.T) {
	sizes, err := parseSizes("2x8192,16384x512")
	require.NoError(t, err)
	assert.Equal(t, [][]int{{2, 8192, 512}, {2, 16384, 512}}, sizes)
	for text, want := range map[string]string{
		"": "want numbers up to", "2x": "want numbers up to", "2,x3": "want numbers up to", "2,-1": "want numbers up to", "2,99999999999": "want numbers up to",
		"1x2,topk=3": "for another case -size again", strings.Repeat("1,2x", 20) + "3": "want at most 10000 sizes",
	} {
		_, err := parseSizes(text)
		assert.ErrorContains(t, err, want, text)
	}
}

func TestParsePrecisions(t *testing.T) {
	for text, want := range map[string][]pipelines.DType{
		"f32": {pipelines.F32}, "bf16,f16,bf16": {pipelines.BF16, pipelines.F16}, "float32,bfloat16": {pipelines.F32, pipelines.BF16}, "": nil, "f32,": nil, "F32": nil, "f64": nil, "f32 ,f16": nil,
	} {
		got, err := parsePrecisions(text)
		assert.Equal(t, want, got, text)
		assert.Equal(t, want == nil, err != nil, text)
	}
}

// TestWork has a device with float16 and without bfloat16.
func TestWork(t *testing.T) {
	some := vk.Caps{CooperativeMatrix: true, MemoryModel: true, FullSubgroups: true, Float16: true,
		MatrixShapes: []vk.MatrixShape{{M: 16, N: 16, K: 16, C: 1, Result: 1, Scope: 3}}}
	cases, err := chooseCases(benchCases(), []string{"rmsnorm", "linear"}, []string{"rmsnorm=3x4,8", "linear=1x2x3"})
	require.NoError(t, err)
	titles := func(todo []sized) (list []string) {
		for _, x := range todo {
			list = append(list, x.title())
		}
		return list
	}
	todo, remarks := work(cases, true, some, []pipelines.DType{pipelines.F16, pipelines.BF16, pipelines.F32})
	assert.Equal(t, []string{"rmsnorm 3x4 f32", "rmsnorm 3x8 f32", "linear 1x2x3 f16", "linear 1x2x3 f32"}, titles(todo))
	require.Len(t, remarks, 2)
	assert.Contains(t, remarks[0], "Left out: bf16, which the device does not have: ")
	assert.Contains(t, remarks[0], "VK_KHR_shader_bfloat16")
	assert.Contains(t, remarks[1], "In f32 alone, for they have no 16-bit variants: rmsnorm.")

	todo, remarks = work(cases, true, vk.Caps{}, []pipelines.DType{pipelines.F32})
	assert.Equal(t, []string{"rmsnorm 3x4 f32", "rmsnorm 3x8 f32", "linear 1x2x3 f32"}, titles(todo))
	assert.Empty(t, remarks)

	for _, name := range halves() {
		assert.Contains(t, caseNames(benchCases()), name)
	}
}

// TestBenchPrecisions runs in what the device has, and tells the rest.
func TestBenchPrecisions(t *testing.T) {
	caps := gputest.Device(t).Caps()
	code, out, remarks := onDevice(t, quickly("-o", "jsonl", "-only", "linear", "-only", "membership_mask", "-precision", "f32,f16,bf16", "-size", "linear=9x12x20", "-size", "membership_mask=1x9x3")...)
	require.Equal(t, exitFine, code, remarks)
	for _, p := range []pipelines.DType{pipelines.F32, pipelines.F16, pipelines.BF16} {
		have := p.Supported(caps) == nil
		assert.Equal(t, have, strings.Contains(out, `{"name": "linear", "shape": "9x12x20", "precision": "`+precisionName(p)+`",`), out)
		assert.Equal(t, have, !strings.Contains(remarks, "Left out: "+precisionName(p)+","), remarks)
	}
	assert.Equal(t, 1, strings.Count(out, `"name": "membership_mask"`))
	assert.Contains(t, remarks, "no 16-bit variants: mark.")
}

// TestBenchNothing: where the device has none of the precisions, that is a failure.
func TestBenchNothing(t *testing.T) {
	caps := gputest.Device(t).Caps()
	for p, name := range map[pipelines.DType]string{pipelines.F16: "f16", pipelines.BF16: "bf16"} {
		if p.Supported(caps) == nil {
			continue
		}
		for _, command := range []string{"bench -only linear", "report -lengths none -only linear -out " + t.TempDir(), "tune"} {
			code, out, remarks := onDevice(t, append(strings.Fields(command), "-precision", name)...)
			assert.Equal(t, exitFailed, code, command)
			assert.Empty(t, out, command)
			assert.Contains(t, remarks, "Left out: "+name+", which the device does not have", command)
		}
	}
	require.NoError(t, nothing([]sized{{}}, nil))
	assert.ErrorContains(t, nothing(nil, []string{"Left out: all."}), "nothing that was asked for can run here. Left out: all.")
}

func TestQuantile(t *testing.T) {
	list := []float64{1, 2, 3, 4, 5}
	assert.Equal(t, 3.0, quantile(list, 0.5))
	assert.InDelta(t, 1.4, quantile(list, 0.1), 1e-12)
	assert.InDelta(t, 4.6, quantile(list, 0.9), 1e-12)
	assert.Equal(t, 2.5, quantile([]float64{2, 3}, 0.5))
	assert.Equal(t, 7.0, quantile([]float64{7}, 0.9))
}

func TestOfRoof(t *testing.T) {
	b, half := &benchmark{}, sized{precision: pipelines.F16}
	assert.Nil(t, b.ofRoof(sized{}, 1, 1))
	b.copyRate, b.flopRate = 100, map[pipelines.DType]float64{pipelines.F32: 1000}
	assert.Equal(t, share(0.5), b.ofRoof(sized{}, 50, 400))
	assert.Equal(t, share(0.9), b.ofRoof(sized{}, 50, 900))
	assert.Nil(t, b.ofRoof(half, 50, 900))
	b.flopRate[pipelines.F16] = 9000
	assert.Equal(t, share(0.5), b.ofRoof(half, 50, 900))
	assert.Equal(t, 2000.0, rate(1, 0.5))
	assert.Zero(t, rate(1, 0))
	assert.Nil(t, scaled(0, 1e9))
}

func TestNormals(t *testing.T) {
	list := normals(1, 100000)
	var sum, squares, most float64
	for _, x := range list {
		sum += float64(x)
		squares += float64(x) * float64(x)
		most = max(most, float64(x))
	}
	assert.InDelta(t, 0, sum/1e5, 0.02)
	assert.InDelta(t, 1, squares/1e5, 0.02)
	assert.Greater(t, most, 2.5)
	assert.Equal(t, list[:10], normals(1, 10))
	other, product := normals(2, len(list)), 0.0
	for i, x := range list {
		product += float64(x) * float64(other[i])
	}
	assert.InDelta(t, 0, product/1e5, 0.02, "two seeds")
}

func TestPace(t *testing.T) {
	assert.Equal(t, pace{reps: 7, most: 7, budget: time.Second, warmup: 2}, newPace(false, 7, 2))
	assert.Less(t, newPace(true, 0, -1).reps, newPace(false, 0, -1).reps)
}
