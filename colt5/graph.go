package colt5

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/colt5-vulkan/colt5/internal/errtext"
	"github.com/colt5-vulkan/colt5/vk"
)

// Graph is a computation of several modules and operations that runs as one call: one submit, with one workspace for all
// results between the nodes.
//
// A graph is built from values: tensors without memory, whose sizes may be unknown. [Graph.Input] makes a value that the
// caller supplies, [Graph.Value] one that a module computes. Forward of a module with values for its tensors adds a node
// to the graph instead of running. Methods such as [Graph.Add] add a node and return the value that it computes.
//
//	g := colt5.NewGraph(dev)
//	x, mask, h := g.Input("x", colt5.U8, 0, 0), g.Input("mask", colt5.U8, 0, 0), g.Value("encoded")
//	err := encoder.Forward(ctx, h, x, colt5.BlockOptions{Mask: mask})
//	document := g.Mean(h, mask)
//	g.Output("document", document)
//	err = g.Run(ctx, map[string]*colt5.Tensor{"x": ids, "document": y}, colt5.GraphOptions{})
//
// The sizes are those of the tensors that a run is given. Like a module, a graph keeps plans for the shapes that it has
// seen. An input may be left out of a run if all its uses are optional arguments, such as masks. An output may be left
// out too: nodes that no output needs do not run.
//
// The modules stay the caller's, who may call them alone, load new weights into them, and use them in several graphs. A
// graph uses a module's weights; the precision is the module's. One goroutine builds a graph; after that, several may run
// it. Its runs, and other calls of its modules, run one after the other.
type Graph struct {
	lifecycle
	dev     *vk.Device
	values  []*Tensor
	nodes   []*graphNode
	named   map[string]int // of a name that a node has: the number of its last namesake, see uniqueName
	inputs  []*Tensor
	outputs []graphOutput
	fixed   bool  // a run, Prepare or Memory has begun: nothing can be added
	err     error // the first error while building
	kernels kernels

	submitted *plan          // the run that Wait waits for; nil: none
	failed    error          // of a submitted run that has ended, for Wait
	modules   []*base        // each once, in the order in which they are locked
	externals []external     // the tensors of the run in progress: inputs, then outputs
	keys      map[string]int // numbers the keys of kept plans, so that finding a plan allocates nothing
	numbers   int            // given so far
	key       []byte         // of the run in progress
	plans     planCache[int]
}

// graphValue is what makes a tensor a value of a graph.
type graphValue struct {
	graph *Graph
	index int
	name  string
	input bool
	from  *graphNode // computes it; nil: an input, or not computed yet
}

// graphNode is a module or an operation in a graph.
type graphNode struct {
	name   string
	number int   // of the nodes, in the order in which they were added
	module *base // nil: an operation
	layer  layer
	call   call // the tensors are values
}

type graphOutput struct {
	name  string
	value *Tensor
}

// GraphOptions are the optional arguments of Graph.Run.
type GraphOptions struct {
	// RandomSeed is added to the seeds of nodes with random routing, so that runs can differ.
	RandomSeed uint64

	// Replay has the lists that the routers use, in place of their own selection: records of an earlier run, or ones that
	// have the fields Router, Lists, K, Indices and Scores. A slot is empty if its score is 0; other scores are not read. Logits
	// and soft scores are computed as ever, and gradients. Each router that selects needs a record; nil: all select.
	// No token of a list may be masked, which is not checked.
	Replay []RoutingRecord

	// Dropout enables dropout: of Graph.Dropout, and of modules with a rate in their configuration. nil: off, as at inference.
	Dropout *Dropout

	Backward *Backward // the gradients that the run computes; nil: none

	Stats   *CallStats       // receives what the run cost, by node; nil: not wanted
	Routing *[]RoutingRecord // receives what the routers selected; their names begin with the node's; nil: not wanted
}

// NewGraph makes an empty graph. Without a device (nil), it consists of modules that were made without one, and serves
// Memory.
func NewGraph(dev *vk.Device) *Graph {
	return &Graph{lifecycle: newLifecycle(), dev: dev, kernels: newKernels(dev), keys: map[string]int{}, named: map[string]int{}}
}

