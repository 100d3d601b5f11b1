package vk

import (
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"sync"
	"unsafe"

	vulkan "github.com/vulkan-go/vulkan"
)

// idlePipelines is how many pipelines of closed kernels a device keeps. A kernel that is created again, as the modules
// of a stack or of a test do, then needs no compilation; where the driver has its own cache, translating the SPIR-V
// still takes milliseconds.
const idlePipelines = 256

// pipelineKey is the hash of everything that a pipeline is compiled from.
type pipelineKey [sha256.Size]byte

// pipeline is a compute pipeline. Kernels that are compiled from the same code and constants share it.
type pipeline struct {
	key            pipelineKey
	layout, handle uint64
	kernels        int // open kernels that use it
}

// pipelines holds the pipelines of a device.
type pipelines struct {
	mu   sync.Mutex
	all  map[pipelineKey]*pipeline
	idle []*pipeline // without kernels, the one used longest ago first
}

func newPipelineKey(s *kernelSource, push uint32, statistics bool) pipelineKey {
	h := sha256.New()
	c := &s.config
	words := []uint32{uint32(len(s.code)), uint32(len(s.entry)), uint32(len(s.ids)), push, c.SubgroupSize, uint32(btoi(c.FullSubgroups)),
		uint32(btoi(statistics))}
	h.Write(binary.LittleEndian.AppendUint32(nil, uint32(len(words))))
	for _, list := range [][]uint32{words, s.ids, s.values} {
		for _, w := range list {
			h.Write(binary.LittleEndian.AppendUint32(nil, w))
		}
	}
	h.Write(s.entry)
	h.Write(s.code)
	return pipelineKey(h.Sum(nil))
}

// find returns the pipeline of a key for one more kernel, or nil.
func (s *pipelines) find(key pipelineKey) *pipeline {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.all[key]
	if p != nil {
		s.use(p)
	}
	return p
}

// use counts one more kernel of p.
func (s *pipelines) use(p *pipeline) {
	if p.kernels == 0 {
		i := slices.Index(s.idle, p)
		s.idle = slices.Delete(s.idle, i, i+1)
	}
	p.kernels++
}

// add adds a new pipeline with one kernel. If another call has compiled the same one meanwhile, add destroys p and
// returns the other.
func (s *pipelines) add(d *Device, p *pipeline) *pipeline {
	s.mu.Lock()
	defer s.mu.Unlock()
	if other := s.all[p.key]; other != nil {
		d.destroyPipeline(p)
		s.use(other)
		return other
	}
	if s.all == nil {
		s.all = map[pipelineKey]*pipeline{}
	}
	p.kernels = 1
	s.all[p.key] = p
	return p
}

// release ends the use of p by one kernel.
func (s *pipelines) release(d *Device, p *pipeline) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.kernels--; p.kernels > 0 {
		return
	}
	s.idle = append(s.idle, p)
	if len(s.idle) > idlePipelines {
		s.destroyIdle(d, 1)
	}
}

// destroyIdle destroys the first n idle pipelines.
func (s *pipelines) destroyIdle(d *Device, n int) {
	for _, p := range s.idle[:n] {
		delete(s.all, p.key)
		d.destroyPipeline(p)
	}
	s.idle = slices.Delete(s.idle, 0, n)
}

// close destroys the idle pipelines. The device has no open kernels.
func (s *pipelines) close(d *Device) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.destroyIdle(d, len(s.idle))
}

func (d *Device) destroyPipeline(p *pipeline) {
	vulkan.DestroyPipeline(d.handle, *(*vulkan.Pipeline)(unsafe.Pointer(&p.handle)), nil)
	vulkan.DestroyPipelineLayout(d.handle, *(*vulkan.PipelineLayout)(unsafe.Pointer(&p.layout)), nil)
}
