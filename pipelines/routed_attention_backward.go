package pipelines

import (
	"fmt"
	"math"
	"unsafe"

	"github.com/colt5-vulkan/colt5/shaders"
	"github.com/colt5-vulkan/colt5/vk"
)

// RoutedAttentionBackward computes the gradients of the queries, keys, values, null keys and values, and scores of
// [RoutedAttention] from that of its result. It computes the softmax again.
//
//	q, kv, indices, valid, key scores, query valid, query scores, null: as in RoutedAttention
//	y, dy [Lists, Queries, H, D] in    dq [Lists, Queries, H, D] out    dkv out, in the shape of kv
//	dnull [Lists, 2, H, D] f32 out: its sum over the lists is the gradient
//	dkey scores [Lists, R, KeysPerList] f32 out    dquery scores [Lists, Queries] f32 out
//
// With the scores f of a query, g_j of a key and h_j of a value, which are 1 where the config has none:
//
//	s_ij = q_i . k_j / sqrt(D) * f_i * g_j    p_i = softmax(s_i)    e_ij = dy_i . v_j
//	ds_ij = p_ij * (h_j * e_ij - dy_i . y_i)
//	dq_i = sum_j ds_ij * f_i * g_j / sqrt(D) * k_j
//	dk_j = sum_i ds_ij * f_i * g_j / sqrt(D) * q_i      dv_j = sum_i p_ij * h_j * dy_i
//	df_i = sum_j ds_ij * s_ij / f_i                     dg_j = sum_i ds_ij * s_ij / g_j    dh_j = sum_i p_ij * e_ij
//
// q, kv, dy, dq and dkv have the Precision of the config. With 16 bits, rows times their scores, null keys and values, p,
// and ds are rounded to it before they are multiplied, and gradients of slots and dnull when they are written; softmax and
// sums are float32.
//
// A key score is g and h, where both are on, and its gradient is the sum of both. Key scores that are absent are 1, and still
// have a gradient where the config has them. Empty queries and key slots are not read, and have gradient 0. All elements of
// the results are written.
//
// With KeySourceIndexed a list and route names a row at most once; the gradient of a row that it names more often is
// undefined. The gradients of a row are added in the order of the lists of its item, from the gradients of slots in
// Scratch. With 16 bits, indexed keys without key scores, several lists of an item, and up to 64 queries in each, lists are
// merged: gradients are added from those of sets of 4 lists (routed_attention_backward_sets.go).
//
// Two dispatches: dq and the softmax of the queries, then keys and values. Indexed keys take two more dispatches, merged lists
// three, and each gradient of scores one. The order of summation depends on D, the sizes of an item's lists, and the positions
// of the slots; if lists are merged, on those of all lists of a set.
//
// Shaders: shaders/routed_attention_backward*.comp. CPU reference: internal/ref.RoutedAttentionBackward. Source: arXiv
// 2205.14135.
type RoutedAttentionBackward struct {
	config  RoutedAttentionConfig
	kernels *attentionBackwardKernels
	merged  *attentionBackwardKernels // nil if the config or the device has no merged lists
}

// RoutedAttentionBackwardArgs is one backward pass. Fields that RoutedAttentionArgs has too have the values of the forward
// call.
type RoutedAttentionBackwardArgs struct {
	Q, KV       vk.Range
	Indices     vk.Range // with KeySourceIndexed
	Valid       vk.Range // 0: an empty slot; with KeySourcePrefix of rows of kv, else of key slots
	KeyScores   vk.Range // absent: 1
	QueryValid  vk.Range // 0: an empty slot
	QueryScores vk.Range
	Null        vk.Range
	Lists       int
	Queries     int // per list
	KeysPerList int // slots per list and route; 0 with KeySourcePrefix
	PerItem     int // lists per item; 0: 1
	KVRows      int // M; 0 with KeySourceOwn
	WindowSize  int // with KeySourcePrefix: tokens of a window

	Y            vk.Range // the result of the forward call; not read for empty queries
	DY           vk.Range // the gradient of the result; not read for empty queries
	DQ           vk.Range
	DKV          vk.Range // in the shape of KV
	DNull        vk.Range // [Lists, 2, H, D]: for each list; of merged lists, the sum is that of the first one, and the others are 0
	DKeyScores   vk.Range // with ScoreKeys or ScoreValues
	DQueryScores vk.Range // with ScoreQueries
	Scratch      vk.Range // of RoutedAttentionBackwardScratch bytes
}

