package pipelines

import (
	"fmt"
	"slices"

	"github.com/colt5-vulkan/colt5/vk"
)

// attentionBackwardTile is how many rows a workgroup of an attention's backward pass computes, queries or keys, and how
// many of the other kind it reads at a time. With cooperative matrices, subgroups share its rows or columns equally; else
// subgroups is 0.
type attentionBackwardTile struct {
	own, other, subgroups int
	ownInRegisters        bool // the own rows are operands in registers, else in shared memory
	lowRegisters          bool // the kernel of attention_backward_lowreg.go
	threads               int  // invocations of a workgroup without cooperative matrices
}

// Tiles of the float32 kernels. Larger ones need more registers. On an H200, patches of 32 x 32 take 14.8 ms in the kernel of the
// queries with each of them, and in that of the keys, which has twice the sums, 32.4, 33.9 and 63.8 ms.
var (
	attentionBackwardSmall  = attentionBackwardTile{own: 16, other: 32, threads: 128}
	attentionBackwardMiddle = attentionBackwardTile{own: 32, other: 32, threads: 128}
	attentionBackwardLarge  = attentionBackwardTile{own: 64, other: 32, threads: 128}
)

// attentionBackwardFloatTile returns the tile of the float32 kernel of a stage for sets of some rows.
func attentionBackwardFloatTile(l deviceLimits, stage string, dimHead, rows int) attentionBackwardTile {
	if stage == "keys" {
		return attentionBackwardSmall
	}
	for _, t := range []attentionBackwardTile{attentionBackwardLarge, attentionBackwardMiddle} {
		few := t.own > 32 && (dimHead > 64 || rows <= 32) // a head of 128 has sums of 16 vec4 and more
		if !l.CPU && l.registersIn(uint32(t.threads)) >= fewRegisters && !few && t.floatShared() <= l.MaxSharedBytes {
			return t
		}
	}
	return attentionBackwardSmall
}

// floatShared is the shared memory of a float32 kernel in bytes: the arrays of attention_backward.glsl.
func (t attentionBackwardTile) floatShared() uint32 {
	rows, otherPairs := t.own+t.other, 2
	if t.own*t.other/t.threads >= 16 {
		otherPairs = 4
	}
	vec4s := max(2*rows*5, 2*t.other*(t.own/4+1), t.own*t.other/otherPairs) + rows + max(t.own, t.other)
	return uint32(16*vec4s + 8*rows + 12)
}

// Candidates in order of preference. With 16 rows, the sums of a subgroup leave registers for the own rows of a head of 64,
// but not for those of a larger one.
var (
	attentionBackwardMatrixTiles = []attentionBackwardTile{
		{own: 64, other: 64, subgroups: 4, ownInRegisters: true}, {own: 64, other: 32, subgroups: 4, ownInRegisters: true},
		{own: 64, other: 32, subgroups: 4}, {own: 32, other: 32, subgroups: 2}, {own: 32, other: 16, subgroups: 2},
	}
	// Queries with many keys: each loaded key serves twice as many queries. Patches of 32 x 32 on an H200: 1.65 ms instead of
	// 2.15 ms.
	attentionBackwardWideTiles = append([]attentionBackwardTile{{own: 128, other: 32, subgroups: 4, ownInRegisters: true}}, attentionBackwardMatrixTiles...)
)

// wideListQueries is wideQueries of routed attention: an item has one list of queries, not many patches, so that wide tiles of a few
// thousand queries leave cores of a large GPU without work. 2 lists of 1,024 queries and keys with 8 heads on an H200: 0.47 ms
// instead of 0.29 ms with tiles of 64.
const wideListQueries = 4096

// wideKeys is the number of keys from which attentionBackwardWideTiles are faster. With 129 keys they take 1.09 ms instead of
// 0.78 ms.
const wideKeys = 512

