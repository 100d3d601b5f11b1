package soak

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/colt5-vulkan/colt5/internal/cli/command"
	"github.com/colt5-vulkan/colt5/internal/cli/commandtest"
	"github.com/colt5-vulkan/colt5/internal/cli/progress"
	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/pipelines"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestMain(m *testing.M) { gputest.Main(m) }

var program = commandtest.New("vkbench", Command)

func TestUsage(t *testing.T) {
	program.RejectsUsage(t, [][2]string{
		{"soak now", "takes no arguments"},
		{"soak -for 0", "-for is 0s, want more than 0"},
		{"soak -cycles 0", "-cycles is 0, want at least 1"},
		{"soak -only topq", `-only: there is no case "topq", did you mean "topk"?`},
		{"soak -o xml -only topk", `-o is "xml"`},
	})
}

// TestSoak runs cases of each kind. A result that was compared proves that the second round was reached.
func TestSoak(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 8 s")
	}
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	code, out, remarks := program.RunOnDevice(t, "soak", "-only", "rmsnorm_module,save_load", "-cycles", "2", "-o", "json")
	require.Equal(t, command.ExitOK, code, remarks)
	rows := commandtest.Objects(t, out)
	require.Len(t, rows, 2)
	assert.Equal(t, 24.0, rows[1]["runs"])
	assert.Positive(t, rows[1]["device_bytes"])
	assert.Contains(t, remarks, "2 cycles, 24 runs of 2 cases in 3 sizes each; 18 results were compared with an earlier one.")
	assert.Contains(t, remarks, "Growth was not examined: that takes 16 cycles.")
}

// TestEveryJob runs jobs once on one device: those that are no cases of bench, whose tests run these; in make test-full all.
func TestEveryJob(t *testing.T) {
	if testing.Short() {
		t.Skip("takes several seconds")
	}
	dev := gputest.Device(t)
	before := dev.Stats()
	for _, j := range allJobs() {
		if gputest.Reduced() && j.name != "generate" && j.name != "save_load" {
			continue
		}
		gputest.CountCase()
		_, err := j.run(t.Context(), dev, pipelines.F32, 0)
		require.NoError(t, err, j.name)
		after := dev.Stats()
		assert.Equal(t, []int64{before.Buffers, before.Kernels, before.CommandLists}, []int64{after.Buffers, after.Kernels, after.CommandLists}, j.name)
	}
}

// fake returns a job with a result of its own, and calls f in its runs.
func fake(name string, f func(dev *vk.Device, sum *digest) error) job {
	return job{name: name, sizes: [sizes][]int{{1}, {2}, {3}}, run: func(_ context.Context, dev *vk.Device, _ pipelines.DType, size int) (digest, error) {
		sum := digest{byte(size)}
		return sum, f(dev, &sum)
	}}
}

// soakOf returns a soak of jobs on a real device.
func soakOf(t *testing.T, cycles int, jobs ...job) *soak {
	gputest.Device(t)
	s := &soak{
		jobs: jobs, cycles: cycles, first: map[string]digest{}, drain: (*vk.Device).DrainMessages,
		open: func() (*vk.Device, error) { return vk.Open(vk.Options{CacheDir: "-"}) },
	}
	s.seed(1)
	return s
}

// try runs a soak, and returns its error and its summary.
func try(s *soak) (summary string, err error) {
	var out bytes.Buffer
	ctx := context.Background()
	for len(s.readings) < s.cycles && err == nil {
		err = s.cycle(ctx, progress.New(&out, 1))
	}
	var remarks []string
	growth := s.growth(func(format string, args ...any) { remarks = append(remarks, fmt.Sprintf(format, args...)) })
	return strings.Join(remarks, "\n"), errors.Join(err, growth)
}

func good(*vk.Device, *digest) error { return nil }

