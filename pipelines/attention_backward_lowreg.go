package pipelines

import (
	"fmt"

	"github.com/colt5-vulkan/colt5/vk"
)

// This file selects the tile of an attention's backward pass with 16-bit operands on a device with few registers. There, a
// subgroup holds a few matrices of the sums of one kind only (shaders/src/include/attention_backward_lowreg.glsl), and the
// workgroup has as many subgroups as that takes.

// lowRegisterBackwardTiles are the candidates in order of preference: own and other rows, and the matrices of a subgroup.
var lowRegisterBackwardTiles = []struct{ own, other, matrices int }{{32, 32, 2}, {32, 16, 2}, {16, 32, 2}, {16, 16, 2}, {32, 16, 4}, {16, 16, 1}}

// maxLowRegisterThreads bounds the invocations of a workgroup. With more, few workgroups would run at a time.
const maxLowRegisterThreads = 256

// sumKinds is the number of gradients that a stage sums up: dq, or dk and dv.
func sumKinds(stage string) int {
	if stage == "keys" {
		return 2
	}
	return 1
}

// lowRegisterShared is the shared memory of a stage's kernel in bytes: the arrays of attention_backward_lowreg.glsl, and up to
// 64 bytes of padding between them.
func (t attentionBackwardTile) lowRegisterShared(stage string, dimHead int, factors bool) uint32 {
	pitch := (dimHead+15)/16*2 + 1 // in chunks of 16 bytes
	rows := t.own + 2*t.other      // with an address, the other ones of two tiles
	chunks := 2*(t.own+t.other)*pitch + 2*t.own*(t.other/4+1) + sumKinds(stage)*t.own*(t.other/8+1) + rows
	states, results, withFactor := 2*t.other, 0, 2
	if stage == "queries" {
		states, results = t.own, t.own
	}
	if factors {
		withFactor = rows
	}
	return uint32(16*(chunks+states) + 8*(results+withFactor) + 4*rows + 4*8 + 64)
}

// lowRegisterBackwardTile selects a tile. The order of summation follows from it, so it depends on the device, the stage and
// the head only.
func lowRegisterBackwardTile(l deviceLimits, m vk.MatrixShape, stage string, dimHead int, factors bool) (attentionBackwardTile, error) {
	columns := sumKinds(stage) * ((dimHead + 15) / 16 * 16 / int(m.N))
	for _, c := range lowRegisterBackwardTiles {
		t := attentionBackwardTile{own: c.own, other: c.other, subgroups: c.own / int(m.M) / c.matrices * columns, lowRegisters: true}
		threads := uint32(t.subgroups) * l.SubgroupMin
		if c.own%(c.matrices*int(m.M)) == 0 && c.other%int(max(m.N, m.K)) == 0 && int(threads) >= c.own &&
			threads <= min(l.MaxWorkgroupInvocations, maxLowRegisterThreads) && (!l.SubgroupSizeControl || uint32(t.subgroups) <= l.MaxWorkgroupSubgroups) &&
			t.lowRegisterShared(stage, dimHead, factors) <= min(l.MaxSharedBytes, maxAttentionShared) {
			return t, nil
		}
	}
	return attentionBackwardTile{}, fmt.Errorf("%w: %s of heads of dim %d with matrices of %dx%d need %d bytes of shared memory, and 16 to %d invocations in %d subgroups at most; the device has %d, subgroups of %d to %d",
		vk.ErrUnsupported, stage, dimHead, m.M, m.N, attentionBackwardTile{own: 16, other: 16}.lowRegisterShared(stage, dimHead, factors),
		min(l.MaxWorkgroupInvocations, maxLowRegisterThreads), l.MaxWorkgroupSubgroups, l.MaxSharedBytes, l.SubgroupMin, l.SubgroupMax)
}

// lowRegisterIterations estimates the loop iterations of an invocation for some tiles. In each, it loads chunks, and
// multiplies matrices, of which the smallest have 8 rows and columns; it computes one weight of 4 or more, and reads the
// products of a row twice. Then it writes the results.
func (t attentionBackwardTile) lowRegisterIterations(dimHead, tiles int) int {
	const smallest = 8
	steps, threads := (dimHead+15)/16*2, t.subgroups*smallest
	products := ceilDiv(uint64(2*t.own*t.other), uint64(smallest*smallest*t.subgroups))
	perTile := 2*t.other*steps/threads + int(products)*(1+steps) + t.own*t.other/4/threads + t.other/2 + 8
	return tiles*perTile + 4*t.own*steps/threads + 100
}