// The kernels of queries and keys have a routedAttentionPush after their addresses.
type (
	routedTablePush  struct{ slots, keys, rows uint32 }           // after three addresses
	routedSumPush    struct{ groups, rows, keys, perItem uint32 } // after three addresses
	routedScoresPush struct{ count, slots, routes, heads uint32 } // after two addresses
)

var (
	_ = [1]struct{}{}[unsafe.Sizeof(routedTablePush{})-12]
	_ = [1]struct{}{}[unsafe.Sizeof(routedSumPush{})-16]
	_ = [1]struct{}{}[unsafe.Sizeof(routedScoresPush{})-16]
)

// routedBackwardThreads is the workgroup size of the small kernels.
const routedBackwardThreads = 128

// routedScratch is the division of the scratch memory. Sets are those of routed_attention_backward_sets.go.
type routedScratch struct {
	states     vk.Range // [Lists, Queries, H, 4]: the softmax of queries
	queryParts vk.Range // [Lists, Queries, H]: gradients of query scores by head
	keyParts   vk.Range // [Lists, KeysPerList, H]: gradients of key scores by head
	table      vk.Range // [Lists, R, M] u32: slots of rows in lists
	parts      vk.Range // [Lists, KeysPerList, H, 2, D] in the precision: gradients of the keys and values of slots; or of sets: [Sets, Capacity, H, 2, D]
	ones       vk.Range // [Lists, R, KeysPerList]: absent key scores
	setRows    vk.Range // [Sets, R, Capacity] u32: rows of kv
	setSlots   vk.Range // [Sets, R, Capacity, 4] u32: their slots in the lists
	setCounts  vk.Range // [Sets, R, 2] u32: rows that all lists name, and that only some name
	positions  vk.Range // [Sets, R, M] u32: positions of rows in sets
}

// backwardScratchSizes returns the sizes of the fields of routedScratch in bytes.
func (c RoutedAttentionConfig) backwardScratchSizes(a RoutedAttentionBackwardArgs, merged bool) (sizes [10]uint64) {
	if a.Lists < 1 || a.Queries < 1 || a.KeysPerList < 0 || a.KVRows < 0 || c.Heads < 1 || c.Routes < 1 || c.DimHead < 1 {
		return sizes
	}
	lists, keys, routes, heads := uint64(a.Lists), uint64(a.KeysPerList), uint64(c.Routes), uint64(c.Heads)
	queryHeads, keyHeads, partHeads := lists*uint64(a.Queries)*heads, lists*keys*heads, lists*keys*heads
	sizes[0] = attentionStateBytes * queryHeads
	if c.ScoreQueries {
		sizes[1] = 4 * queryHeads
	}
	if c.ScoreKeys || c.ScoreValues {
		sizes[2] = 4 * keyHeads
		if !merged {
			sizes[5] = 4 * lists * routes * keys
		}
	}
	if merged {
		m := mergedSizesOf(a)
		places := m.sets * routes * m.capacity
		sizes[6], sizes[7], sizes[8], sizes[9] = 4*places, 4*mergedLists*places, 8*m.sets*routes, 4*m.sets*routes*uint64(a.KVRows)
		partHeads = m.sets * m.capacity * heads
	}
	if c.KeySource == KeySourceIndexed {
		sizes[3] = 4 * lists * routes * uint64(a.KVRows)
		sizes[4] = 2 * uint64(c.Precision.Size()) * partHeads * uint64(c.DimHead)
	}
	return sizes
}

// RoutedAttentionBackwardScratch is the size of the scratch memory in bytes, from the sizes in a.
func RoutedAttentionBackwardScratch(c RoutedAttentionConfig, a RoutedAttentionBackwardArgs) uint64 {
	bytes := func(merged bool) (sum uint64) {
		for _, size := range c.backwardScratchSizes(a, merged) {
			sum += ceilDiv(size, vec4Align) * vec4Align
		}
		return sum
	}
	if c.merges(a) {
		return max(bytes(true), bytes(false))
	}
	return bytes(false)
}