// describe prints a value for messages.
func (v *graphValue) describe(t *Tensor) string {
	if len(t.shape) == 0 {
		return fmt.Sprintf("the value %s, which is not computed yet", errtext.Name(v.name))
	}
	sizes := make([]string, len(t.shape))
	for i, n := range t.shape {
		sizes[i] = sizeString(n)
	}
	return fmt.Sprintf("the value %s %v[%s]", errtext.Name(v.name), t.dtype, strings.Join(sizes, " "))
}

func (g *Graph) fail(op string, err error) error { return fmt.Errorf("colt5: Graph.%s: %w", op, err) }

// reject keeps the first error while building, and in what it was. Run, Prepare and Memory return it.
func (g *Graph) reject(what string, err error) {
	if g.err == nil {
		g.err = fmt.Errorf("%s: %w", what, err)
	}
}

// newValue adds a value.
func (g *Graph) newValue(name string, dtype DType, shape []int) *Tensor {
	t := &Tensor{dtype: dtype, shape: shape}
	t.value = &graphValue{graph: g, index: len(g.values), name: name}
	g.values = append(g.values, t)
	return t
}

// building returns an error if nothing can be added any more.
func (g *Graph) building() error {
	if g.busy == nil {
		return errZeroValue
	}
	if g.fixed {
		return errors.New("the graph has been run or measured: nothing can be added")
	}
	return nil
}

// checkName checks the name of an input or output.
func (g *Graph) checkName(name string) error {
	taken := slices.ContainsFunc(g.inputs, func(t *Tensor) bool { return t.value.name == name }) ||
		slices.ContainsFunc(g.outputs, func(o graphOutput) bool { return o.name == name })
	switch {
	case name == "":
		return errors.New("the name is empty")
	case taken:
		return fmt.Errorf("the name is %s, which is another input's or output's", errtext.Quote(name))
	}
	return g.building()
}

// Input adds a value that each run is given, of a format and a shape; 0 is a size that differs between runs. An error is
// returned by Run.
func (g *Graph) Input(name string, dtype DType, shape ...int) *Tensor {
	err := g.checkName(name)
	if err == nil && dtype != F32 && dtype != I32 && dtype != U8 {
		err = fmt.Errorf("%s: dtype is %v, want f32, i32 or u8", errtext.Name(name), dtype)
	}
	if err == nil && (len(shape) == 0 || slices.Min(shape) < 0) {
		err = fmt.Errorf("%s: the shape is %s, want at least one dimension, each 0 or more", errtext.Name(name), errtext.Shape(shape))
	}
	if err != nil {
		g.reject("Graph.Input", err)
	}
	t := g.newValue(name, dtype, slices.Clone(shape))
	t.value.input = true
	g.inputs = append(g.inputs, t)
	return t
}

// Value adds a value for the result of a module's Forward. The name is that of the node in statistics and routing
// records; empty: the name of the module's type.
func (g *Graph) Value(name string) *Tensor {
	if err := g.building(); err != nil {
		g.reject("Graph.Value", err)
	}
	return g.newValue(name, F32, nil)
}

// Output makes a value a result of the graph, which a run writes to the tensor of this name. An error is returned by
// Run.
func (g *Graph) Output(name string, v *Tensor) {
	err := g.checkName(name)
	switch {
	case err != nil:
	case v == nil || v.value == nil || v.value.graph != g:
		err = fmt.Errorf("%s is %v, want a value of this graph", errtext.Name(name), v)
	case v.value.input:
		err = fmt.Errorf("%s is %v, which is an input, want a result of a node", errtext.Name(name), v)
	case v.value.from == nil:
		err = fmt.Errorf("%s is %v", errtext.Name(name), v)
	case slices.ContainsFunc(g.outputs, func(o graphOutput) bool { return o.value == v }):
		err = fmt.Errorf("%s is %v, which is an output already", errtext.Name(name), v)
	}
	if err != nil {
		g.reject("Graph.Output", err)
		return
	}
	g.outputs = append(g.outputs, graphOutput{name, v})
}

