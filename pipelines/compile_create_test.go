package pipelines

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"sync"
	"time"

	"github.com/colt5-vulkan/colt5/shaders"
	"github.com/colt5-vulkan/colt5/vk"
)

// compiler compiles kernels concurrently, each once: kernels of the same SPIR-V, specialisation constants and subgroup
// settings are one kernel, and those of earlier runs count too. Kernels stay open until close, because several objects
// may hold one.
type compiler struct {
	dev   *vk.Device
	caps  vk.Caps
	only  *regexp.Regexp // the names of the kernels to compile
	short bool           // fewer configs
	log   *os.File       // nil: no log
	jobs  []func() error

	mu      sync.Mutex
	earlier *results
	created map[string]*creation     // by creationKey
	kernels map[*vk.Kernel]*creation // the same
	objects []io.Closer
	made    []compiled

	placeholder creation // stands for the kernels that only excludes
}

// creation is a kernel that was created, or the failure.
type creation struct {
	once   sync.Once
	name   string
	kernel *vk.Kernel // that of another shader if an earlier run has compiled this one
	err    error
	reused bool
	result
	noted bool // a config selected it
}

// rejected returns the names of the kernels that were compiled and not selected, with the longest time of each.
func (c *compiler) rejected() map[string]float64 {
	seconds := map[string]float64{}
	for _, r := range c.created {
		if !r.noted && r.err == nil {
			seconds[r.name] = max(seconds[r.name], r.Seconds)
		}
	}
	return seconds
}

// create replaces vk.Device.NewKernel in the package.
func (c *compiler) create(dev *vk.Device, config vk.KernelConfig) (*vk.Kernel, error) {
	if !c.only.MatchString(config.Name) {
		c.placeholder.once.Do(func() { c.placeholder.kernel, c.placeholder.err = standIn(dev) })
		return c.placeholder.kernel, c.placeholder.err
	}
	key := creationKey(config)
	c.mu.Lock()
	r := c.created[key]
	if r == nil {
		r = &creation{name: config.Name}
		c.created[key] = r
	}
	c.mu.Unlock()
	r.once.Do(func() { c.compileOnce(r, config) })
	return r.kernel, r.err
}

// compileOnce compiles a kernel, or takes the result of an earlier run.
func (c *compiler) compileOnce(r *creation, config vk.KernelConfig) {
	key := resultKey(c.dev.Info(), config)
	if r.result, r.reused = c.earlier.rows[key]; r.reused {
		r.kernel, r.err = standIn(c.dev)
	} else {
		what := fmt.Sprintf("%s %v subgroups of %d", config.Name, config.Spec, config.SubgroupSize)
		c.logf("start   %s", what)
		r.Key = key
		r.Seconds = cpuTime(func() { r.kernel, r.err = c.dev.NewKernel(config) }).Seconds()
		c.logf("%6.2f s %s", r.Seconds, what)
		if r.err == nil {
			r.err = r.readStats(c.caps)
		}
	}
	if r.err != nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.kernels[r.kernel] = r
	if !r.reused {
		r.err = c.earlier.add(r.result)
	}
}

// standIn returns a small kernel in place of one that is not compiled.
func standIn(dev *vk.Device) (*vk.Kernel, error) {
	code, err := shaders.SPV("permute")
	if err != nil {
		return nil, err
	}
	return dev.NewKernel(vk.KernelConfig{Name: "stand-in", Code: code})
}

// readStats reads the statistics of the kernel.
func (r *creation) readStats(caps vk.Caps) error {
	r.Stats = map[string]float64{}
	if !caps.PipelineStatistics {
		return nil
	}
	stats, err := r.kernel.CompilerStats()
	for _, s := range stats {
		r.Stats[s.Name] = s.Value
	}
	return err
}

// stats replaces vk.Kernel.CompilerStats in the package.
func (c *compiler) stats(k *vk.Kernel) (list []vk.CompilerStat, err error) {
	if k == c.placeholder.kernel {
		return k.CompilerStats()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for name, value := range c.kernels[k].Stats {
		list = append(list, vk.CompilerStat{Name: name, Value: value})
	}
	return list, nil
}

func (c *compiler) logf(format string, args ...any) {
	if c.log != nil {
		fmt.Fprintf(c.log, format+"\n", args...)
	}
}

// find returns the creation of a kernel, a new one for a kernel that another package created, or nil for the
// placeholder.
func (c *compiler) find(k *vk.Kernel) (*creation, error) {
	if k == c.placeholder.kernel {
		return nil, nil
	}
	r := c.kernels[k]
	if r != nil {
		return r, nil
	}
	r = &creation{name: k.Name(), kernel: k}
	c.kernels[k] = r
	return r, r.readStats(c.caps)
}

// close closes all objects. The first one that holds a kernel closes it.
func (c *compiler) close() (errs []error) {
	for _, r := range c.objects {
		errs = append(errs, r.Close())
	}
	if k := c.placeholder.kernel; k != nil {
		errs = append(errs, k.Close())
	}
	for k := range c.kernels {
		errs = append(errs, k.Close()) // candidates that were not chosen
	}
	return slices.DeleteFunc(errs, func(err error) bool { return err == nil })
}

// creationKey identifies what the driver compiles: constants that the SPIR-V does not declare do not count.
func creationKey(c vk.KernelConfig) string {
	spec := map[uint32]uint32{}
	for _, id := range specIDs(c.Code) {
		if value, ok := c.Spec[id]; ok {
			spec[id] = value
		}
	}
	return fmt.Sprint(c.SubgroupSize, c.FullSubgroups, spec, string(c.Code))
}

// specIDs returns the ids of the specialisation constants of a SPIR-V module.
func specIDs(code []byte) (ids []uint32) {
	const decorate, specID, header = 71, 1, 5 * 4
	for rest := code[min(header, len(code)):]; len(rest) >= 4; {
		op := binary.LittleEndian.Uint32(rest)
		size := 4 * int(op>>16)
		if size == 0 || size > len(rest) {
			return ids
		}
		if op&0xffff == decorate && size == 16 && binary.LittleEndian.Uint32(rest[8:]) == specID {
			ids = append(ids, binary.LittleEndian.Uint32(rest[12:]))
		}
		rest = rest[size:]
	}
	return ids
}

// maxCompileTime is the most CPU time that the compilation of a kernel may take. It delays the first call of a module.
const maxCompileTime = 5 * time.Second
