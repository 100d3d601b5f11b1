package settings

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/colt5-vulkan/colt5/colt5"
	"github.com/colt5-vulkan/colt5/train"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestRead(t *testing.T) {
	for _, task := range Tasks {
		c := Default(task)
		require.NoError(t, c.Check())
		data, err := json.Marshal(c)
		require.NoError(t, err)
		got, err := Read(task, data)
		require.NoError(t, err)
		assert.Equal(t, c, got)
		identity, err := json.Marshal(c.Identity())
		require.NoError(t, err)
		assert.NotContains(t, string(identity), `"run"`)
		got, err = ReadIdentity(identity)
		require.NoError(t, err)
		got.Run = nil
		assert.Equal(t, c.Identity(), got)
	}
	c, err := Read(LM, []byte(`{"batch": 3, "transformer": {"dim": 32, "depth": 1, "num_heavy_tokens_q": 1, "num_heavy_tokens_kv": 1}, "run": {"steps": 2000}}`))
	require.NoError(t, err)
	assert.Equal(t, 3, c.Batch)
	assert.Equal(t, 2000, c.Run.Steps)
	assert.Equal(t, Default(LM).Run.Keep, c.Run.Keep)
	want := Default(LM)
	want.Batch, want.Run.Steps = 3, 2000
	want.Transformer.Dim, want.Transformer.Depth, want.Transformer.NumHeavyTokensQ, want.Transformer.NumHeavyTokensKV = 32, 1, 1, 1
	assert.Equal(t, want, c, "absent keys have the defaults of the task, those of the module too")
	c, err = Read(LM, []byte(`{"transformer": {"causal_query_routing": false, "router_kwargs": {"eps": 0.5}}}`))
	require.NoError(t, err)
	want = Default(LM)
	want.Transformer.CausalQueryRouting, want.Transformer.Router.Eps = false, 0.5
	assert.Equal(t, want, c)
	c, err = Read(Classifier, []byte(`{"task": "classifier", "encoder": {"depth": 3}}`))
	require.NoError(t, err)
	want = Default(Classifier)
	want.Encoder.Depth = 3
	assert.Equal(t, want, c)
	for text, want := range map[string]string{
		`{"bach": 1}`: `unknown field "bach"`, `{"transformer": {"dimm": 1}}`: "dimm", `{} {}`: "something after", `{"task": "classifier"}`: `task is "classifier", want "lm"`,
		`{"batch": 0}`: "batch is 0, want 1 to", `{"run": null}`: "run is null", `{"encoder": {}}`: "needs a transformer, and no encoder",
		`{"transformer": null}`: "needs a transformer", `{"transformer": {"num_tokens": 300}}`: "num_tokens is 300, want 256",
		`{"optimizer": {"schedule": "linear"}}`: `schedule is "linear", want constant, cosine or inverse-square-root`,
		`{"run": {"recompute": -2}}`:            "recompute is -2, want -1 to", `{"run": {"micro_batches": 3}}`: "batch is 8, want a multiple of micro_batches, 3", `{"data": {"held_out_by": "x"}}`: `held_out_by is "x"`,
		`{"optimizer": {"rate": 0}}`: "rate is 0, want above 0", `{"optimizer": {"beta2": 1}}`: "beta2 is 1, want 0 or more, and less than 1",
		`{"optimizer": {"clip": -1}}`: "clip is -1, want at least 0", `{"optimizer": {"decay": -1}}`: "decay is -1, want at least 0",
		`{"data": {"include": ["["]}}`: `the pattern "["`, `{"optimizer": {"warm_up": 1001}}`: "warm_up is 1001, want at most the steps of the schedule, 1000",
	} {
		_, err := Read(LM, []byte(text))
		assert.ErrorContains(t, err, want, text)
	}
	_, err = ReadIdentity([]byte(`{"task": "vit"}`))
	assert.ErrorContains(t, err, `task is "vit", want "lm" or "classifier"`)
	_, err = ReadIdentity([]byte(`{`))
	assert.Error(t, err)
}

