package pipelines

import (
	"fmt"

	"github.com/colt5-vulkan/colt5/vk"
)

// This file selects the tile of an attention with 16-bit operands on a device with few registers. There, a subgroup holds
// a few matrices of the results only (shaders/src/include/attention_lowreg.glsl), and the workgroup has as many subgroups as
// that takes.

// lowRegisterTiles are the candidates in order of preference: the queries of a workgroup, and the matrices of a subgroup.
// With two matrices no kernel spills on dg2 and bmg; with four, those for bmg still fit, with 255 of 256 registers.
var lowRegisterTiles = []struct{ queries, matrices int }{{64, 2}, {32, 2}, {32, 1}, {32, 4}}

// lowRegisterShared is the shared memory of the kernel in bytes: the arrays of attention_lowreg.glsl.
func lowRegisterShared(t attentionTile, m vk.MatrixShape, dimHead int, factors bool) uint32 {
	keyFactors, chunks := 2, (dimHead+15)/16*2 // chunks of 16 bytes in a row
	if factors {
		keyFactors = 2 * t.keys
	}
	tile := max((t.queries+2*t.keys)*(chunks+1), t.queries*(2*chunks+1))
	row := t.keys/4 + 1 + t.keys/8 + 1 + int(m.N)/4 + 1
	return uint32(16*(tile+t.queries*row) + 4*2*t.keys + 8*keyFactors + 16)
}

// lowRegisterTile selects a tile. The order of summation follows from the keys of a tile and from the invocations per
// query, so these depend on the device and the head only: a tile of 64 queries has twice the subgroups of one of 32.
func lowRegisterTile(l deviceLimits, m vk.MatrixShape, dimHead int, factors bool, queries int) (attentionTile, error) {
	shared := min(l.MaxSharedBytes, maxAttentionShared)
	keys := 32
	if lowRegisterShared(attentionTile{queries: 32, keys: keys}, m, dimHead, factors) > shared {
		keys = 16
	}
	for _, c := range lowRegisterTiles {
		t := attentionTile{queries: c.queries, keys: keys}
		if c.queries > 32 && (queries <= 32 || dimHead > 64) || t.queries%(c.matrices*int(m.M)) != 0 {
			continue
		}
		t.subgroups = t.queries / int(m.M) / c.matrices * ((dimHead + 15) / 16 * 16 / int(m.N))
		threads := uint32(t.subgroups) * l.SubgroupMin
		if lowRegisterShared(t, m, dimHead, factors) <= shared && int(threads) >= t.queries && threads <= l.MaxWorkgroupInvocations &&
			(!l.SubgroupSizeControl || uint32(t.subgroups) <= l.MaxWorkgroupSubgroups) {
			return t, nil
		}
	}
	return attentionTile{}, fmt.Errorf("pipelines: %w: heads of dim %d with matrices of %dx%d need %d bytes of shared memory, and 32 to %d invocations in %d subgroups at most; the device has %d, subgroups of %d to %d",
		vk.ErrUnsupported, dimHead, m.M, m.N, lowRegisterShared(attentionTile{queries: 32, keys: 16}, m, dimHead, factors), l.MaxWorkgroupInvocations, l.MaxWorkgroupSubgroups,
		l.MaxSharedBytes, l.SubgroupMin, l.SubgroupMax)
}
