package pipelines

import (
	"fmt"

	"github.com/colt5-vulkan/colt5/vk"
)

const attentionThreads = 128 // workgroup size of the float32 kernel, as in attention.glsl

// attentionTile is how many queries a workgroup has and how many keys it loads at a time. With cooperative
// matrices, subgroups share its queries equally; else subgroups is 0. lowRegisters selects the float32 kernel for
// devices with few registers.
type attentionTile struct {
	queries, keys, subgroups int
	lowRegisters             bool
}

// attentionCPUTile is the tile of the kernel for CPU drivers, as in attention_cpu.glsl.
var attentionCPUTile = attentionTile{8, 8, 0, false}

// Lists of tiles in order of preference. The tiles of a list of cooperative matrices that suit the same head and device
// have the same number of keys, so that bits do not depend on the number of queries.
var (
	attentionTiles = []attentionTile{{64, 64, 0, false}, {64, 32, 0, false}, {32, 32, 0, false}}

	// Few workgroups, or indexed keys: large iterations, because each has a fixed cost.
	attentionMatrixTiles = []attentionTile{{64, 64, 4, false}, {64, 32, 4, false}}
	// Few keys: many concurrent workgroups, and few masked keys are computed.
	attentionMatrixShort = []attentionTile{{64, 32, 4, false}}
	// Many queries and keys: each loaded key serves twice as many queries.
	attentionMatrixWide = []attentionTile{{128, 32, 4, false}, {64, 32, 4, false}}
	// CPU drivers compile the other tiles for a minute.
	attentionMatrixCPU = []attentionTile{{32, 16, 4, false}}
)

// maxDimHead is the largest head for which the tile has enough registers for queries, results, scores, and the next
// keys and values.
func (t attentionTile) maxDimHead() int {
	switch {
	case t.subgroups > 0 && t.queries/t.subgroups > 16:
		return 64
	case t.subgroups > 0 && t.keys > 32:
		return 96
	}
	return 128
}

// maxAttentionShared bounds the shared memory of a tile. More would leave too few workgroups per SM.
const maxAttentionShared = 48 << 10

// shared is the shared memory of the kernel in bytes: the arrays of attention.glsl, or of attention_matrix.glsl.
func (t attentionTile) shared(dimHead int, factors bool) uint32 {
	keyFactors := 2
	if factors {
		keyFactors = 2 * t.keys
	}
	if t.subgroups > 0 {
		rowPitch, scratchPitch := (dimHead+15)/16*2+1, t.keys/8+1 // in 16-byte chunks
		return uint32(16*(max(t.queries, 2*t.keys)*rowPitch+t.queries*scratchPitch) + 4*2*t.keys + 8*keyFactors + 16)
	}
	headVec4 := (dimHead + 3) / 4   // vec4 of a head
	keySlices := (headVec4 + 7) / 8 // KEY_SLICES
	sliceVec4 := (headVec4 + keySlices - 1) / keySlices
	valueSlices := keySlices
	if keySlices == 3 {
		valueSlices = 4
	}
	vec4s := t.queries*(keySlices*sliceVec4|1) + max(t.keys*(sliceVec4|1), t.keys/valueSlices*headVec4) + t.queries*(t.keys/4|1)
	return uint32(16*vec4s + 4*2*t.keys + 8*keyFactors + 4*attentionThreads + 4*t.queries)
}

// selectAttentionTile selects the first tile of a list that fits the device. The order of summation follows from the
// keys of a tile, so these depend on the list, the device and the head only. A workgroup for at most 32 queries has 32.
func selectAttentionTile(caps vk.Caps, list []attentionTile, dimHead int, factors bool, queries int) (attentionTile, error) {
	for _, t := range list {
		if dimHead > t.maxDimHead() || t.shared(dimHead, factors) > min(caps.MaxSharedBytes, maxAttentionShared) || t.queries > 64 && queries <= 64 {
			continue
		}
		if queries <= 32 && t.queries > 32 {
			t.subgroups /= t.queries / 32
			t.queries = 32
		}
		return t, nil
	}
	smallest := list[len(list)-1].shared(dimHead, factors)
	return attentionTile{}, fmt.Errorf("pipelines: %w: heads of dim %d need %d bytes of shared memory, the device has %d", vk.ErrUnsupported, dimHead, smallest, caps.MaxSharedBytes)
}

