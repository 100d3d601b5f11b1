package pipelines

import (
	"fmt"
	"unsafe"

	"github.com/colt5-vulkan/colt5/vk"
)

// RoutedAttention is the attention of routed queries to routed keys and values: in one pass with a running softmax, which starts with one
// more key and value of every head.
//
//	q [Lists, Queries, H, D] in the Precision    null [2, H, D] f32 in    y [Lists, Queries, H, D] in the Precision out
//	KeysOwn:      kv [R, Lists, Keys, H/R, 2, D] in the Precision
//	KeysIndexed:  kv [Items, M, H, 2, D] likewise    indices [Lists, R, Keys] i32 in
//	KeysPrefix:   kv [Items, M, H, 2, D] likewise                                        Items = Lists / PerItem
//	filled [Lists, R, Keys] u32 in    key scores [Lists, R, Keys] f32 in    KeysPrefix: filled [Items, M] u32 in
//	query filled [Lists, Queries] u32 in    query scores [Lists, Queries] f32 in
//	s[i, j] = q[i] . k[j] / sqrt(D) * score of the query * score of the key
//	y[i] = sum_j softmax_j(s[i]) * v[j] * score of the value, over the slots of the query's list and its null key and value
//
// Of kv's two rows the first is the key, the second the value. Head h reads route h / (H / R). A key slot is empty, and takes no part,
// if its filled word is 0 or its index is not one of 0..M-1; if all are, y is the null value. A key's score of 0 is a score like any
// other. With KeysPrefix list l sees rows 0 to min((l % PerItem) * Prefix, M) - 1 of its item, of those that are filled. A query slot is
// empty, and its row of y keeps what it holds, if its filled word or its score is 0. The null key and value are never scored.
//
// With Precision F16 or BF16 products run on cooperative matrices, whose operands are rounded after they were scored; scores, softmax and
// sums are float32.
//
// The order of summation depends on D, the device, and the places of the slots alone.
//
// Shader: shaders/routed_attention.comp. Reference: internal/ref.RoutedAttention. Source: arXiv 2205.14135.
type RoutedAttention struct {
	config  RoutedAttentionConfig
	kernels *attentionKernels
}

// Keys says where the keys and values of a list are.
type Keys uint32

// The places.
const (
	KeysOwn     Keys = iota // every list and route has its own
	KeysIndexed             // lists name rows of their item
	KeysPrefix              // lists see the first rows of their item
)

// RoutedAttentionConfig is baked into the kernel. A part that is false is left out, and its argument must be absent.
type RoutedAttentionConfig struct {
	Heads, DimHead int // H; D, 1 to 128, even with F16 and BF16
	Routes         int // R, a divisor of Heads; 1 with KeysPrefix
	Keys           Keys
	Valid          bool
	QueryValid     bool
	ScoreValues    bool  // by KeyScores; not with KeysPrefix
	ScoreKeys      bool  // by KeyScores; not with KeysPrefix
	ScoreQueries   bool  // by QueryScores
	Precision      DType // of q, kv and y
}

// RoutedAttentionArgs is one attention.
type RoutedAttentionArgs struct {
	Q, KV       vk.Range
	Indices     vk.Range // with KeysIndexed
	Valid       vk.Range // 0 or 1; of rows with KeysPrefix, of slots else
	KeyScores   vk.Range
	QueryValid  vk.Range // 0 or 1
	QueryScores vk.Range
	Null        vk.Range
	Y           vk.Range
	Lists       int
	Queries     int // of a list
	Keys        int // slots of a list and route; 0 with KeysPrefix
	PerItem     int // lists of an item; 0: 1
	KVRows      int // M; 0 with KeysOwn
	Prefix      int // with KeysPrefix
}

type routedAttentionPush struct{ lists, queries, keys, perItem, rows, prefix, first, groups uint32 }

const (
	_ = uint(32 - unsafe.Sizeof(routedAttentionPush{}))
	_ = uint(unsafe.Sizeof(routedAttentionPush{}) - 32)
)

// NewRoutedAttention checks the config. Kernels are compiled when Record first needs them.
func NewRoutedAttention(dev *vk.Device, c RoutedAttentionConfig) (*RoutedAttention, error) {
	const op = "RoutedAttention"
	if err := attentionHeads(op, c.Heads, c.DimHead, c.Precision); err != nil {
		return nil, err
	}
	switch {
	case c.Routes < 1 || c.Heads%c.Routes != 0:
		return nil, fmt.Errorf("pipelines: %s: Routes is %d, want a divisor of Heads, %d", op, c.Routes, c.Heads)
	case c.Keys > KeysPrefix:
		return nil, fmt.Errorf("pipelines: %s: Keys is %d, want KeysOwn, KeysIndexed or KeysPrefix", op, c.Keys)
	case c.Keys == KeysPrefix && (c.Routes != 1 || c.ScoreValues || c.ScoreKeys):
		return nil, fmt.Errorf("pipelines: %s: Keys is KeysPrefix, want one route, and no ScoreValues or ScoreKeys: got %+v", op, c)
	}
	spec := map[uint32]uint32{
		8: uint32(c.Heads), 9: uint32(c.Routes), 10: uint32(c.Keys), 11: specBool(c.Valid), 12: specBool(c.QueryValid),
		13: specBool(c.ScoreValues), 14: specBool(c.ScoreKeys), 15: specBool(c.ScoreQueries),
	}
	k, err := newAttentionKernels(dev, op, attentionConfig{
		name: "routed_attention", dimHead: c.DimHead, factors: c.ScoreValues || c.ScoreKeys || c.ScoreQueries, precision: c.Precision, spec: spec,
		matrices: attentionMatrixTiles,
	})
	if err != nil {
		return nil, err
	}
	return &RoutedAttention{c, k}, nil
}

