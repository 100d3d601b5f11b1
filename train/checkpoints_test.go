package train

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/colt5-vulkan/colt5/internal/atomicfile"
	"github.com/colt5-vulkan/colt5/safetensors"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

type testConfig struct {
	Model struct{ Dim, Depth int }
	Seed  uint64
}

func newTestConfig() (c testConfig) {
	c.Model.Dim, c.Model.Depth, c.Seed = 64, 2, 1<<63+1
	return c
}

// contentOf is the text of a file of the checkpoint of a step.
func contentOf(step int64, name string) []byte {
	return []byte(strings.Repeat(fmt.Sprintf("%s of step %d\n", name, step), 1000))
}

// writeTo returns a function that writes two files, one of them as the optimiser does.
func writeTo(step int64) func(dir string) error {
	return func(dir string) error {
		x := safetensors.Tensor{Name: "x", DType: safetensors.F32, Shape: []int64{2}, Data: safetensors.Float32s([]float32{float32(step), 1})}
		return errors.Join(
			os.WriteFile(filepath.Join(dir, "model.bin"), contentOf(step, "model"), 0o666),
			safetensors.Write(filepath.Join(dir, "optimizer.safetensors"), nil, []safetensors.Tensor{x}),
		)
	}
}

func openTest(t *testing.T, dir string, o CheckpointOptions) *Checkpoints {
	t.Helper()
	c, err := OpenCheckpoints(dir, o)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, c.Close()) })
	return c
}

func names(t *testing.T, dir string) (list []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, e := range entries {
		if e.Name() != lockName {
			list = append(list, e.Name())
		}
	}
	return list
}

func TestCheckpoints(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	c := openTest(t, dir, CheckpointOptions{Config: newTestConfig(), Keep: 2})
	_, err := c.Latest()
	require.ErrorIs(t, err, ErrNoCheckpoint)
	_, err = OpenCheckpoint(dir)
	require.ErrorIs(t, err, ErrNoCheckpoint)
	for _, step := range []int64{0, 7, 9, 100} {
		require.NoError(t, c.Save(step, map[string]int64{"position": 10 * step}, writeTo(step)))
	}
	assert.Equal(t, []string{"step-000000000009", "step-000000000100"}, names(t, dir))

	latest, err := c.Latest()
	require.NoError(t, err)
	assert.EqualValues(t, 100, latest.Step)
	assert.JSONEq(t, `{"position":1000}`, string(latest.Data))
	got, err := os.ReadFile(latest.File("model.bin"))
	require.NoError(t, err)
	assert.Equal(t, contentOf(100, "model"), got)
	for _, path := range []string{dir, latest.Path} {
		same, err := OpenCheckpoint(path)
		require.NoError(t, err)
		assert.Equal(t, latest, same)
	}
	var config testConfig
	require.NoError(t, json.Unmarshal(latest.Config, &config))
	assert.Equal(t, newTestConfig(), config)

	assert.ErrorIs(t, c.Save(100, nil, writeTo(100)), fs.ErrExist)
	assert.ErrorContains(t, c.Save(99, nil, writeTo(99)), "the newest checkpoint is of step 100, want a step after it")
	assert.ErrorContains(t, c.Save(-1, nil, writeTo(0)), "step is -1, want 0 to 999999999999")
	assert.Len(t, names(t, dir), 2)
	stat, err := os.Stat(filepath.Join(latest.Path, manifestName))
	require.NoError(t, err)
	assert.NotZero(t, stat.Mode().Perm()&0o040, "readable as the umask allows")
}

func TestCheckpointsKeep(t *testing.T) {
	for keep, want := range map[int]int{0: 3, 1: 1, -1: 5} {
		dir := t.TempDir()
		c := openTest(t, dir, CheckpointOptions{Keep: keep})
		for step := range int64(5) {
			require.NoError(t, c.Save(step, nil, writeTo(step)))
		}
		assert.Len(t, names(t, dir), want)
	}
}

