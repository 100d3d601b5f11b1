package pipelines

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/shaders"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestCompiles compiles all kernels for the device and runs none, so a driver without hardware is enough. No kernel may
// spill registers, where the driver reports that. `make test-amd` runs this for several generations of AMD GPUs. The
// configs are in compile_kernels_test.go. COLT5_COMPILE_ONLY is a regular expression for the names of the kernels to
// compile; by default all are.
func TestCompiles(t *testing.T) {
	if gputest.Device(t).Caps().CPU {
		t.Skip("the other tests compile all kernels for CPU drivers")
	}
	dev, err := vk.Open(vk.Options{Profile: true, CacheDir: "-"})
	require.NoError(t, err)
	defer func() { assert.NoError(t, dev.Close()) }()

	only, err := regexp.Compile(os.Getenv("COLT5_COMPILE_ONLY"))
	require.NoError(t, err)
	c := &compiler{dev: dev, caps: dev.Caps(), only: only, created: map[string]*creation{}}
	createKernel = c.create
	defer func() { createKernel = (*vk.Device).NewKernel }()
	for _, add := range compileKernels {
		add(c)
	}
	start := time.Now()
	c.run(t)
	gputest.CountCase()
	t.Logf("%s, %s: %d kernels in %.1f s\n%s", dev.Info().Name, dev.Info().DriverInfo, len(c.made), time.Since(start).Seconds(), c.table())

	for _, k := range c.made {
		assert.Empty(t, spills(k.stats), "%s with %s", k.name, k.config)
	}
	if dev.Info().Driver == "radv" {
		for _, name := range spillStats {
			assert.Contains(t, c.made[0].stats, name, "the driver reports spills")
		}
	}
	if only.String() != "" {
		return
	}
	names, err := shaders.Names()
	require.NoError(t, err)
	for _, name := range c.missing(names) {
		_, err := newKernel(dev, name, nil) // unsupported by this device
		assert.ErrorIs(t, err, vk.ErrUnsupported, "no config of compile_kernels_test.go compiles %s", name)
	}
}

// compiled is the result for one kernel.
type compiled struct {
	name, config string             // of the kernel
	seconds      float64            // of CPU time to compile it
	stats        map[string]float64 // empty where the driver has none
}

// zeroFields matches the fields of a config that are zero.
var zeroFields = regexp.MustCompile(`\b\w+:(false|0|)( |}$)`)

// compile adds a job for each config. Open makes the pipeline object of a config, kernels returns the kernels that it
// may use on the device.
func compile[C any, R io.Closer](c *compiler, open func(*vk.Device, C) (R, error), kernels func(R) ([]*vk.Kernel, error), configs ...C) {
	for _, config := range configs {
		c.jobs = append(c.jobs, func() error {
			label := strings.Trim(zeroFields.ReplaceAllString(fmt.Sprintf("%+v", config), ""), "{} ")
			r, err := open(c.dev, config)
			if err != nil {
				return fmt.Errorf("%s: %w", label, err)
			}
			c.mu.Lock()
			c.objects = append(c.objects, r)
			c.mu.Unlock()
			list, err := kernels(r)
			if err != nil {
				return fmt.Errorf("%s: %w", label, err)
			}
			for _, k := range list {
				if err := c.note(k, label); err != nil {
					return fmt.Errorf("%s: %w", label, err)
				}
			}
			return nil
		})
	}
}

// one returns the only kernel of an object.
func one(k *vk.Kernel, err error) ([]*vk.Kernel, error) { return []*vk.Kernel{k}, err }

// each returns the distinct kernels of an object that get returns for some keys.
func each[K any](get func(K) (*vk.Kernel, error), keys ...K) (list []*vk.Kernel, err error) {
	for _, key := range keys {
		k, err := get(key)
		if err != nil {
			return nil, err
		}
		list = append(list, k)
	}
	return distinct(list...), nil
}