// Record adds the attention to a tape: one dispatch, or several if it is very large.
func (r *RoutedAttention) Record(t *vk.CommandList, a RoutedAttentionArgs) error {
	const op = "RoutedAttention"
	if a.PerItem == 0 {
		a.PerItem = 1
	}
	if err := r.check(a); err != nil {
		return err
	}
	c := r.config
	keys := float64(a.Keys)
	if c.Keys == KeysPrefix {
		keys = float64(min(a.Prefix*(a.PerItem-1), 2*a.KVRows)) / 2 // of a list, on the average
	}
	push := routedAttentionPush{
		lists: uint32(a.Lists), queries: uint32(a.Queries), keys: uint32(a.Keys), perItem: uint32(a.PerItem), rows: uint32(a.KVRows), prefix: uint32(a.Prefix),
	}
	args := []vk.Access{vk.Read(a.Q), vk.Read(a.KV), vk.Read(a.Indices), vk.Read(a.Valid), vk.Read(a.KeyScores), vk.Read(a.QueryValid),
		vk.Read(a.QueryScores), vk.Read(a.Null), vk.ReadWrite(a.Y)}
	if !c.QueryValid && !c.ScoreQueries {
		args[8] = vk.Write(a.Y)
	}
	bytes := a.Q.Size() + a.Y.Size() + a.KV.Size() + a.Indices.Size() + a.Valid.Size() + a.KeyScores.Size()
	return r.kernels.record(t, op, attentionWork{
		queries: a.Queries, keys: max(a.Keys, a.KVRows), units: uint64(a.Lists) * uint64(c.Heads),
		flops: 4 * float64(c.DimHead) * float64(c.Heads) * float64(a.Lists) * float64(a.Queries) * (keys + 1), bytes: float64(bytes), args: args,
	}, func(first, groups uint32) []byte {
		push.first, push.groups = first, groups
		return vk.Scalars(&push)
	})
}

func (r *RoutedAttention) check(a RoutedAttentionArgs) error {
	const op = "RoutedAttention"
	c := r.config
	lists, queries, keys, h, d, routes := dim{"Lists", a.Lists}, dim{"Queries", a.Queries}, dim{"Keys", a.Keys}, dim{"H", c.Heads}, dim{"D", c.DimHead}, dim{"R", c.Routes}
	if err := checkPositive(op, lists, queries, dim{"PerItem", a.PerItem}); err != nil {
		return err
	}
	if err := attentionRows(op, lists, queries, h); err != nil {
		return err
	}
	if a.Lists%a.PerItem != 0 {
		return fmt.Errorf("pipelines: %s: PerItem is %d, want a divisor of Lists, %d", op, a.PerItem, a.Lists)
	}
	items, m, two := dim{"Items", a.Lists / a.PerItem}, dim{"M", a.KVRows}, dim{"2", 2}
	kv := []dim{items, m, h, two, d}
	var err error
	switch c.Keys {
	case KeysOwn:
		kv = []dim{routes, lists, keys, {"H/R", c.Heads / c.Routes}, two, d}
		err = firstError(checkPositive(op, keys), absentNumber(op, "KVRows", a.KVRows), absentNumber(op, "Prefix", a.Prefix))
	case KeysIndexed:
		err = firstError(checkPositive(op, keys, m), absentNumber(op, "Prefix", a.Prefix))
	case KeysPrefix:
		err = firstError(checkPositive(op, m, dim{"Prefix", a.Prefix}, dim{"Prefix*PerItem", a.Prefix * a.PerItem}), absentNumber(op, "Keys", a.Keys))
	}
	if err != nil {
		return err
	}
	if err := firstError(attentionRows(op, kv[:len(kv)-1]...), attentionRows(op, lists, routes, keys)); err != nil {
		return err
	}
	filled := []dim{lists, routes, keys}
	if c.Keys == KeysPrefix {
		filled = []dim{items, m}
	}
	return firstError(
		c.Precision.heads(op, "q", a.Q, lists, queries, h, d),
		c.Precision.heads(op, "kv", a.KV, kv...),
		checkPresence(c.Keys == KeysIndexed, op, "indices", a.Indices, wordAlign, i32, lists, routes, keys),
		checkPresence(c.Valid, op, "filled", a.Valid, wordAlign, u32, filled...),
		checkPresence(c.ScoreValues || c.ScoreKeys, op, "key scores", a.KeyScores, wordAlign, f32, lists, routes, keys),
		checkPresence(c.QueryValid, op, "query filled", a.QueryValid, wordAlign, u32, lists, queries),
		checkPresence(c.ScoreQueries, op, "query scores", a.QueryScores, wordAlign, f32, lists, queries),
		F32.heads(op, "null", a.Null, two, h, d),
		c.Precision.heads(op, "y", a.Y, lists, queries, h, d),
	)
}

func absentNumber(op, name string, n int) error {
	if n != 0 {
		return fmt.Errorf("pipelines: %s: %s is %d, want 0: the config does not use it", op, name, n)
	}
	return nil
}

// Close frees the kernels.
func (r *RoutedAttention) Close() error {
	if r == nil {
		return nil
	}
	return r.kernels.Close()
}