// divideScratch returns the fields of the scratch memory. Those that the config does not need are absent.
func (c RoutedAttentionConfig) divideScratch(a RoutedAttentionBackwardArgs, merged bool) routedScratch {
	var s routedScratch
	fields, offset := []*vk.Range{
		&s.states, &s.queryParts, &s.keyParts, &s.table, &s.parts, &s.ones, &s.setRows, &s.setSlots, &s.setCounts, &s.positions,
	}, uint64(0)
	for i, size := range c.backwardScratchSizes(a, merged) {
		if size > 0 {
			*fields[i] = a.Scratch.Slice(offset, size)
		}
		offset += ceilDiv(size, vec4Align) * vec4Align
	}
	return s
}

// NewRoutedAttentionBackward makes the backward pass for a device, with the config of the forward pass. Record compiles
// kernels when it first needs them.
func NewRoutedAttentionBackward(dev *vk.Device, c RoutedAttentionConfig) (*RoutedAttentionBackward, error) {
	const op = "RoutedAttentionBackward"
	if err := c.check(op); err != nil {
		return nil, err
	}
	k, err := newAttentionBackwardKernels(dev, op, attentionConfig{
		name: "routed_attention_backward", heads: c.Heads, dimHead: c.DimHead, factors: c.ScoreValues || c.ScoreKeys || c.ScoreQueries,
		precision: c.Precision, spec: c.spec(),
	})
	if err != nil {
		return nil, err
	}
	k.wideQueries = wideListQueries
	k.ofQueries = []uint32{shaders.RoutedAttentionQueryValid, shaders.RoutedAttentionScoreQueries}
	merged, err := newMergedKernels(dev, op, c)
	if err != nil {
		return nil, err
	}
	return &RoutedAttentionBackward{c, k, merged}, nil
}

// Record appends two to seven dispatches to a command list, or more if they are very large, and up to three fills.
func (r *RoutedAttentionBackward) Record(list *vk.CommandList, a RoutedAttentionBackwardArgs) error {
	const op = "RoutedAttentionBackward"
	if a.PerItem == 0 {
		a.PerItem = 1
	}
	if err := r.check(op, a); err != nil {
		return err
	}
	merged := r.merged != nil && r.config.merges(a) && a.KeyScores.IsZero()
	s, attention := r.config.divideScratch(a, merged), r.recordAttention
	if merged {
		attention = r.recordMerged
	}
	if err := attention(list, op, a, s); err != nil {
		return err
	}
	if err := r.recordScores(list, op, s.queryParts, a.DQueryScores, a.Lists, a.Queries, 1); err != nil {
		return err
	}
	return r.recordScores(list, op, s.keyParts, a.DKeyScores, a.Lists, a.KeysPerList, r.config.Routes)
}

// recordAttention records the gradients of queries, keys and values, and those of scores by head.
func (r *RoutedAttentionBackward) recordAttention(list *vk.CommandList, op string, a RoutedAttentionBackwardArgs, s routedScratch) error {
	c := r.config
	if a.KeyScores.IsZero() && !s.ones.IsZero() {
		if err := list.Fill(s.ones, math.Float32bits(1)); err != nil {
			return err
		}
		a.KeyScores = s.ones
	}
	push := routedAttentionPush{
		lists: uint32(a.Lists), queries: uint32(a.Queries), keys: uint32(a.KeysPerList), perItem: uint32(a.PerItem), rows: uint32(a.KVRows), windowSize: uint32(a.WindowSize),
	}
	scalars := func(first, end uint32) []byte {
		push.first, push.end = first, end
		return vk.Scalars(&push)
	}
	units := uint64(a.Lists) * uint64(c.Heads)
	statesAndParts := a.Scratch.Slice(0, s.states.Size()+s.queryParts.Size()) // the shader has one address for both
	inputs := []vk.Access{vk.Read(a.Q), vk.Read(a.KV), vk.Read(a.Indices), vk.Read(a.Valid), vk.Read(a.KeyScores)}
	queries := attentionBackwardWork{
		stage: "queries", sets: units, rows: a.Queries, others: max(a.KeysPerList, min(a.WindowSize*(a.PerItem-1), a.KVRows)) + 1,
		pairs: float64(units) * float64(a.Queries) * (c.meanKeys(a.inputs()) + 1),
		bytes: float64(a.Q.Size() + a.KV.Size() + a.DY.Size() + a.DQ.Size() + s.states.Size()),
		args: append(inputs[:5:5], vk.Read(a.QueryValid), vk.Read(a.QueryScores), vk.Read(a.Null), vk.Read(a.DY), vk.Read(a.Y),
			vk.Write(statesAndParts), vk.Write(a.DQ)),
	}
	keys := attentionBackwardWork{
		stage: "keys", sets: units, rows: a.KeysPerList + 1, others: a.Queries, pairs: queries.pairs, bytes: float64(a.Q.Size() + a.KV.Size() + a.DY.Size()),
	}
	dkv := a.DKV
	switch c.KeySource {
	case KeySourceIndexed:
		dkv = s.parts
	case KeySourcePrefix:
		keys.sets, keys.rows, keys.extra = uint64(a.Lists/a.PerItem)*uint64(c.Heads), a.KVRows, units
		keys.others = a.Queries * a.PerItem
	}
	keys.bytes += float64(dkv.Size() + s.states.Size())
	keys.args = append(inputs[:5:5], vk.Read(a.Null), vk.Read(a.DY), vk.Read(s.states), vk.Write(dkv), vk.Write(a.DNull), vk.Write(s.keyParts))
	if err := firstError(r.kernels.record(list, op, queries, scalars), r.kernels.record(list, op, keys, scalars)); err != nil || c.KeySource != KeySourceIndexed {
		return err
	}
	return firstError(
		list.Fill(s.table, 0),
		r.recordTable(list, op, a, s.table),
		r.recordRowSums(list, op, a, s.parts, s.table, a.PerItem, a.KeysPerList),
	)
}