func (c *compiler) note(k *vk.Kernel, config string) error {
	c.mu.Lock()
	r := c.find(k)
	first := r != nil && !r.noted
	if first {
		r.noted = true
	}
	c.mu.Unlock()
	if !first {
		return nil
	}
	made := compiled{name: k.Name(), config: config, seconds: r.seconds, stats: map[string]float64{}}
	if c.caps.PipelineStatistics {
		stats, err := k.Stats()
		if err != nil {
			return err
		}
		for _, s := range stats {
			made.stats[s.Name] = s.Value
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.made = append(c.made, made)
	return nil
}

func (c *compiler) run(t *testing.T) {
	jobs := make(chan func() error)
	var wait sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wait.Add(1)
		go func() {
			defer wait.Done()
			for job := range jobs {
				assert.NoError(t, job())
			}
		}()
	}
	for _, job := range c.jobs {
		jobs <- job
	}
	close(jobs)
	wait.Wait()
	assert.Empty(t, c.close())
	require.NotEmpty(t, c.made)
}

// variant returns the SPIR-V variant of a kernel. The name of a kernel is that of the variant, or starts with it and an
// underscore or a space.
func variant(kernel string, names []string) string {
	best := ""
	for _, n := range names {
		if (kernel == n || strings.HasPrefix(kernel, n+"_") || strings.HasPrefix(kernel, n+" ")) && len(n) > len(best) {
			best = n
		}
	}
	return best
}

// missing lists the variants that no kernel was compiled from, except those for CPU drivers.
func (c *compiler) missing(names []string) []string {
	made := map[string]bool{}
	for _, k := range c.made {
		made[variant(k.name, names)] = true
	}
	return slices.DeleteFunc(slices.Clone(names), func(n string) bool { return made[n] || strings.HasSuffix(n, "_cpu") })
}

// spillStats are the statistics of RADV about register spills.
var spillStats = []string{"Spilled SGPRs", "Spilled VGPRs", "Scratch size"}

// spills lists the statistics about register spills that are not zero, under the names of several drivers.
func spills(stats map[string]float64) (list []string) {
	for name, value := range stats {
		lower := strings.ToLower(name)
		if value != 0 && (strings.Contains(lower, "spill") || strings.Contains(lower, "scratch") || lower == "fill count") {
			list = append(list, fmt.Sprintf("%s: %g", name, value))
		}
	}
	slices.Sort(list)
	return list
}

// tableStats are the columns of the table, under the names of RADV and the NVIDIA driver.
var tableStats = []string{
	"VGPRs", "SGPRs", "LDS size", "Subgroups per SIMD", "Code size", "Spilled VGPRs", "Spilled SGPRs", "Scratch size", "Register Count", "Binary Size", "Stack Size",
}

// table formats a row for each kernel name: the number of kernels, the range of each statistic, and the config with the
// largest value of the first one.
func (c *compiler) table() string {
	columns := slices.DeleteFunc(slices.Clone(tableStats), func(name string) bool {
		_, ok := c.made[0].stats[name]
		return !ok
	})
	if len(columns) == 0 {
		return "the driver reports no statistics"
	}
	var out bytes.Buffer
	w := tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "kernel\tnumber\t%s\tmost %s\n", strings.Join(columns, "\t"), columns[0])
	byName := map[string][]compiled{}
	for _, k := range c.made {
		byName[k.name] = append(byName[k.name], k)
	}
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		list := byName[name]
		slices.SortFunc(list, func(a, b compiled) int {
			return cmp.Or(cmp.Compare(b.stats[columns[0]], a.stats[columns[0]]), cmp.Compare(a.config, b.config))
		})
		fmt.Fprintf(w, "%s\t%d", name, len(list))
		for _, column := range columns {
			least, most := math.Inf(1), math.Inf(-1)
			for _, k := range list {
				least, most = min(least, k.stats[column]), max(most, k.stats[column])
			}
			if least == most {
				fmt.Fprintf(w, "\t%g", most)
			} else {
				fmt.Fprintf(w, "\t%g-%g", least, most)
			}
		}
		fmt.Fprintf(w, "\t%s\n", list[0].config)
	}
	w.Flush()
	return out.String()
}

// TestCompilesCanFail checks that spills, and variants that no config compiles, are found.
func TestCompilesCanFail(t *testing.T) {
	assert.Empty(t, spills(map[string]float64{"VGPRs": 256, "Spilled SGPRs": 0, "Spilled VGPRs": 0, "Scratch size": 0, "Fill Count": 0}))
	assert.Equal(t, []string{"Fill Count: 3", "Scratch size: 16", "Spilled VGPRs: 1"},
		spills(map[string]float64{"Spilled VGPRs": 1, "Scratch size": 16, "Fill Count": 3, "VGPRs": 9}))

	names := []string{"a", "a_64", "a_cpu", "b", "b_sort", "bee"}
	for kernel, want := range map[string]string{"a": "a", "a_narrow": "a", "a_64_narrow": "a_64", "b_sort": "b_sort", "b 64x64": "b", "be": "", "c": ""} {
		assert.Equal(t, want, variant(kernel, names), kernel)
	}
	made := []compiled{{name: "a_narrow"}, {name: "b"}}
	assert.Equal(t, []string{"a_64", "b_sort", "bee"}, (&compiler{made: made}).missing(names))
}