// graph is the graph whose values are among the arguments of a call; nil if there are none.
func (c *call) graph() *Graph {
	for i := range c.args {
		if t := c.args[i].tensor; t != nil && t.value != nil {
			return t.value.graph
		}
	}
	return nil
}

// addModule adds a module's call as a node.
func (g *Graph) addModule(ctx context.Context, m *base, of *call) error {
	c := *of
	err := g.building()
	switch {
	case err != nil:
	case ctx == nil:
		err = errNilContext
	case m.busy == nil:
		err = errZeroValue
	case m.dev != g.dev && (m.dev == nil || g.dev == nil):
		err = errors.New("the graph or the module was made without a device, want both with the same vk.Device or both without one")
	case m.dev != g.dev:
		err = errors.New("the module is on another device than the graph: it was made with another vk.Device")
	case c.stats != nil || c.routing != nil:
		err = errors.New("the options have Stats or Routing, want nil: in a graph they are options of Graph.Run")
	}
	if err == nil {
		err = g.add(&graphNode{module: m, layer: m.layer, call: c}, m.name)
	}
	if err != nil {
		g.reject(m.name+".Forward", err)
	}
	return err
}

// add adds a node whose arguments are values, and gives its results their formats and shapes. kind is its name if its
// first result has none.
func (g *Graph) add(n *graphNode, kind string) error {
	for i := range n.call.args.list() {
		a := &n.call.args[i]
		switch t := a.tensor; {
		case t == nil:
			continue
		case t.value == nil || t.value.graph != g:
			return fmt.Errorf("%s is %v, want a value of this graph", a.name, t)
		case a.kind.written() && (t.value.input || t.value.from != nil):
			return fmt.Errorf("%s is %v, want a new one, made by Graph.Value", a.name, t)
		case !a.kind.written() && !t.value.input && t.value.from == nil:
			return fmt.Errorf("%s is %v", a.name, t)
		}
		if n.name == "" && a.kind.written() {
			n.name = a.tensor.value.name
		}
	}
	if err := n.call.infer(n.layer); err != nil {
		return err
	}
	if n.name == "" {
		n.name = kind
	}
	n.name = g.uniqueName(n.name)
	for _, a := range n.call.args.list() {
		if a.tensor == nil || !a.kind.written() {
			continue
		}
		if a.tensor.value.from = n; a.tensor.value.name == "" {
			a.tensor.value.name = n.name
		}
	}
	n.number = len(g.nodes)
	g.nodes = append(g.nodes, n)
	return nil
}

// infer checks a call whose tensors have no memory, and sets the formats and shapes of its results.
func (c *call) infer(l layer) error {
	if s, ok := l.(shaper); ok {
		if err := s.setShapes(c); err != nil {
			return err
		}
	}
	inputs := *c // without the results, which have no shapes yet
	for i := range inputs.args.list() {
		if a := &inputs.args[i]; a.kind.written() {
			a.kind, a.tensor = optionalOutput, nil
		}
	}
	if err := inputs.check(nil); err != nil {
		return err
	}
	c.dims = inputs.dims
	for i := range c.args.list() {
		a := &c.args[i]
		a.lead = inputs.args[i].lead
		if a.tensor != nil && a.kind.written() {
			a.tensor.dtype, a.tensor.shape = a.dtype, c.sizes(a)
		}
	}
	return nil
}

// uniqueName is a name that no node has: name, name#2, ..
func (g *Graph) uniqueName(name string) string {
	unique := name
	for g.named[unique] > 0 {
		g.named[name]++
		unique = fmt.Sprintf("%s#%d", name, g.named[name])
	}
	g.named[unique] = 1
	return unique
}

// HasInput reports whether the graph has an input of a name.
func (g *Graph) HasInput(name string) bool {
	return slices.ContainsFunc(g.inputs, func(t *Tensor) bool { return t.value.name == name })
}
