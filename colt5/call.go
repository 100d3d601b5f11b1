package colt5

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/colt5-vulkan/colt5/vk"
)

// call describes one Forward: the tensors, the token counts, and where results about the call go. base.run checks it,
// finds or makes the plan for it, and runs the plan. Everything a plan depends on is part of the call, so its cache key
// is derived here and nowhere else.
type call struct {
	args       args
	counts     [maxCounts]tokenCount
	anyRank    bool          // all arguments have the leading sizes of the first one
	router     *RouterConfig // of a router's call: determines K; else nil
	patch      int           // side of a patch, whose multiples H and W must be; 0: no patches
	randomSeed uint64        // of the logits of random routing; 0: the routing is not random
	static     bool          // routers select evenly spaced tokens

	stats   *CallStats       // nil: not wanted
	routing *[]RoutingRecord // nil: not wanted
	replay  bool             // the lists of routers come from the host; only in a graph
	dropout bool             // dropout is on; only in a graph

	dims [numDims]int // values of the symbolic dimensions; 0: not known yet
}

// args are the tensors of a call, in the order in which they are checked. An array, so that a repeated call allocates
// nothing.
type args [maxArgs]arg

// list is the arguments that a call has.
func (a *args) list() []arg {
	n := 0
	for n < len(a) && a[n].name != "" {
		n++
	}
	return a[:n]
}

// arg is a tensor of a call.
type arg struct {
	name   string
	tensor *Tensor // nil: absent, which only an optional argument may be
	dtype  DType
	kind   argKind
	lead   []int // sizes before those of shape, for arguments of any rank
	shape  shape
	orU8   bool // U8 is accepted too
}

type argKind uint8

const (
	input argKind = iota
	optionalInput
	output
	optionalOutput
)

func (k argKind) optional() bool { return k == optionalInput || k == optionalOutput }
func (k argKind) written() bool  { return k == output || k == optionalOutput }

// shape is the sizes of up to four dimensions, ended by a 0. A negative size is a symbolic dimension: its first use in
// a call binds it, every later one must agree.
type shape [4]int

// The symbolic dimensions.
const (
	dimB       = -1 - iota // batch items
	dimN                   // tokens of a sequence, entries of a row
	dimM                   // tokens of a context
	dimH                   // rows of an image
	dimW                   // columns of an image
	dimK                   // slots of a list
	dimC                   // elements of a token, where no configuration says it
	numDims    = iota
	dimLetters = "BNMHWKC"
)

// Limits that no module exceeds.
const (
	maxArgs   = 9
	maxCounts = 3
)

// tokenCount is how many tokens a call selects.
type tokenCount struct {
	field      string // of the options
	given      int    // 0: the configuration's
	configured int
}

// value is the count of this call.
func (c tokenCount) value() int {
	if c.given == 0 {
		return c.configured
	}
	return c.given
}

func (c tokenCount) check() error {
	switch {
	case c.field == "":
		return nil
	case c.given < 0 || c.given > math.MaxInt32:
		return fmt.Errorf("%s is %d, want 0 (the configuration's) to %d", c.field, c.given, math.MaxInt32)
	case c.value() < 1:
		return fmt.Errorf("%s is %d, want at least 1", c.field, c.value())
	}
	return nil
}

// dim is the value of a symbolic dimension.
func (c *call) dim(symbol int) int { return c.dims[-1-symbol] }

func (c *call) bind(symbol, value int) { c.dims[-1-symbol] = value }

// find is the argument of a name, nil if the call has none.
func (c *call) find(name string) *arg {
	for i := range c.args {
		if c.args[i].name == name {
			return &c.args[i]
		}
	}
	return nil
}

// check checks all arguments and binds the symbolic dimensions. It allocates only where it fails. dev is nil for the
// values of a graph, whose unknown sizes fit everything.
func (c *call) check(dev *vk.Device) error {
	if c.anyRank {
		c.setLead()
	}
	if c.router != nil {
		if err := c.router.bindSlots(c); err != nil {
			return err
		}
	}
	for i := range c.args.list() {
		if err := c.checkArg(&c.args[i], dev); err != nil {
			return err
		}
	}
	if err := c.checkPatches(); err != nil {
		return err
	}
	for _, n := range c.counts {
		if err := n.check(); err != nil {
			return err
		}
	}
	return nil
}

// checkPatches checks that an image consists of whole patches.
func (c *call) checkPatches() error {
	if c.patch == 0 {
		return nil
	}
	return checkPatches(c.dim(dimH), c.dim(dimW), "pixels", "LightWindowSize", c.patch)
}

