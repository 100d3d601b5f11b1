package pipelines

import (
	"fmt"
	"unsafe"

	"github.com/colt5-vulkan/colt5/shaders"
	"github.com/colt5-vulkan/colt5/vk"
)

// RoutedAttention is the attention of routed queries to routed keys and values, and to a null key and value of every
// head. It runs in one pass with an online softmax.
//
//	q [Lists, Queries, H, D] in    y [Lists, Queries, H, D] out, both in the Precision    null [2, H, D] f32 in
//	KeySourceOwn:      kv [R, Lists, KeysPerList, H/R, 2, D] in, in the Precision
//	KeySourceIndexed:  kv [Items, M, H, 2, D] in, in the Precision    indices [Lists, R, KeysPerList] i32 in
//	KeySourcePrefix:   kv [Items, M, H, 2, D] in, in the Precision    Items = Lists / PerItem
//	valid [Lists, R, KeysPerList] u32 in, with KeySourcePrefix [Items, M]    key scores [Lists, R, KeysPerList] f32 in
//	query valid [Lists, Queries] u32 in    query scores [Lists, Queries] f32 in
//	s[i, j] = q[i] . k[j] / sqrt(D) * score of the query * score of the key
//	y[i] = sum_j softmax_j(s[i]) * v[j] * score of the value, over the key slots of the query's list, and the null key and value
//
// The first of the two rows in kv is the key, the second the value. Head h reads route h / (H / R). A key slot is
// empty, and is left out of the sum, if its valid word is 0 or its index is not in 0..M-1. If all are empty, y is the
// null value. A key score of 0 does not make a slot empty. With KeySourcePrefix, list l attends to the valid rows among
// rows 0 to min((l % PerItem) * WindowSize, M) - 1 of its item. A query slot whose valid word or score is 0 is skipped:
// its row of y keeps its contents. The null key and value have no scores.
//
// With Precision F16 or BF16 products run on cooperative matrices. Their operands are rounded after the multiplication
// by scores; logits, softmax and sums are float32.
//
// The order of summation depends only on D, the device, and the positions of the slots.
//
// Shader: shaders/src/routed_attention.comp. CPU reference: internal/ref.RoutedAttention. Source: arXiv 2205.14135.
type RoutedAttention struct {
	config  RoutedAttentionConfig
	kernels *attentionKernels
}

// KeySource is the source of the keys and values of a list.
type KeySource uint32

const (
	KeySourceOwn     KeySource = iota // every list and route has its own rows
	KeySourceIndexed                  // lists have indices of rows of their item
	KeySourcePrefix                   // lists attend to the first rows of their item
)

// RoutedAttentionConfig is fixed when the kernel is compiled. An operation that is false is left out, and its argument
// must be absent.
type RoutedAttentionConfig struct {
	Heads, DimHead int // H; D, 1 to 128, even with F16 and BF16
	Routes         int // R, a divisor of Heads; 1 with KeySourcePrefix
	KeySource      KeySource
	Valid          bool
	QueryValid     bool
	ScoreValues    bool  // by KeyScores; not with KeySourcePrefix
	ScoreKeys      bool  // by KeyScores; not with KeySourcePrefix
	ScoreQueries   bool  // by QueryScores
	Precision      DType // of q, kv and y
}

// RoutedAttentionArgs is one attention.
type RoutedAttentionArgs struct {
	Q, KV       vk.Range
	Indices     vk.Range // with KeySourceIndexed
	Valid       vk.Range // 0: an empty slot; with KeySourcePrefix of rows of kv, else of key slots
	KeyScores   vk.Range
	QueryValid  vk.Range // 0: an empty slot
	QueryScores vk.Range
	Null        vk.Range
	Y           vk.Range
	Lists       int
	Queries     int // per list
	KeysPerList int // slots per list and route; 0 with KeySourcePrefix
	PerItem     int // lists per item; 0: 1
	KVRows      int // M; 0 with KeySourceOwn
	WindowSize  int // with KeySourcePrefix: tokens of a window
}

type routedAttentionPush struct{ lists, queries, keys, perItem, rows, windowSize, first, end uint32 }

var _ = [1]struct{}{}[unsafe.Sizeof(routedAttentionPush{})-32]