// recordTable records which slots of lists name a row, in a table that is 0.
func (r *RoutedAttentionBackward) recordTable(list *vk.CommandList, op string, a RoutedAttentionBackwardArgs, table vk.Range) error {
	slots := uint64(a.Lists) * uint64(r.config.Routes) * uint64(a.KeysPerList)
	return r.small(list, op, "table", ceilDiv(slots, routedBackwardThreads), vk.Dispatch{
		Args:  []vk.Access{vk.Read(a.Indices), vk.Read(a.Valid), vk.ReadWrite(table)},
		Push:  vk.Scalars(&routedTablePush{uint32(slots), uint32(a.KeysPerList), uint32(a.KVRows)}),
		Bytes: float64(a.Indices.Size() + a.Valid.Size() + 4*slots),
	})
}

// recordRowSums records the gradients of rows from parts [.., perItem, keys, H, 2, D] for each item. table [.., perItem, R, M] has
// the key that a row is in each of the perItem, plus 1, or 0.
func (r *RoutedAttentionBackward) recordRowSums(list *vk.CommandList, op string, a RoutedAttentionBackwardArgs, parts, table vk.Range, perItem, keys int) error {
	c := r.config
	if err := checkIterations(r.kernels.dev.Caps(), op, fmt.Sprintf("a sum over %d lists", perItem), perItem); err != nil {
		return err
	}
	units := ceilDiv(uint64(2*c.Heads*c.DimHead), c.sumUnit())
	groups := uint64(a.Lists/a.PerItem) * uint64(a.KVRows) * ceilDiv(units, routedBackwardThreads)
	return r.small(list, op, "sum", groups, vk.Dispatch{
		Args:  []vk.Access{vk.Read(parts), vk.Read(table), vk.Write(a.DKV)},
		Push:  vk.Scalars(&routedSumPush{uint32(groups), uint32(a.KVRows), uint32(keys), uint32(perItem)}),
		Flops: float64(parts.Size()) / float64(c.Precision.Size()), Bytes: float64(parts.Size() + table.Size() + a.DKV.Size()),
	})
}

// sumUnit is the number of elements that an invocation adds up: 16 bytes, if heads are a multiple of that, else 4.
func (c RoutedAttentionConfig) sumUnit() uint64 {
	unit := 16
	if c.DimHead*c.Precision.Size()%16 != 0 {
		unit = 4
	}
	return uint64(unit / c.Precision.Size())
}

// recordScores records the gradients of scores [lists, routes, slots] from those by head. It does nothing if they are
// absent.
func (r *RoutedAttentionBackward) recordScores(list *vk.CommandList, op string, parts, scores vk.Range, lists, slots, routes int) error {
	if scores.IsZero() {
		return nil
	}
	count := uint64(lists) * uint64(slots) * uint64(routes)
	return r.small(list, op, "scores", ceilDiv(count, routedBackwardThreads), vk.Dispatch{
		Args:  []vk.Access{vk.Read(parts), vk.Write(scores)},
		Push:  vk.Scalars(&routedScoresPush{uint32(count), uint32(slots), uint32(routes), uint32(r.config.Heads / routes)}),
		Flops: float64(parts.Size() / 4), Bytes: float64(parts.Size() + scores.Size()),
	})
}

