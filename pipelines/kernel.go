package pipelines

import (
	"encoding/binary"
	"errors"
	"slices"
	"sync"

	"github.com/colt5-vulkan/colt5/shaders"
	"github.com/colt5-vulkan/colt5/vk"
)

// newKernel compiles variant name of shaders/src/variants.txt with the specialisation constants spec.
func newKernel(dev *vk.Device, name string, spec map[uint32]uint32) (*vk.Kernel, error) {
	code, err := shaders.SPV(name)
	if err != nil {
		return nil, err
	}
	return createKernel(dev, vk.KernelConfig{Name: name, Code: code, Spec: spec})
}

// createKernel creates every kernel of the package. TestCompiles replaces it.
var createKernel = (*vk.Device).NewKernel

// compilerStats reads the statistics of a kernel. TestCompiles replaces it.
var compilerStats = (*vk.Kernel).CompilerStats

// discardKernel closes a kernel that is not used after all. TestCompiles, whose kernels several objects share, replaces
// it.
var discardKernel = (*vk.Kernel).Close

// kernelCache holds the variants of a kernel. Each is compiled when it is first recorded, because few shapes need all
// of them.
type kernelCache struct {
	dev      *vk.Device
	mu       sync.Mutex
	compiled map[string]*vk.Kernel // by kernelVariant.key
	chosen   map[string]int        // results of choose
	closed   bool
}

// kernelVariant is what a kernel is compiled from.
type kernelVariant struct {
	name          string            // of the step in profiles
	spv           string            // variant of shaders/src/variants.txt
	spec          map[uint32]uint32 // specialisation constants
	subgroupSize  uint32            // required; 0: selected by the driver
	fullSubgroups bool
}

// fullSubgroups returns a variant whose subgroups are full if the device can require that, in a workgroup of a size.
func fullSubgroups(dev *vk.Device, name, spv string, workgroup uint32, spec map[uint32]uint32) kernelVariant {
	l := limitsOf(dev)
	return kernelVariant{name, spv, spec, l.fullSubgroupSize(workgroup), l.FullSubgroups}
}

// key identifies the variant in a cache. The name must determine spv and the subgroup settings.
func (v kernelVariant) key() string { return string(v.appendKey(nil)) }

// appendKey appends the bytes of the key. Every recorded step looks its kernel up by them.
func (v kernelVariant) appendKey(key []byte) []byte {
	ids := make([]uint32, 0, 64)
	for id := range v.spec {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	key = append(append(key, v.name...), 0)
	for _, id := range ids {
		key = binary.LittleEndian.AppendUint32(key, id)
		key = binary.LittleEndian.AppendUint32(key, v.spec[id])
	}
	return key
}

// get returns the kernel of variant spv of shaders/src/variants.txt with the specialisation constants spec. name is the
// step's name in profiles and, with spec, the key in the cache, so it must determine spv.
func (k *kernelCache) get(name, spv string, fullSubgroups bool, spec map[uint32]uint32) (*vk.Kernel, error) {
	return k.kernel(kernelVariant{name: name, spv: spv, spec: spec, fullSubgroups: fullSubgroups})
}

// kernel returns the kernel of a variant. The same variant is compiled once.
func (k *kernelCache) kernel(v kernelVariant) (*vk.Kernel, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return nil, vk.ErrClosed
	}
	var key [512]byte // a lookup allocates nothing
	if kernel := k.compiled[string(v.appendKey(key[:0]))]; kernel != nil {
		return kernel, nil
	}
	kernel, err := v.create(k.dev, false)
	if err == nil {
		k.add(v, kernel)
	}
	return kernel, err
}

// create compiles the variant. The compiler's statistics are kept on demand.
func (v kernelVariant) create(dev *vk.Device, statistics bool) (*vk.Kernel, error) {
	code, err := shaders.SPV(v.spv)
	if err != nil {
		return nil, err
	}
	return createKernel(dev, vk.KernelConfig{
		Name: v.name, Code: code, Spec: v.spec, SubgroupSize: v.subgroupSize, FullSubgroups: v.fullSubgroups, Statistics: statistics,
	})
}

// add adds a kernel, with the mutex locked.
func (k *kernelCache) add(v kernelVariant, kernel *vk.Kernel) {
	if k.compiled == nil {
		k.compiled = map[string]*vk.Kernel{}
	}
	k.compiled[v.key()] = kernel
}

// close frees the kernels and prevents further compilation. A kernel that an open command list uses stays until the
// next close.
func (k *kernelCache) close() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.closed = true
	var errs error
	for key, kernel := range k.compiled {
		err := kernel.Close()
		if err == nil {
			delete(k.compiled, key)
		}
		errs = errors.Join(errs, err)
	}
	return errs
}

// writeAccess is a range that a kernel writes, or adds to.
func writeAccess(r vk.Range, add bool) vk.Access {
	if add {
		return vk.ReadWrite(r)
	}
	return vk.Write(r)
}

// accesses is how often a kernel accesses each element that it writes or adds to.
func accesses(add bool) float64 {
	if add {
		return 2
	}
	return 1
}

// specBool is the value of a bool specialisation constant.
func specBool(b bool) uint32 {
	if b {
		return 1
	}
	return 0
}
