package pipelines

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"sync"

	"github.com/colt5-vulkan/colt5/vk"
)

// What the rooms that include shaders/include/attention.glsl share.

const attentionThreads = 128 // of a workgroup, as in the shader

// attentionTile is how many queries a workgroup has, and how many keys it looks at at a time.
type attentionTile struct{ queries, keys int }

// attentionCPU is the tile of the kernel for CPU drivers, as in the shader.
var attentionCPU = attentionTile{8, 8}

// attentionTiles in the order of preference.
var attentionTiles = []attentionTile{{64, 64}, {64, 32}, {32, 32}}

// attentionShared is the shared memory that a tile may take: with more, too few workgroups run side by side.
const attentionShared = 48 << 10

// shared is the shared memory that the kernel takes, in bytes: the arrays of attention.glsl.
func (t attentionTile) shared(dimHead int, factors bool) uint32 {
	d4 := (dimHead + 3) / 4
	nk := (d4 + 7) / 8
	dk := (d4 + nk - 1) / nk
	nv := nk
	if nk == 3 {
		nv = 4
	}
	quads := t.queries*(nk*dk|1) + max(t.keys*(dk|1), t.keys/nv*d4) + t.queries*(t.keys/4|1)
	factored := 2
	if factors {
		factored = 2 * t.keys
	}
	return uint32(16*quads + 4*2*t.keys + 8*factored + 4*attentionThreads + 4*t.queries)
}

// chooseAttentionTile chooses from what the device has. The keys of a tile depend on the device and the head alone, for the order of
// summation follows from them; the queries do not matter to it, and are 32 where a list has no more.
func chooseAttentionTile(caps vk.Caps, dimHead int, factors bool, queries int) (attentionTile, error) {
	for _, t := range attentionTiles {
		if t.shared(dimHead, factors) > min(caps.SharedBytes, attentionShared) {
			continue
		}
		if queries <= 32 {
			t.queries = 32
		}
		return t, nil
	}
	least := attentionTiles[len(attentionTiles)-1].shared(dimHead, factors)
	return attentionTile{}, fmt.Errorf("pipelines: %w: %d bytes of shared memory, heads of dim %d take %d", vk.ErrUnsupported, caps.SharedBytes, dimHead, least)
}

// attentionHeads checks the heads of a config.
func attentionHeads(op string, heads, dimHead int) error {
	if err := positive(op, dim{"Heads", heads}); err != nil {
		return err
	}
	if dimHead < 1 || dimHead > 128 {
		return fmt.Errorf("pipelines: %s: DimHead is %d, want 1 to 128", op, dimHead)
	}
	return nil
}

// attentionRows checks that the rows of single heads, counted through a tensor, have 32-bit numbers.
func attentionRows(op string, dims ...dim) error {
	n := 1.0
	for _, d := range dims {
		n *= float64(d.n)
	}
	if n > math.MaxUint32 {
		return fmt.Errorf("pipelines: %s: %s makes %.0f, want %d at most", op, shape(dims...), n, uint32(math.MaxUint32))
	}
	return nil
}

// attentionKernels are the variants of an attention kernel, compiled when they are first needed.
type attentionKernels struct {
	dev     *vk.Device
	name    string
	dimHead int
	factors bool
	spec    map[uint32]uint32 // of the room's own constants, 8 and up
	limit   float64           // of the work of a dispatch; attentionFlops but in tests
	tiled   bool              // for tests: the kernel of GPUs also on a CPU driver

	mu   sync.Mutex
	made map[attentionTile]*vk.Kernel // nil: closed
}

// attentionFlops is the work of one dispatch at most. Slow devices do 0.2 TFLOP/s, and some systems stop work that takes two seconds.
const attentionFlops = 5e10

func newAttentionKernels(dev *vk.Device, name string, dimHead int, factors bool, spec map[uint32]uint32) *attentionKernels {
	return &attentionKernels{dev: dev, name: name, dimHead: dimHead, factors: factors, spec: spec, limit: attentionFlops, made: map[attentionTile]*vk.Kernel{}}
}

