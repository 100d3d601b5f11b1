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
// settings are one kernel. They stay open until close, because several objects may hold one, and because the choice
// between candidates reads their statistics.
type compiler struct {
	dev   *vk.Device
	caps  vk.Caps
	only  *regexp.Regexp // the names of the kernels to compile
	short bool           // fewer configs
	log   *os.File       // nil: no log
	jobs  []func() error

	mu      sync.Mutex
	created map[string]*creation
	objects []io.Closer
	made    []compiled

	placeholder creation // stands for the kernels that only excludes
}

// creation is a kernel that was created, or the failure.
type creation struct {
	once    sync.Once
	name    string
	kernel  *vk.Kernel
	err     error
	seconds float64 // of CPU time
	noted   bool    // a config selected it
}

// rejected returns the names of the kernels that were compiled and not selected, with the longest time of each.
func (c *compiler) rejected() map[string]float64 {
	seconds := map[string]float64{}
	for _, r := range c.created {
		if !r.noted && r.err == nil {
			seconds[r.name] = max(seconds[r.name], r.seconds)
		}
	}
	return seconds
}

// create replaces vk.Device.NewKernel in the package.
func (c *compiler) create(dev *vk.Device, config vk.KernelConfig) (*vk.Kernel, error) {
	key := creationKey(config)
	if !c.only.MatchString(config.Name) {
		c.placeholder.once.Do(func() {
			small := vk.KernelConfig{Name: "placeholder"}
			if small.Code, c.placeholder.err = shaders.SPV("permute"); c.placeholder.err == nil {
				c.placeholder.run(dev, small)
			}
		})
		return c.placeholder.kernel, c.placeholder.err
	}
	c.mu.Lock()
	r := c.created[key]
	if r == nil {
		r = &creation{}
		c.created[key] = r
	}
	c.mu.Unlock()
	r.once.Do(func() {
		what := fmt.Sprintf("%s %v subgroups of %d", config.Name, config.Spec, config.SubgroupSize)
		c.logf("start   %s", what)
		r.run(dev, config)
		c.logf("%6.2f s %s", r.seconds, what)
	})
	return r.kernel, r.err
}

func (c *compiler) logf(format string, args ...any) {
	if c.log != nil {
		fmt.Fprintf(c.log, format+"\n", args...)
	}
}

func (r *creation) run(dev *vk.Device, config vk.KernelConfig) {
	r.name = config.Name
	r.seconds = cpuTime(func() { r.kernel, r.err = dev.NewKernel(config) }).Seconds()
}

// find returns the creation of a kernel, a new one for a kernel that another package created, or nil for the
// placeholder.
func (c *compiler) find(k *vk.Kernel) *creation {
	if k == c.placeholder.kernel {
		return nil
	}
	for _, r := range c.created {
		if r.kernel == k {
			return r
		}
	}
	r := &creation{kernel: k}
	c.created[fmt.Sprintf("%p", k)] = r
	return r
}

// close closes all objects. The first one that holds a kernel closes it.
func (c *compiler) close() (errs []error) {
	for _, r := range c.objects {
		errs = append(errs, r.Close())
	}
	if k := c.placeholder.kernel; k != nil {
		errs = append(errs, k.Close())
	}
	for _, r := range c.created {
		errs = append(errs, r.kernel.Close()) // candidates that were not chosen
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