// A checkpoint that cannot be written changes nothing.
func TestCheckpointsSaveFails(t *testing.T) {
	dir := t.TempDir()
	c := openTest(t, dir, CheckpointOptions{Keep: 1})
	require.NoError(t, c.Save(1, nil, writeTo(1)))
	broken := errors.New("disk full")
	for _, s := range []struct {
		want  string
		data  any
		write func(dir string) error
	}{
		{"disk full", nil, func(dir string) error { return errors.Join(writeTo(2)(dir), broken) }},
		{"data: json", func() {}, writeTo(2)},
		{"sub: mode is d", nil, func(dir string) error { return os.Mkdir(filepath.Join(dir, "sub"), 0o777) }},
	} {
		assert.ErrorContains(t, c.Save(2, s.data, s.write), s.want)
		assert.Equal(t, []string{"step-000000000001"}, names(t, dir))
	}
	assert.Panics(t, func() { _ = c.Save(2, nil, func(string) error { panic("x") }) })
	assert.Equal(t, []string{"step-000000000001"}, names(t, dir))
	_, err := OpenCheckpoints(dir, CheckpointOptions{Config: func() {}})
	assert.ErrorContains(t, err, "config: json")
	_, err = OpenCheckpoints(filepath.Join(dir, lockName), CheckpointOptions{})
	assert.Error(t, err, "a file is there")
}

func TestCheckpointsOtherConfig(t *testing.T) {
	dir := t.TempDir()
	c := openTest(t, dir, CheckpointOptions{Config: newTestConfig()})
	require.NoError(t, c.Save(1, nil, writeTo(1)))
	require.NoError(t, c.Close())
	other := newTestConfig()
	other.Model.Depth = 3
	another := newTestConfig()
	another.Seed++
	for _, o := range []struct {
		want   string
		config any
	}{
		{"config.Model.Depth is 2, want 3", other},
		{"config.Seed is 9223372036854775809, want 9223372036854775810", another},
		{"config.Seed is 9223372036854775809, want none", map[string]any{"Model": newTestConfig().Model}},
		{"config.X is absent, want 5", struct {
			testConfig
			X int
		}{newTestConfig(), 5}},
		{`want "text"`, "text"},
	} {
		c := openTest(t, dir, CheckpointOptions{Config: o.config})
		_, err := c.Latest()
		assert.ErrorContains(t, err, "has another config: ")
		assert.ErrorContains(t, err, o.want)
		require.NoError(t, c.Close())
	}
	c = openTest(t, dir, CheckpointOptions{Config: map[string]any{"Seed": uint64(1<<63 + 1), "Model": map[string]int{"Depth": 2, "Dim": 64}}})
	_, err := c.Latest()
	require.NoError(t, err, "the order of keys does not matter")
}

// Damage of every kind is an error, not an older checkpoint.
func TestCheckpointsDamaged(t *testing.T) {
	for name, d := range map[string]struct {
		want   string
		damage func(dir string) error
	}{
		"truncated":       {"model.bin has 10 bytes, want", func(dir string) error { return os.Truncate(filepath.Join(dir, "model.bin"), 10) }},
		"missing":         {"model.bin is missing, want", func(dir string) error { return os.Remove(filepath.Join(dir, "model.bin")) }},
		"extra":           {"x is no file of the checkpoint", func(dir string) error { return os.WriteFile(filepath.Join(dir, "x"), nil, 0o666) }},
		"no manifest":     {"checkpoint.json is missing: the directory is no complete checkpoint", func(dir string) error { return os.Remove(filepath.Join(dir, manifestName)) }},
		"half a manifest": {"checkpoint.json: ", func(dir string) error { return os.Truncate(filepath.Join(dir, manifestName), 100) }},
		"one bit": {"model.bin is damaged: its SHA-256 is", func(dir string) error {
			content := contentOf(2, "model")
			content[500] ^= 1
			return os.WriteFile(filepath.Join(dir, "model.bin"), content, 0o666)
		}},
		"foreign": {`checkpoint.json has format "", version 0, want "colt5 checkpoint", version 1`, func(dir string) error {
			return os.WriteFile(filepath.Join(dir, manifestName), []byte(`{}`), 0o666)
		}},
		"config": {"checkpoint.json: the config has SHA-256", func(dir string) error {
			return replaceIn(filepath.Join(dir, manifestName), `"Depth": 2`, `"Depth": 3`)
		}},
		"later": {`checkpoint.json has format "colt5 checkpoint", version 2, want`, func(dir string) error {
			return replaceIn(filepath.Join(dir, manifestName), `"version": 1`, `"version": 2`)
		}},
		"other step": {"is of step 3, want 2", func(dir string) error {
			return replaceIn(filepath.Join(dir, manifestName), `"step": 2`, `"step": 3`)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			c := openTest(t, t.TempDir(), CheckpointOptions{Config: newTestConfig()})
			require.NoError(t, c.Save(1, nil, writeTo(1)))
			require.NoError(t, c.Save(2, nil, writeTo(2)))
			path := filepath.Join(c.dir, checkpointName(2))
			require.NoError(t, d.damage(path))
			if name != "other step" {
				_, err := OpenCheckpoint(path)
				require.ErrorContains(t, err, d.want)
			}
			_, err := c.Latest()
			require.ErrorContains(t, err, d.want)
			assert.ErrorContains(t, err, "step-000000000002")
			require.NoError(t, os.RemoveAll(path))
			latest, err := c.Latest()
			require.NoError(t, err)
			assert.EqualValues(t, 1, latest.Step)
		})
	}
}