// get is the kernel of a tile.
func (k *attentionKernels) get(t attentionTile) (*vk.Kernel, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.made == nil {
		return nil, vk.ErrClosed
	}
	if have := k.made[t]; have != nil {
		return have, nil
	}
	spec := maps.Clone(k.spec)
	name := k.name
	spec[0], spec[3], spec[4] = uint32(k.dimHead), math.Float32bits(float32(math.Log2E/math.Sqrt(float64(k.dimHead)))), flag(k.factors)
	if t == attentionCPU {
		name += "_cpu"
	} else {
		spec[1], spec[2] = uint32(t.queries), uint32(t.keys)
	}
	made, err := kernel(k.dev, name, spec)
	if err == nil {
		k.made[t] = made
	}
	return made, err
}

// tile chooses the kernel.
func (k *attentionKernels) tile(op string, w attentionWork) (attentionTile, error) {
	caps := k.dev.Caps()
	if own := (w.keys/attentionCPU.keys + 2) * (1 + (k.dimHead+3)/4*2); caps.CPU && !k.tiled && own <= cpuTurns {
		return attentionCPU, nil
	}
	t, err := chooseAttentionTile(caps, k.dimHead, k.factors, w.queries)
	if err != nil {
		return t, err
	}
	return t, turns(caps, op, fmt.Sprintf("attention to %d keys of dim %d", w.keys, k.dimHead), t.turns(k.dimHead, w.keys))
}

// turns is about how often the loops of the kernel turn for so many keys: a turn a tile, and one for each chunk of its keys and values;
// before that, empty slots are looked for, and queries fetched.
func (t attentionTile) turns(dimHead, keys int) int {
	chunks := ((dimHead+3)/4 + 7) / 8
	return (keys/t.keys+2)*(1+2*chunks+1) + keys/attentionThreads + 200
}

// attentionWork is what an attention has to do.
type attentionWork struct {
	queries      int    // that have common keys: of a list, window or patch
	keys         int    // that a query looks at, at most
	units        uint64 // how many of these there are, heads counted apart
	flops, bytes float64
	args         []vk.Access
}

// record adds dispatches to a tape, of workgroups first to groups - 1 each.
func (k *attentionKernels) record(t *vk.Tape, op string, w attentionWork, push func(first, groups uint32) []byte) error {
	tile, err := k.tile(op, w)
	if err != nil {
		return err
	}
	all := w.units * tiles(uint64(w.queries), uint64(tile.queries))
	if all > math.MaxUint32 {
		return fmt.Errorf("pipelines: %s: %d units of %d queries make %d tiles, want %d at most", op, w.units, w.queries, all, uint32(math.MaxUint32))
	}
	kernel, err := k.get(tile)
	if err != nil {
		return fmt.Errorf("pipelines: %s: %w", op, err)
	}
	step := max(uint64(float64(all)*min(1, k.limit/w.flops)), 1)
	for first := uint64(0); first < all; first += step {
		n := min(step, all-first)
		share := float64(n) / float64(all)
		groups, err := vk.Grid(t.Device().Caps(), n)
		if err != nil {
			return fmt.Errorf("pipelines: %s: %w", op, err)
		}
		err = t.Dispatch(vk.Dispatch{
			Kernel: kernel, Groups: groups, Args: w.args, Push: push(uint32(first), uint32(first+n)), Flops: share * w.flops, Bytes: share * w.bytes,
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Close frees the kernels.
func (k *attentionKernels) Close() error {
	if k == nil {
		return nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	var all error
	for tile, kernel := range k.made {
		err := kernel.Close()
		if err == nil {
			delete(k.made, tile)
		}
		all = errors.Join(all, err)
	}
	if all == nil {
		k.made = nil
	}
	return all
}

// tensor checks an argument of a shape that starts at a multiple of so many bytes, and is there exactly if it is on.
func tensor(start uint64, op, arg string, on bool, r vk.Range, kind string, dims ...dim) error {
	if !on {
		if !r.IsZero() {
			return fmt.Errorf("pipelines: %s: %s has %d bytes, want none: the config leaves it out", op, arg, r.Size())
		}
		return nil
	}
	bytes := uint64(4)
	for _, d := range dims {
		bytes *= uint64(d.n)
	}
	return needAt(start, op, arg, r, bytes, shape(dims...)+kind)
}