// TestIdentity requires runs with another length to be the same unless the rate depends on it.
func TestIdentity(t *testing.T) {
	for schedule, same := range map[string]bool{"constant": true, "cosine": false, "inverse-square-root": true} {
		short, long := Default(LM), Default(LM)
		long.Run.Steps = 5000
		long.Run.MicroBatches, long.Run.Recompute = 2, -1
		for _, c := range []*Config{&short, &long} {
			c.Optimizer.Schedule = scheduleName(schedule)
			c.Complete()
		}
		assert.Equal(t, same, assert.ObjectsAreEqual(short.Identity(), long.Identity()), schedule)
	}
}

func TestOptimizerConfig(t *testing.T) {
	c := Default(LM)
	c.Optimizer.Decay, c.Optimizer.Beta1 = 0, 0
	c.Complete()
	c.Run.Recompute = 3
	o := c.OptimizerConfig()
	assert.Equal(t, 3, o.Recompute)
	assert.Equal(t, train.AdamW{Rate: 1e-3, Beta1: -1, Beta2: 0.999, Eps: 1e-8, Decay: -1}, o.AdamW, "0 is none, and not the default")
	assert.Equal(t, train.Schedule{Kind: train.Cosine, WarmUp: 50, Total: 1000}, o.Schedule)
	assert.False(t, o.LossScale.Dynamic)
	c.Transformer.Precision = colt5.F16
	assert.True(t, c.OptimizerConfig().LossScale.Dynamic)
}

func TestMatches(t *testing.T) {
	for _, test := range []struct {
		pattern, path string
		want          bool
	}{
		{"*.go", "a/b.go", true}, {"*.go", "a.go/b.txt", true}, {"*.go", "a/b.goo", false}, {"testdata", "x/testdata/y/z", true}, {"testdata", "x/testdatas", false},
		{"x/*", "x/y/z", true}, {"x/*", "w/x/y", false}, {"x/y", "x/y", true}, {"x/", "x/y", true}, {"x/", "y/x", false}, {"?/b", "a/b", true},
	} {
		assert.Equal(t, test.want, matches([]string{"none", test.pattern}, test.path), test)
	}
}

func TestOpenCorpus(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"a/1.go": "package a", "a/2.go": "package a", "b/1.go": "// Code generated by x. DO NOT EDIT.\r\npackage b", "b/2.go": "// Code generated\n// DO NOT EDIT.", "b/3.txt": "x",
		"testdata/1.go": "x", ".git/1.go": "x", "c/.hidden.go": "x", "c/last.go": "x\n// Code generated DO NOT EDIT.", "c/end.go": "// Code generated x DO NOT EDIT.", "out/x.go": "x", "out/step/x.go": "x",
	} {
		require.NoError(t, os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
	}
	paths := func(c *train.Corpus) (list []string) {
		for _, f := range c.Files() {
			list = append(list, f.Path)
		}
		return list
	}
	d := Data{Include: []string{"*.go"}, Exclude: []string{"testdata"}}
	all, held, err := d.OpenCorpus([]string{dir}, filepath.Join(dir, "out"))
	require.NoError(t, err)
	assert.Equal(t, []string{"a/1.go", "a/2.go", "b/1.go", "b/2.go", "c/end.go", "c/last.go"}, paths(all))
	assert.Empty(t, paths(held))
	d.SkipGenerated = true
	all, _, err = d.OpenCorpus([]string{dir}, filepath.Join(dir, "out"))
	require.NoError(t, err)
	assert.Equal(t, []string{"a/1.go", "a/2.go", "b/2.go", "c/last.go"}, paths(all))
	d.HeldOut, d.HeldOutBy = 2, "folder"
	all, held, err = d.OpenCorpus([]string{dir}, filepath.Join(dir, "out"))
	require.NoError(t, err)
	for _, f := range append(all.Files(), held.Files()...) {
		is := false
		for _, h := range held.Files() {
			is = is || h.Path == f.Path
		}
		assert.Equal(t, train.HeldOut(filepath.ToSlash(filepath.Dir(f.Path)), 2), is, f.Path)
	}
	assert.Len(t, append(paths(all), paths(held)...), 4)
}
