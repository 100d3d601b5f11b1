package pipelines

import (
	"unsafe"

	"github.com/colt5-vulkan/colt5/shaders"
	"github.com/colt5-vulkan/colt5/vk"
)

// This file records the backward pass of routed attention where several lists of an item name rows of it by index, with few
// queries each: those of consecutive windows, which have most of their keys in common. Four lists are a set. Its keys are the
// rows that one of them names. The kernels compute all queries of a set with each key, so that a key is read once for four
// lists, and its gradient is written once.

// mergedLists is the number of lists of a set: MERGED_LISTS of shaders/src/include/routed_attention.glsl.
const mergedLists = 4

// maxMergedQueries is the largest number of queries of a list for which lists are merged. With more, the queries of a list fill
// tiles on their own.
const maxMergedQueries = 64

// mergedSizes are the sizes of all sets of a call.
type mergedSizes struct {
	perItem  uint64 // sets of an item
	sets     uint64
	capacity uint64 // most keys of a set and route
}

func mergedSizesOf(a RoutedAttentionBackwardArgs) mergedSizes {
	perItem := ceilDiv(uint64(a.PerItem), mergedLists)
	return mergedSizes{perItem, uint64(a.Lists/a.PerItem) * perItem, min(mergedLists*uint64(a.KeysPerList), uint64(a.KVRows))}
}

// merges reports whether the lists of a call without key scores are merged.
func (c RoutedAttentionConfig) merges(a RoutedAttentionBackwardArgs) bool {
	return c.Precision != F32 && c.KeySource == KeySourceIndexed && !c.ScoreKeys && a.PerItem > 1 && a.Queries <= maxMergedQueries
}

// The push constants of the kernels, after their addresses.
type (
	routedMergePush         struct{ groups, rows, capacity, perItem uint32 }
	routedMergedQueriesPush struct{ lists, queries, perItem, rows, capacity, first, end uint32 }
	routedMergedKeysPush    struct {
		lists, queries, perItem, rows, capacity, keys, launched, first, end uint32
	}
)

var (
	_ = [1]struct{}{}[unsafe.Sizeof(routedMergePush{})-16]
	_ = [1]struct{}{}[unsafe.Sizeof(routedMergedQueriesPush{})-28]
	_ = [1]struct{}{}[unsafe.Sizeof(routedMergedKeysPush{})-36]
)

// newMergedKernels returns the kernels of merged lists, or nil if the config or the device has none.
func newMergedKernels(dev *vk.Device, op string, c RoutedAttentionConfig) (*attentionBackwardKernels, error) {
	if c.Precision == F32 || c.KeySource != KeySourceIndexed || c.ScoreKeys || limitsOf(dev).lowRegisters() {
		return nil, nil
	}
	k, err := newAttentionBackwardKernels(dev, op, attentionConfig{
		name: "routed_attention_backward_merged", heads: c.Heads, dimHead: c.DimHead, factors: c.ScoreQueries, precision: c.Precision,
		spec: map[uint32]uint32{
			shaders.RoutedAttentionRoutes:       uint32(c.Routes),
			shaders.RoutedAttentionQueryValid:   specBool(c.QueryValid),
			shaders.RoutedAttentionScoreQueries: specBool(c.ScoreQueries),
			shaders.RoutedAttentionScoreValues:  specBool(c.ScoreValues),
		},
	})
	if err != nil {
		return nil, err
	}
	k.otherShared = 16 * 128 // the lists of up to 128 rows
	k.wideQueries = wideListQueries
	k.ofQueries = []uint32{shaders.RoutedAttentionQueryValid, shaders.RoutedAttentionScoreQueries}
	k.ofKeys = []uint32{shaders.RoutedAttentionScoreValues}
	return k, nil
}

