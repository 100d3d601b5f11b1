package pipelines

import (
	"fmt"

	"github.com/colt5-vulkan/colt5/vk"
)

// This file divides work among workgroups and invocations.

// ceilDiv is how many tiles of a size cover n elements.
func ceilDiv(n, size uint64) uint64 { return (n + size - 1) / size }

// evenShare divides n into the fewest shares of at most limit, and returns the size that makes them about equal.
func evenShare(n, limit uint64) uint64 { return ceilDiv(n, max(ceilDiv(n, limit), 1)) }

// workgroups is the grid of n workgroups. Shaders flatten it to one index.
func workgroups(caps vk.Caps, op string, n uint64) ([3]uint32, error) {
	groups, err := vk.Grid(caps, n)
	if err != nil {
		return groups, fmt.Errorf("pipelines: %s: %w", op, err)
	}
	return groups, nil
}

// rowVariant is the SPIR-V variant for rows of c floats, and the number of loads of a row: vec4 loads if every row starts
// at a multiple of 16 bytes, else float loads.
func rowVariant(stem string, c int) (name string, cols uint32) {
	if c%4 == 0 {
		return stem + "_vec4", uint32(c / 4)
	}
	return stem, uint32(c)
}

// rowwiseInvocations is the workgroup size of kernels that include shaders/src/include/rowwise.glsl.
const rowwiseInvocations = 256

// rowGroups is the grid of a kernel that includes shaders/src/include/rowwise.glsl, for rows of c floats.
func rowGroups(list *vk.CommandList, op string, c int, rows uint64) ([3]uint32, error) {
	_, cols := rowVariant("", c)
	caps := list.Device().Caps()
	if err := checkIterations(caps, op, fmt.Sprintf("a row of %d floats", c), int(cols/rowwiseInvocations)); err != nil {
		return [3]uint32{}, err
	}
	rowsPerGroup := uint64(max(rowwiseInvocations/cols, 1))
	return workgroups(caps, op, ceilDiv(rows, rowsPerGroup))
}

// normInvocations is the workgroup size of kernels that reduce rows.
const normInvocations = 256

// normInvocationsPerRow returns how many invocations share a row of c floats, at most limit, and how many rows a
// workgroup has. They depend on c alone, because the order of summation depends on them.
func normInvocationsPerRow(c int, limit uint32) (invocationsPerRow, rows uint32) {
	invocationsPerRow = 4
	for invocationsPerRow < limit && 8*int(invocationsPerRow) < c {
		invocationsPerRow *= 2
	}
	return invocationsPerRow, normInvocations / invocationsPerRow
}