// TestFailures injects each kind of failure: the soak must find it. The last case has none.
func TestFailures(t *testing.T) {
	runs := 0
	for name, c := range map[string]struct {
		job  func(dev *vk.Device, sum *digest) error
		want string
	}{
		"changed bit": {func(_ *vk.Device, sum *digest) error {
			if runs++; runs == 19 {
				sum[31] ^= 1
			}
			return nil
		}, "the result has other bits than in an earlier run"},
		"error": {func(*vk.Device, *digest) error {
			if runs++; runs == 19 {
				return errors.New("it failed")
			}
			return nil
		}, "it failed"},
		"buffer": {func(dev *vk.Device, _ *digest) error {
			if runs++; runs == 19 {
				_, err := dev.NewBuffer("leak", 4)
				return err
			}
			return nil
		}, "leaves open: 1 buffer, 0 kernels, 0 command lists"},
	} {
		runs = 0
		_, err := try(soakOf(t, 4, fake("good", good), fake("bad", c.job)))
		require.ErrorContains(t, err, c.want, name)
		assert.Regexp(t, `^cycle [2-4]: bad [123] `, err.Error(), name)
	}
	s := soakOf(t, 4, fake("good", good))
	s.drain = func(*vk.Device) (int, string) { return 1, "VUID-1: wrong" }
	_, err := try(s)
	assert.ErrorContains(t, err, "1 validation message:\nVUID-1: wrong")
	_, err = try(soakOf(t, 4, fake("good", good)))
	assert.NoError(t, err)
}

var leaked [][]byte

// TestLeak leaks memory, goroutines and files in every run.
func TestLeak(t *testing.T) {
	if math.IsNaN(processNow()) {
		t.Skip("the memory of a process is not known on this system")
	}
	defer func() { leaked = nil }()
	stop := make(chan bool)
	defer close(stop)
	var files []*os.File
	defer func() {
		for _, f := range files {
			f.Close()
		}
	}()
	for want, leak := range map[string]func(*vk.Device, *digest) error{
		"the memory of the process grew": func(*vk.Device, *digest) error {
			leaked = append(leaked, bytes.Repeat([]byte{1}, 1<<17)) // 1.5 MiB in a cycle
			return nil
		},
		"the number of goroutines grew": func(*vk.Device, *digest) error {
			go func() { <-stop }()
			return nil
		},
		"the number of open files grew": func(*vk.Device, *digest) error {
			f, err := os.Open(os.DevNull)
			files = append(files, f)
			return err
		},
	} {
		summary, err := try(soakOf(t, 24, fake("leak", leak)))
		require.ErrorContains(t, err, want)
		assert.Contains(t, summary, want)
	}
}

// TestGrowth has readings that grow and readings that do not.
func TestGrowth(t *testing.T) {
	const n = 60
	noise := func(i int) float64 { return float64(i*7919%13) - 6 } // -6 to 6
	for name, c := range map[string]struct {
		bytes func(i int) float64
		fails bool
	}{
		"constant":            {func(i int) float64 { return 1e8 }, false},
		"noise":               {func(i int) float64 { return 1e8 + 1e6*noise(i) }, false},
		"a leak":              {func(i int) float64 { return 1e8 + mib/8*float64(i) }, true},
		"a leak in noise":     {func(i int) float64 { return 1e8 + 1e5*noise(i) + mib/8*float64(i) }, true},
		"less than tolerated": {func(i int) float64 { return 1e8 + mib/64*float64(i) }, false},
		"caches that fill":    {func(i int) float64 { return 1e8 * (2 - math.Exp(-float64(i)/5)) }, false},
		"one step":            {func(i int) float64 { return 1e8 + 1e7*float64(i/(3*n/4)) }, false},
		"less and less":       {func(i int) float64 { return 1e9 - mib*float64(i) }, false},
		"an outlier":          {func(i int) float64 { return 1e8 + 1e9*float64(i/(n-1)) }, false},
	} {
		s := &soak{}
		for i := range n {
			r := reading{}
			r[heapBytes] = c.bytes(i)
			s.readings = append(s.readings, r)
		}
		err := s.growth(func(string, ...any) {})
		if c.fails {
			assert.ErrorContains(t, err, "the C heap grew by ", name)
			assert.ErrorContains(t, err, "want at most 1 MiB", name)
		} else {
			assert.NoError(t, err, name)
		}
	}
	s := &soak{}
	for range n {
		s.readings = append(s.readings, reading{math.NaN()})
	}
	var text string
	require.NoError(t, s.growth(func(format string, args ...any) { text += fmt.Sprintf(format, args...) }))
	assert.Contains(t, text, "Unknown here: the memory of the process.")
}

