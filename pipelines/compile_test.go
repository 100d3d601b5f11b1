package pipelines

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/shaders"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestCompiles compiles all kernels that the library selects on the device and runs none, so a driver without hardware
// is enough. No kernel may spill registers to memory, where the driver reports that, or take more than maxCompileTime.
// `make test-compilers` runs this for many chips. The configs are in compile_kernels_test.go. COLT5_COMPILE_ONLY is a
// regular expression for the names of the kernels to compile; by default all are. COLT5_COMPILE_LOG is a file that gets
// a line before and after each kernel, which tells where a driver crashed. COLT5_COMPILE_RESULTS is a file that keeps the
// results: what it has, for the same SPIR-V, constants, device and driver, is not compiled again. COLT5_COMPILE_FAMILIES is a
// file that gets a line for each shader.
func TestCompiles(t *testing.T) {
	if gputest.Device(t).Caps().CPU {
		t.Skip("the other tests compile all kernels for CPU drivers")
	}
	dev, err := vk.Open(vk.Options{Profile: true, CacheDir: "-"})
	require.NoError(t, err)
	defer func() { assert.NoError(t, dev.Close()) }()

	only, err := regexp.Compile(os.Getenv("COLT5_COMPILE_ONLY"))
	require.NoError(t, err)
	c := &compiler{dev: dev, caps: dev.Caps(), only: only, short: testing.Short(), created: map[string]*creation{}, kernels: map[*vk.Kernel]*creation{}}
	c.earlier, err = openResults(os.Getenv("COLT5_COMPILE_RESULTS"))
	require.NoError(t, err)
	defer func() { assert.NoError(t, c.earlier.close()) }()
	if name := os.Getenv("COLT5_COMPILE_LOG"); name != "" {
		c.log, err = os.Create(name)
		require.NoError(t, err)
		defer c.log.Close()
	}
	createKernel, compilerStats = c.create, c.stats
	discardKernel = func(*vk.Kernel) error { return nil }
	defer func() {
		createKernel, compilerStats, discardKernel = (*vk.Device).NewKernel, (*vk.Kernel).CompilerStats, (*vk.Kernel).Close
	}()
	for _, add := range compileKernels {
		add(c)
	}
	start := time.Now()
	c.run(t)
	gputest.CountCase()
	driver, known := compilers[dev.Info().Driver]
	t.Logf("%s, %s, %.0f s: %s\n%s", dev.Info().Name, dev.Info().DriverInfo, time.Since(start).Seconds(), driver.summary(c.made), driver.table(c.made))

	if name := os.Getenv("COLT5_COMPILE_FAMILIES"); name != "" {
		require.NoError(t, os.WriteFile(name, []byte(driver.families(c.made, shaderStems(t))), 0o644))
	}
	for _, k := range c.made {
		if list := driver.nonzeroSpills(k.stats); list != nil {
			t.Errorf("%s with %s: %s", k.name, k.config, strings.Join(list, ", "))
		}
		if k.seconds > maxCompileTime.Seconds() {
			t.Errorf("%s with %s: %.1f s to compile", k.name, k.config, k.seconds)
		}
		if list := driver.unreported(k.stats); known && list != nil {
			t.Errorf("%s with %s: the driver does not report %s", k.name, k.config, strings.Join(list, ", "))
		}
	}
	for name, seconds := range c.rejected() {
		if seconds > maxCompileTime.Seconds() {
			t.Errorf("%s, which was not selected: %.1f s to compile", name, seconds)
		}
	}
	if only.String() != "" {
		return
	}
	names, err := shaders.Names()
	require.NoError(t, err)
	missing := c.missing(names)
	t.Logf("not selected: %s", strings.Join(missing, " ")) // scripts/test-compilers compares the lists of all chips
	for _, name := range missing {
		if slices.Contains(selectedByDevice, name) {
			continue
		}
		_, err := newKernel(dev, name, nil) // unsupported by this device
		assert.ErrorIs(t, err, vk.ErrUnsupported, "no config of compile_kernels_test.go compiles %s", name)
	}
}

// shaderStems lists the stems of the shaders.
func shaderStems(t *testing.T) (stems []string) {
	files, err := filepath.Glob("../shaders/src/*.comp")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, f := range files {
		stems = append(stems, strings.TrimSuffix(filepath.Base(f), ".comp"))
	}
	return stems
}

// zeroFields matches the fields of a config that are zero.
var zeroFields = regexp.MustCompile(`\b[A-Za-z]\w*:(false|0|)( |}$)`)

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

// note adds a kernel to the list of those that are selected.
func (c *compiler) note(k *vk.Kernel, config string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	r, err := c.find(k)
	if r == nil || r.noted || err != nil {
		return err
	}
	r.noted = true
	c.made = append(c.made, compiled{name: r.name, config: config, seconds: r.Seconds, reused: r.reused, stats: r.Stats})
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
	return slices.DeleteFunc(slices.Clone(names), func(n string) bool { return made[n] || strings.Contains(n+"_", "_cpu_") })
}

// TestCompilesCanFail checks that variants that no config compiles are found, and what counts as the same kernel.
func TestCompilesCanFail(t *testing.T) {
	names := []string{"a", "a_64", "a_cpu", "a_cpu_b", "b", "b_sort", "bee"}
	for kernel, want := range map[string]string{"a": "a", "a_narrow": "a", "a_64_narrow": "a_64", "b_sort": "b_sort", "b 64x64": "b", "be": "", "c": ""} {
		assert.Equal(t, want, variant(kernel, names), kernel)
	}
	made := []compiled{{name: "a_narrow"}, {name: "b"}}
	assert.Equal(t, []string{"a_64", "b_sort", "bee"}, (&compiler{made: made}).missing(names))

	code, err := shaders.SPV("scatter")
	require.NoError(t, err)
	config := vk.KernelConfig{Code: code, Spec: map[uint32]uint32{shaders.ScatterAdd: 1}}
	same := vk.KernelConfig{Name: "another", Code: code, Spec: map[uint32]uint32{shaders.ScatterAdd: 1, 999: 1}}
	assert.Equal(t, creationKey(config), creationKey(same), "no constant 999")
	for _, other := range []vk.KernelConfig{
		{Code: code}, {Code: code, Spec: map[uint32]uint32{shaders.ScatterAdd: 0}},
		{Code: code, Spec: config.Spec, SubgroupSize: 8}, {Code: code, Spec: config.Spec, FullSubgroups: true},
	} {
		assert.NotEqual(t, creationKey(config), creationKey(other))
	}
}