// small records a dispatch of one of the small kernels.
func (r *RoutedAttentionBackward) small(list *vk.CommandList, op, stage string, groups uint64, d vk.Dispatch) (err error) {
	if d.Groups, err = workgroups(r.kernels.dev.Caps(), op, groups); err != nil {
		return err
	}
	if d.Kernel, err = r.smallKernel(stage); err != nil {
		return fmt.Errorf("pipelines: %s: %w", op, err)
	}
	return list.Dispatch(d)
}

func (r *RoutedAttentionBackward) smallKernel(stage string) (*vk.Kernel, error) {
	spec := map[uint32]uint32{}
	switch stage {
	case "merge":
		spec[shaders.RoutedAttentionRoutes] = uint32(r.config.Routes)
	case "sum":
		spec = map[uint32]uint32{
			shaders.RoutedAttentionBackwardSumHeads: uint32(r.config.Heads), shaders.RoutedAttentionBackwardSumDimHead: uint32(r.config.DimHead),
			shaders.RoutedAttentionRoutes: uint32(r.config.Routes), shaders.RoutedAttentionBackwardSumDType: uint32(r.config.Precision),
		}
	}
	name := "routed_attention_backward_" + stage
	return r.kernels.get(name, name, false, spec)
}

// inputs returns the arguments that the forward pass has too.
func (a RoutedAttentionBackwardArgs) inputs() RoutedAttentionArgs {
	return RoutedAttentionArgs{
		Q: a.Q, KV: a.KV, Indices: a.Indices, Valid: a.Valid, KeyScores: a.KeyScores, QueryValid: a.QueryValid, QueryScores: a.QueryScores,
		Null: a.Null, Lists: a.Lists, Queries: a.Queries, KeysPerList: a.KeysPerList, PerItem: a.PerItem, KVRows: a.KVRows, WindowSize: a.WindowSize,
	}
}

func (r *RoutedAttentionBackward) check(op string, a RoutedAttentionBackwardArgs) error {
	c := r.config
	given := c
	if a.KeyScores.IsZero() {
		given.ScoreValues, given.ScoreKeys = false, false
	}
	if err := given.checkInputs(op, a.inputs()); err != nil {
		return err
	}
	lists, queries, h, d := dim{"Lists", a.Lists}, dim{"Queries", a.Queries}, dim{"H", c.Heads}, dim{"D", c.DimHead}
	return firstError(
		checkPositive(op, dim{"Lists*Queries", a.Lists * a.Queries}, dim{"Lists*R*(KeysPerList+1)", a.Lists * c.Routes * (a.KeysPerList + 1)}),
		checkPositive(op, dim{"WindowSize*PerItem+1", a.WindowSize*a.PerItem + 1}),
		c.Precision.checkHeadTensor(op, "y", a.Y, lists, queries, h, d),
		c.Precision.checkHeadTensor(op, "dy", a.DY, lists, queries, h, d),
		c.Precision.checkHeadTensor(op, "dq", a.DQ, lists, queries, h, d),
		c.Precision.checkHeadTensor(op, "dkv", a.DKV, c.kvShape(a.inputs())...),
		F32.checkHeadTensor(op, "dnull", a.DNull, lists, dim{"2", 2}, h, d),
		checkPresence(c.ScoreValues || c.ScoreKeys, op, "dkey scores", a.DKeyScores, wordAlign, f32, lists, dim{"R", c.Routes}, dim{"KeysPerList", a.KeysPerList}),
		checkPresence(c.ScoreQueries, op, "dquery scores", a.DQueryScores, wordAlign, f32, lists, queries),
		checkRange(op, "scratch", a.Scratch, vec4Align, RoutedAttentionBackwardScratch(c, a), "RoutedAttentionBackwardScratch"),
	)
}

// Close frees the kernels. It may be called again, and on nil.
func (r *RoutedAttentionBackward) Close() error {
	if r == nil {
		return nil
	}
	return firstError(r.kernels.Close(), r.merged.Close())
}