// TestTheilSen compares with a slope that is known.
func TestTheilSen(t *testing.T) {
	y := []float64{1, 3, 5, 7, 9, 11, 13, 100, 17, 19}
	got := theilSen(y)
	assert.Equal(t, 2.0, got.slope)
	assert.LessOrEqual(t, got.low, 2.0)
	assert.GreaterOrEqual(t, got.high, 2.0)
	assert.Equal(t, trend{}, theilSen(make([]float64, 16)))
}

// TestProcess: memory that is allocated is seen.
func TestProcess(t *testing.T) {
	before, threads, files := readProcess()
	if math.IsNaN(before) {
		t.Skip("the memory of a process is not known on this system")
	}
	assert.Positive(t, threads)
	assert.Positive(t, files)
	data := bytes.Repeat([]byte{1}, 1<<26)
	after, _, _ := readProcess()
	assert.Greater(t, after, before+1<<25)
	assert.Len(t, data, 1<<26)
}

// TestLimits: time and cycles end a run, whichever is first.
func TestLimits(t *testing.T) {
	s := &soak{cycles: 4, limit: time.Hour}
	assert.False(t, s.done(2*time.Hour), "there is at least one cycle")
	s.readings = make([]reading, 1)
	assert.True(t, s.done(time.Hour))
	assert.False(t, s.done(time.Minute))
	s.readings = make([]reading, 4)
	assert.True(t, s.done(0))
	s.cycles = 0
	assert.False(t, s.done(0))
}

// TestRounds: every job runs in every size before one runs again, and the order depends on the seed.
func TestRounds(t *testing.T) {
	order := func(seed uint64) (titles []string) {
		s := &soak{jobs: []job{fake("a", good), fake("b", good), fake("c", good), fake("d", good)}}
		s.seed(seed)
		for range 2 {
			seen := map[string]bool{}
			for range 4 * sizes {
				v := s.next()
				seen[v.title(v.size)] = true
				titles = append(titles, v.title(v.size))
			}
			assert.Len(t, seen, 4*sizes)
		}
		return titles
	}
	assert.Equal(t, order(1), order(1))
	assert.NotEqual(t, order(1), order(2))
	assert.NotEqual(t, order(1)[:4*sizes], order(1)[4*sizes:])
}

// TestEveryModule: what constructs modules in colt5 is called in jobs.
func TestEveryModule(t *testing.T) {
	text := func(pattern string) (all string) {
		files, err := filepath.Glob(pattern)
		require.NoError(t, err)
		for _, f := range files {
			if !strings.HasSuffix(f, "_test.go") {
				data, err := os.ReadFile(f)
				require.NoError(t, err)
				all += string(data)
			}
		}
		return all
	}
	used := text("*.go") + text("../cases/*.go") + text("../examples/*.go")
	found := regexp.MustCompile(`(?m)^func (New[A-Z]\w*)\(`).FindAllStringSubmatch(text("../../../../colt5/*.go"), -1)
	assert.Greater(t, len(found), 18)
	for _, f := range found {
		if f[1] != "NewTensor" && f[1] != "NewGradientsAt" { // made by package scope and by train.Trainer
			assert.Contains(t, used, "colt5."+f[1]+"(", "no job uses it")
		}
	}
}

// TestInterrupted: what was done before an interruption is written.
func TestInterrupted(t *testing.T) {
	gputest.Device(t)
	ctx, stop := context.WithCancel(t.Context())
	stop()
	code, out, remarks := program.RunContext(ctx, "soak", "-only", "topk", "-o", "json")
	assert.Equal(t, command.ExitInterrupted, code)
	assert.Empty(t, commandtest.Objects(t, out))
	assert.Contains(t, remarks, "0 cycles, 0 runs of 1 case")
	assert.True(t, strings.HasSuffix(remarks, "vkbench: interrupted\n"), remarks)
}

// processNow is the memory of the process.
func processNow() float64 {
	bytes, _, _ := readProcess()
	return bytes
}