// attentionMatrixCandidates returns the tiles of a list for cooperative matrices in order of preference. In a workgroup
// for few queries, an invocation holds twice as many of the next keys and values as in one for many, and may have too few
// registers for that: for heads of 96, Mesa 26 spills 30 registers on NVIDIA's Turing. The larger workgroup has the same
// keys, and so the same bits.
func attentionMatrixCandidates(caps vk.Caps, list []attentionTile, dimHead int, factors bool, queries int) ([]attentionTile, error) {
	t, err := selectAttentionTile(caps, list, dimHead, factors, queries)
	if err != nil || t.queries > 32 {
		return []attentionTile{t}, err
	}
	many, err := selectAttentionTile(caps, list, dimHead, factors, 33)
	return []attentionTile{t, many}, err
}

// fewRegisters is less than what an invocation needs for every float32 tile. With that many, or more, no compiler
// spills: Adreno's has 192.
const fewRegisters = 160

// floatAttentionTiles returns the tiles for float32 in order of preference: one that is known to fit the registers
// of the device, or such a one after others for which the compiler decides. All have 32 keys on a device with few
// registers, so that bits do not depend on the choice.
func floatAttentionTiles(l deviceLimits, dimHead int, factors bool, queries int) ([]attentionTile, error) {
	if l.registersIn(attentionThreads) >= fewRegisters {
		t, err := selectAttentionTile(l.Caps, attentionTiles, dimHead, factors, queries)
		return []attentionTile{t}, err
	}
	tiles := attentionTiles[1:]
	first, err := selectAttentionTile(l.Caps, tiles, dimHead, factors, queries)
	if err != nil {
		return nil, err
	}
	// Compiled for Intel's Gen9, Gen12 and Xe2 with 128 registers. Heads of up to 32: no tile of 32 keys spills,
	// nor does the other kernel. Up to 64: spills by the tile, the chip and the factors, of either kernel; none of
	// 32x32 of the kernel for few registers. Beyond 64, only that fits.
	if dimHead <= 32 {
		return []attentionTile{first}, nil
	}
	var list []attentionTile
	if dimHead <= 64 {
		list = append(list, first)
		if first.queries > 32 {
			first.lowRegisters = true
			list = append(list, first)
		}
	}
	return append(list, attentionTile{32, 32, 0, true}), nil
}

// iterations estimates the loop iterations of an invocation. The kernel for CPU drivers has one per tile of keys
// and one per vec4 of its keys and of its values. The matrix kernel has one per tile, one per group of keys that
// the workgroup loads at a time, and up to 2,000 that load the queries. The float32 kernel has one per tile, and
// one per slice of its keys and of its values; that for few registers also one per vec4 of the keys, and one per
// four values. Both GPU kernels also need iterations to find the valid slots.
func (t attentionTile) iterations(dimHead, keys int) int {
	headVec4 := (dimHead + 3) / 4
	switch {
	case t == attentionCPUTile:
		return (keys/t.keys + 2) * (1 + headVec4*2)
	case t.subgroups > 0:
		return (keys/t.keys+2)*(2+t.keys/(8*t.subgroups)) + keys/(8*t.subgroups) + 2000
	}
	keySlices := (headVec4 + 7) / 8
	perTile := 1 + 2*keySlices + 1
	if t.lowRegisters {
		perTile += headVec4 + keySlices + t.keys/4
	}
	return (keys/t.keys+2)*perTile + keys/attentionThreads + 200
}