// NewRoutedAttention makes the attention for a device. Its kernels are compiled when they are first recorded.
func NewRoutedAttention(dev *vk.Device, c RoutedAttentionConfig) (*RoutedAttention, error) {
	const op = "RoutedAttention"
	if err := c.check(op); err != nil {
		return nil, err
	}
	k, err := newAttentionKernels(dev, op, attentionConfig{
		name: "routed_attention", heads: c.Heads, dimHead: c.DimHead, factors: c.ScoreValues || c.ScoreKeys || c.ScoreQueries, precision: c.Precision,
		matrixTiles: attentionMatrixTiles,
		spec:        c.spec(),
	})
	if err != nil {
		return nil, err
	}
	return &RoutedAttention{c, k}, nil
}

func (c RoutedAttentionConfig) check(op string) error {
	if err := checkHeads(op, c.Heads, c.DimHead, c.Precision); err != nil {
		return err
	}
	switch {
	case c.Routes < 1 || c.Heads%c.Routes != 0:
		return fmt.Errorf("pipelines: %s: Routes is %d, want a divisor of Heads, %d", op, c.Routes, c.Heads)
	case c.KeySource > KeySourcePrefix:
		return fmt.Errorf("pipelines: %s: KeySource is %d, want KeySourceOwn, KeySourceIndexed or KeySourcePrefix", op, c.KeySource)
	case c.KeySource == KeySourcePrefix && (c.Routes != 1 || c.ScoreValues || c.ScoreKeys):
		return fmt.Errorf("pipelines: %s: KeySource is KeySourcePrefix, want one route and no ScoreValues or ScoreKeys: the config is %+v", op, c)
	}
	return nil
}

// spec returns the specialisation constants of shaders/src/include/routed_attention.glsl.
func (c RoutedAttentionConfig) spec() map[uint32]uint32 {
	return map[uint32]uint32{
		shaders.RoutedAttentionRoutes:       uint32(c.Routes),
		shaders.RoutedAttentionKeySource:    uint32(c.KeySource),
		shaders.RoutedAttentionValid:        specBool(c.Valid),
		shaders.RoutedAttentionQueryValid:   specBool(c.QueryValid),
		shaders.RoutedAttentionScoreValues:  specBool(c.ScoreValues),
		shaders.RoutedAttentionScoreKeys:    specBool(c.ScoreKeys),
		shaders.RoutedAttentionScoreQueries: specBool(c.ScoreQueries),
	}
}

// meanKeys is the mean number of key slots of a list.
func (c RoutedAttentionConfig) meanKeys(a RoutedAttentionArgs) float64 {
	if c.KeySource == KeySourcePrefix {
		return float64(min(a.WindowSize*(a.PerItem-1), 2*a.KVRows)) / 2
	}
	return float64(a.KeysPerList)
}

// Record appends the attention to a command list: one dispatch, or several if it is very large.
func (r *RoutedAttention) Record(list *vk.CommandList, a RoutedAttentionArgs) error {
	const op = "RoutedAttention"
	if a.PerItem == 0 {
		a.PerItem = 1
	}
	c := r.config
	if err := firstError(c.checkInputs(op, a), c.Precision.checkHeadTensor(op, "y", a.Y, dim{"Lists", a.Lists}, dim{"Queries", a.Queries}, dim{"H", c.Heads}, dim{"D", c.DimHead})); err != nil {
		return err
	}
	push := routedAttentionPush{
		lists: uint32(a.Lists), queries: uint32(a.Queries), keys: uint32(a.KeysPerList), perItem: uint32(a.PerItem), rows: uint32(a.KVRows), windowSize: uint32(a.WindowSize),
	}
	args := []vk.Access{vk.Read(a.Q), vk.Read(a.KV), vk.Read(a.Indices), vk.Read(a.Valid), vk.Read(a.KeyScores), vk.Read(a.QueryValid),
		vk.Read(a.QueryScores), vk.Read(a.Null), vk.ReadWrite(a.Y)}
	if !c.QueryValid && !c.ScoreQueries { // no query slot is empty: all of y is written
		args[8] = vk.Write(a.Y)
	}
	bytes := a.Q.Size() + a.Y.Size() + a.KV.Size() + a.Indices.Size() + a.Valid.Size() + a.KeyScores.Size()
	return r.kernels.record(list, op, attentionWork{
		queries: a.Queries, keys: max(a.KeysPerList, a.KVRows), querySets: uint64(a.Lists) * uint64(c.Heads),
		flops: 4 * float64(c.DimHead) * float64(c.Heads) * float64(a.Lists) * float64(a.Queries) * (c.meanKeys(a) + 1), bytes: float64(bytes), args: args,
	}, func(first, end uint32) []byte {
		push.first, push.end = first, end
		return vk.Scalars(&push)
	})
}