func replaceIn(path, old, replacement string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if !strings.Contains(string(text), old) {
		return fmt.Errorf("%s has no %s", path, old)
	}
	return os.WriteFile(path, []byte(strings.Replace(string(text), old, replacement, 1)), 0o666)
}

// One process writes at a time, and it removes only what killed processes have left.
func TestCheckpointsLock(t *testing.T) {
	dir := t.TempDir()
	foreign := []string{".checkpoint-0123456789abcdef.tmp.bak", ".checkpoint-0123.tmp", "notes", "step-1"}
	for _, name := range append([]string{".checkpoint-0123456789abcdef.tmp"}, foreign...) {
		require.NoError(t, os.MkdirAll(filepath.Join(dir, name, "x"), 0o777))
	}
	c := openTest(t, dir, CheckpointOptions{})
	assert.ElementsMatch(t, foreign, names(t, dir))
	_, err := OpenCheckpoints(dir, CheckpointOptions{})
	require.ErrorIs(t, err, atomicfile.ErrLocked)
	assert.ErrorContains(t, err, "another run writes checkpoints there")
	_, err = c.Latest()
	require.ErrorIs(t, err, ErrNoCheckpoint)
	require.NoError(t, c.Close())
	require.NoError(t, c.Close())
	require.NoError(t, openTest(t, dir, CheckpointOptions{}).Close())
}

// writeCheckpoints writes checkpoints of steps that follow each other, and prints each step after its Save.
func writeCheckpoints(dir string) {
	fail := func(err error) {
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	}
	c, err := OpenCheckpoints(dir, CheckpointOptions{Config: newTestConfig(), Keep: 2})
	fail(err)
	step := int64(0)
	latest, err := c.Latest()
	if !errors.Is(err, ErrNoCheckpoint) {
		fail(err)
		step = latest.Step
	}
	for {
		step++
		fail(c.Save(step, step, writeTo(step)))
		fmt.Println(step)
	}
}

// Processes that are killed at random moments leave a directory from which the next one resumes: with the last
// checkpoint that was reported, or a later one.
func TestCheckpointsKilled(t *testing.T) {
	kills := 20
	if testing.Short() {
		kills = 4
	}
	dir, random := t.TempDir(), rand.New(rand.NewPCG(1, 2))
	reported := int64(0)
	for range kills {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "TRAIN_TEST_CHECKPOINTS="+dir)
		out, err := cmd.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, cmd.Start())
		lines := bufio.NewScanner(out)
		var stop *time.Timer
		for lines.Scan() {
			step, err := strconv.ParseInt(lines.Text(), 10, 64)
			if err != nil {
				cmd.Process.Kill()
				require.NoError(t, err)
			}
			if stop == nil {
				require.Greater(t, step, reported)
				stop = time.AfterFunc(time.Duration(random.Int64N(int64(30*time.Millisecond))), func() { cmd.Process.Kill() })
			}
			reported = step
		}
		assert.Error(t, cmd.Wait(), "killed")
		require.NotNil(t, stop)

		latest, err := OpenCheckpoint(dir)
		require.NoError(t, err)
		require.GreaterOrEqual(t, latest.Step, reported)
		require.LessOrEqual(t, latest.Step, reported+1)
		require.NoError(t, latest.CheckConfig(newTestConfig()))
		got, err := os.ReadFile(latest.File("model.bin"))
		require.NoError(t, err)
		require.Equal(t, contentOf(latest.Step, "model"), got)
		c, err := OpenCheckpoints(dir, CheckpointOptions{Config: newTestConfig(), Keep: 2})
		require.NoError(t, err)
		require.NoError(t, c.Close())
		for _, name := range names(t, dir) {
			require.Regexp(t, checkpointPattern, name, "left by a killed process")
			_, err := OpenCheckpoint(filepath.Join(dir, name))
			require.NoError(t, err)
		}
	}
}