// recordMerged records the gradients of queries, keys and values, and those of scores by head.
func (r *RoutedAttentionBackward) recordMerged(list *vk.CommandList, op string, a RoutedAttentionBackwardArgs, s routedScratch) error {
	c, m := r.config, mergedSizesOf(a)
	if err := firstError(
		checkRowCount(op, dim{"sets", int(m.sets)}, dim{"capacity", int(m.capacity)}, dim{"H", c.Heads}, dim{"2", 2}),
		checkIterations(r.kernels.dev.Caps(), op, "the merging of lists", int(ceilDiv(uint64(a.KVRows), 2048))*64),
	); err != nil {
		return err
	}
	if !s.keyParts.IsZero() { // slots that are empty have no key
		if err := list.Fill(s.keyParts, 0); err != nil {
			return err
		}
	}
	groups := m.sets * uint64(c.Routes)
	if err := firstError(list.Fill(a.DNull, 0), list.Fill(s.table, 0), r.recordTable(list, op, a, s.table), r.small(list, op, "merge", groups, vk.Dispatch{
		Args:  []vk.Access{vk.Read(s.table), vk.Write(s.setRows), vk.Write(s.setSlots), vk.Write(s.setCounts), vk.Write(s.positions)},
		Push:  vk.Scalars(&routedMergePush{uint32(groups), uint32(a.KVRows), uint32(m.capacity), uint32(a.PerItem)}),
		Bytes: float64(s.table.Size() + s.positions.Size() + s.setRows.Size() + s.setSlots.Size()),
	})); err != nil {
		return err
	}

	units := m.sets * uint64(c.Heads)
	launched := min(m.capacity, uint64(a.KeysPerList+a.KeysPerList/2)) + 1
	statesAndParts := a.Scratch.Slice(0, s.states.Size()+s.queryParts.Size()) // the shader has one address for both
	inputs := []vk.Access{vk.Read(a.Q), vk.Read(a.KV), vk.Read(s.setRows), vk.Read(s.setSlots), vk.Read(s.setCounts)}
	queries := attentionBackwardWork{
		stage: "queries", sets: units, rows: mergedLists * a.Queries, others: int(m.capacity) + 1,
		pairs: float64(a.Lists) * float64(c.Heads) * float64(a.Queries) * float64(a.KeysPerList+1),
		bytes: float64(a.Q.Size() + a.KV.Size() + a.DY.Size() + a.DQ.Size() + s.states.Size()),
		args: append(inputs[:5:5], vk.Read(a.QueryValid), vk.Read(a.QueryScores), vk.Read(a.Null), vk.Read(a.DY), vk.Read(a.Y),
			vk.Write(statesAndParts), vk.Write(a.DQ)),
	}
	keys := attentionBackwardWork{
		stage: "keys", sets: units, rows: int(launched), others: a.Queries, pairs: queries.pairs,
		bytes: float64(a.Q.Size() + a.KV.Size() + a.DY.Size() + s.states.Size() + s.keyParts.Size() + s.parts.Size()/mergedLists),
		args:  append(inputs[:5:5], vk.Read(a.Null), vk.Read(a.DY), vk.Read(s.states), vk.Write(s.parts), vk.ReadWrite(a.DNull), vk.ReadWrite(s.keyParts)),
	}
	return firstError(
		r.merged.record(list, op, queries, func(first, end uint32) []byte {
			return vk.Scalars(&routedMergedQueriesPush{uint32(a.Lists), uint32(a.Queries), uint32(a.PerItem), uint32(a.KVRows), uint32(m.capacity), first, end})
		}),
		r.merged.record(list, op, keys, func(first, end uint32) []byte {
			return vk.Scalars(&routedMergedKeysPush{uint32(a.Lists), uint32(a.Queries), uint32(a.PerItem), uint32(a.KVRows), uint32(m.capacity),
				uint32(a.KeysPerList), uint32(launched), first, end})
		}),
		r.recordRowSums(list, op, a, s.parts, s.positions, int(m.perItem), int(m.capacity)),
	)
}