// shared is the most shared memory of the kernels of both stages on cooperative matrices in bytes: the arrays of
// attention_backward_matrix.glsl, and what drivers may need to align them.
func (t attentionBackwardTile) shared(m vk.MatrixShape, dimHead int, factors bool) uint32 {
	pitch := (dimHead+15)/16*2 + 1 // in chunks of 16 bytes
	group := int(max(m.N, m.K))
	scratch := t.own * (max(group/8, int(m.N)/4, (pitch+2)/4) + 1)
	chunks := max(t.own, 2*t.other)*pitch + scratch + t.own + 2*t.other // with the tile and the addresses
	chunks += max(t.own, 2*t.other)                                     // states
	if t.ownInRegisters {
		chunks++
	} else {
		chunks += 2 * t.own * pitch
	}
	rows := 2
	if factors {
		rows = t.own + 2*t.other
	}
	return uint32(16*chunks + 8*(t.own+rows) + 4*(t.own+2*t.other) + 4*8 + 48)
}

// fits reports whether a device can run a tile on cooperative matrices.
func (t attentionBackwardTile) fits(l deviceLimits, m vk.MatrixShape, dimHead int, factors bool) bool {
	threads := uint32(t.subgroups) * l.SubgroupSize
	return t.own%(t.subgroups*int(m.M)) == 0 && t.other%int(max(m.N, m.K)) == 0 && threads <= l.MaxWorkgroupInvocations &&
		(!l.SubgroupSizeControl || uint32(t.subgroups) <= l.MaxWorkgroupSubgroups) && t.shared(m, dimHead, factors) <= min(l.MaxSharedBytes, maxAttentionShared)
}

// attentionBackwardTiles returns tiles for 16-bit operands in order of preference. The order of summation does not depend
// on the tile. rows are the own rows of a set, and others the rows that a workgroup reads: tiles for at most 32 have 32. wide:
// attentionBackwardWideTiles.
func attentionBackwardTiles(l deviceLimits, m vk.MatrixShape, dimHead int, factors bool, rows, others int, wide bool) ([]attentionBackwardTile, error) {
	candidates := attentionBackwardMatrixTiles
	switch {
	case l.CPU && max(m.M, m.N) <= 8: // its compiler needs minutes for large tiles
		candidates = []attentionBackwardTile{{own: 32, other: 8, subgroups: 4}, {own: 16, other: 8, subgroups: 2}}
	case dimHead > 64:
		candidates = candidates[2:]
	case wide:
		candidates = attentionBackwardWideTiles
	}
	var list []attentionBackwardTile
	for _, t := range candidates {
		if rows <= 32 && t.own > 32 {
			t.subgroups /= t.own / 32
			t.own = 32
		}
		if others <= 32 {
			t.other = min(t.other, 32)
		}
		if t.fits(l, m, dimHead, factors) && !slices.Contains(list, t) {
			list = append(list, t)
		}
	}
	if list == nil {
		last := candidates[len(candidates)-1]
		return nil, fmt.Errorf("%w: heads of dim %d with matrices of %dx%d need %d bytes of shared memory and %d subgroups; the device has %d bytes, %d invocations, and %d subgroups at most",
			vk.ErrUnsupported, dimHead, m.M, m.N, last.shared(m, dimHead, factors), last.subgroups, l.MaxSharedBytes, l.MaxWorkgroupInvocations, l.MaxWorkgroupSubgroups)
	}
	return list, nil
}

// iterations estimates the loop iterations of an invocation. With float32: per tile one, one per slice of 4 vec4, and one
// per 4 rows that are added; the kernel of the queries has another pass without the latter, and 16 iterations that add the
// parts of a softmax. With cooperative matrices, per tile one and one per row that an invocation looks up, and those that load
// the own rows and store the results.
func (t attentionBackwardTile) iterations(dimHead int, stage string, others int) int {
	tiles, passes := int(ceilDiv(uint64(others), uint64(t.other)))+1, 1
	if stage == "queries" {
		passes = 2
	}
	if t.lowRegisters {
		return t.lowRegisterIterations(dimHead, passes*tiles)
	}
	if t.subgroups > 0 {
		return tiles*(2+t.other) + 4*t.own*dimHead/8 + 1000
	}
	slices := int(ceilDiv(uint64(dimHead), 16))
	return tiles*(passes*(1+slices)+t.other/4) + 16
}