// checkInputs checks sizes and all arguments but Y.
func (c RoutedAttentionConfig) checkInputs(op string, a RoutedAttentionArgs) error {
	lists, queries, keys, h, d, routes := dim{"Lists", a.Lists}, dim{"Queries", a.Queries}, dim{"KeysPerList", a.KeysPerList}, dim{"H", c.Heads}, dim{"D", c.DimHead}, dim{"R", c.Routes}
	if err := checkPositive(op, lists, queries, dim{"PerItem", a.PerItem}); err != nil {
		return err
	}
	if err := checkRowCount(op, lists, queries, h); err != nil {
		return err
	}
	if a.Lists%a.PerItem != 0 {
		return fmt.Errorf("pipelines: %s: PerItem is %d, want a divisor of Lists, %d", op, a.PerItem, a.Lists)
	}
	items, m, kv := dim{"Items", a.Lists / a.PerItem}, dim{"M", a.KVRows}, c.kvShape(a)
	var err error
	switch c.KeySource {
	case KeySourceOwn:
		err = firstError(checkPositive(op, keys), checkZero(op, "KVRows", a.KVRows), checkZero(op, "WindowSize", a.WindowSize))
	case KeySourceIndexed:
		err = firstError(checkPositive(op, keys, m), checkZero(op, "WindowSize", a.WindowSize))
	case KeySourcePrefix:
		err = firstError(checkPositive(op, m, dim{"WindowSize", a.WindowSize}, dim{"WindowSize*PerItem", a.WindowSize * a.PerItem}), checkZero(op, "KeysPerList", a.KeysPerList))
	}
	if err != nil {
		return err
	}
	if err := firstError(checkRowCount(op, kv[:len(kv)-1]...), checkRowCount(op, lists, routes, keys)); err != nil {
		return err
	}
	valid := []dim{lists, routes, keys}
	if c.KeySource == KeySourcePrefix {
		valid = []dim{items, m}
	}
	return firstError(
		c.Precision.checkHeadTensor(op, "q", a.Q, lists, queries, h, d),
		c.Precision.checkHeadTensor(op, "kv", a.KV, kv...),
		checkPresence(c.KeySource == KeySourceIndexed, op, "indices", a.Indices, wordAlign, i32, lists, routes, keys),
		checkPresence(c.Valid, op, "valid", a.Valid, wordAlign, u32, valid...),
		checkPresence(c.ScoreValues || c.ScoreKeys, op, "key scores", a.KeyScores, wordAlign, f32, lists, routes, keys),
		checkPresence(c.QueryValid, op, "query valid", a.QueryValid, wordAlign, u32, lists, queries),
		checkPresence(c.ScoreQueries, op, "query scores", a.QueryScores, wordAlign, f32, lists, queries),
		F32.checkHeadTensor(op, "null", a.Null, dim{"2", 2}, h, d),
	)
}

func (c RoutedAttentionConfig) kvShape(a RoutedAttentionArgs) []dim {
	h, two, d := dim{"H", c.Heads}, dim{"2", 2}, dim{"D", c.DimHead}
	if c.KeySource == KeySourceOwn {
		return []dim{{"R", c.Routes}, {"Lists", a.Lists}, {"KeysPerList", a.KeysPerList}, {"H/R", c.Heads / c.Routes}, two, d}
	}
	return []dim{{"Items", a.Lists / a.PerItem}, {"M", a.KVRows}, h, two, d}
}

func checkZero(op, name string, n int) error {
	if n != 0 {
		return fmt.Errorf("pipelines: %s: %s is %d, want 0: this config does not use it", op, name, n)
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