func (c *call) checkArg(a *arg, dev *vk.Device) error {
	t := a.tensor
	if t == nil && a.kind.optional() {
		return nil
	}
	if t == nil || dev != nil && !t.hasMemory() || t.dtype != a.dtype && !(a.orU8 && t.dtype == U8) || !c.fits(a, t.shape) {
		return fmt.Errorf("%s is %v, want %s", a.name, t, c.wanted(a))
	}
	if dev == nil {
		return nil
	}
	if t.closed.Load() {
		return fmt.Errorf("%s is a tensor that is %w", a.name, vk.ErrClosed)
	}
	if t.Device() != dev {
		return fmt.Errorf("%s is on another device than the module: it was made with another vk.Device (%s, the module's is %s)",
			a.name, t.Device().Info().Name, dev.Info().Name)
	}
	return nil
}

// fits compares a shape with an argument's, and binds the dimensions that are not bound yet.
func (c *call) fits(a *arg, got []int) bool {
	if len(got) != len(a.lead)+a.shape.rank() {
		return false
	}
	for i, n := range a.lead {
		if got[i] != n && got[i] != 0 && n != 0 {
			return false
		}
	}
	for i, n := range got[len(a.lead):] {
		want := a.shape[i]
		if want < 0 {
			if c.dim(want) == 0 {
				c.bind(want, n)
			}
			want = c.dim(want)
		}
		if n != want && n != 0 && want != 0 { // 0: not known before a graph runs
			return false
		}
	}
	return true
}

// sizes is the shape of an argument, with 0 for what is not bound.
func (c *call) sizes(a *arg) []int {
	list := slices.Clone(a.lead)
	for _, n := range a.shape[:a.shape.rank()] {
		if n < 0 {
			n = c.dim(n)
		}
		list = append(list, n)
	}
	return list
}

// setLead gives all arguments the leading sizes of the first one: those before its own.
func (c *call) setLead() {
	first := &c.args[0]
	if first.tensor == nil || len(first.tensor.shape) < first.shape.rank() {
		return // the check of the first argument fails
	}
	lead := first.tensor.shape[:len(first.tensor.shape)-first.shape.rank()]
	for i := range c.args.list() {
		c.args[i].lead = lead
	}
}

// sizeString prints a size; 0 is one that is not known.
func sizeString(n int) string {
	if n == 0 {
		return "*"
	}
	return strconv.Itoa(n)
}

func (s shape) rank() int {
	n := 0
	for n < len(s) && s[n] != 0 {
		n++
	}
	return n
}

// wanted describes the tensor that an argument may be. A dimension that this argument itself determines is printed as *.
func (c *call) wanted(a *arg) string {
	bound := call{} // has the dimensions of the arguments before a
	bound.bind(dimK, c.dim(dimK))
	for i := range c.args {
		before := &c.args[i]
		if before == a {
			break
		}
		if before.tensor != nil {
			bound.fits(before, before.tensor.shape)
		}
	}
	var sizes []string
	for _, n := range a.lead {
		sizes = append(sizes, sizeString(n))
	}
	for _, n := range a.shape[:a.shape.rank()] {
		switch {
		case n > 0:
			sizes = append(sizes, fmt.Sprint(n))
		case bound.dim(n) > 0:
			sizes = append(sizes, fmt.Sprint(bound.dim(n)))
		default:
			sizes = append(sizes, "*")
		}
	}
	list := "[" + strings.Join(sizes, " ") + "]"
	if a.orU8 {
		return a.dtype.String() + list + " or " + U8.String() + list
	}
	return a.dtype.String() + list
}

// planKey is everything that a plan depends on: calls with equal keys share a plan.
type planKey struct {
	dims             [numDims]int
	lead             int // product of the leading sizes
	counts           [maxCounts]int
	given            uint16 // bit i: argument i is present
	u8               uint16 // bit i: argument i is u8
	random, static   bool
	profile, routing bool
}

func (c *call) key() planKey {
	k := planKey{dims: c.dims, lead: c.lead(), random: c.randomSeed != 0, static: c.static, profile: c.profiled(), routing: c.routing != nil}
	for i := range c.args {
		t := c.args[i].tensor
		if t == nil {
			continue
		}
		k.given |= 1 << i
		if t.dtype == U8 {
			k.u8 |= 1 << i
		}
	}
	for i, n := range c.counts {
		k.counts[i] = n.value()
	}
	return k
}

// control reports whether the call selects at random or evenly: routers have no gradient, and each selected token scores 1.
func (c *call) control() bool { return c.randomSeed != 0 || c.static }

// lead is the product of the leading sizes of the first argument.
func (c *call) lead() int {
	n := 1
	for _, size := range c.args[0].lead {
		n *= size
	}
	return n
}

func (c *call) profiled() bool { return c.stats != nil && c.stats.Profile }
