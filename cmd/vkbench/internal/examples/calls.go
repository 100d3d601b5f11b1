package examples

import (
	"context"
	"io"

	"github.com/colt5-vulkan/colt5/colt5"
	"github.com/colt5-vulkan/colt5/vk"
)

// Call is a call of a module.
type Call struct {
	Module     io.Closer
	Parameters []colt5.Parameter
	Inputs     []Tensor // F32 or U8: token ids are "ids", all others masks
	Outputs    []Tensor
	Logits     bool // y is logits of the next tokens: see LossGraph
	// Forward calls the module with the tensors, or with values of a graph, by name.
	Forward func(ctx context.Context, t map[string]*colt5.Tensor, stats *colt5.CallStats) error
}

// Tensor describes a tensor of a call.
type Tensor struct {
	Name     string
	DType    colt5.DType
	Shape    []int
	Limit    int  // of an output of I32: its elements are indices below
	Constant bool // of an output of F32: all elements may be equal
}

// Floats describes a tensor of F32.
func Floats(name string, shape ...int) Tensor {
	return Tensor{Name: name, DType: colt5.F32, Shape: shape}
}

func byteTensor(name string, shape ...int) Tensor {
	return Tensor{Name: name, DType: colt5.U8, Shape: shape}
}

// Graph returns a graph of the call, and its values by name: inputs, and results that are no outputs of the graph yet. dev is
// that of the module.
func (c *Call) Graph(ctx context.Context, dev *vk.Device) (*colt5.Graph, map[string]*colt5.Tensor, error) {
	g, values := colt5.NewGraph(dev), map[string]*colt5.Tensor{}
	for _, in := range c.Inputs {
		values[in.Name] = g.Input(in.Name, in.DType, in.Shape...)
	}
	for _, out := range c.Outputs {
		values[out.Name] = g.Value(out.Name)
	}
	return g, values, c.Forward(ctx, values, nil)
}

// OutputGraph is Graph with all outputs.
func (c *Call) OutputGraph(ctx context.Context, dev *vk.Device) (*colt5.Graph, error) {
	g, values, err := c.Graph(ctx, dev)
	for _, out := range c.Outputs {
		g.Output(out.Name, values[out.Name])
	}
	return g, err
}

// LossGraph is Graph with one output, the "loss": the cross-entropy of logits y with "labels". It has the inputs and the output
// that train.Trainer wants.
func (c *Call) LossGraph(ctx context.Context, dev *vk.Device) (*colt5.Graph, error) {
	g, values, err := c.Graph(ctx, dev)
	labels := g.Input("labels", colt5.I32, c.Inputs[0].Shape...)
	g.Output("loss", g.CrossEntropy(values["y"], labels))
	return g, err
}

// tokensCall is a call with the result y, of the shape of x.
func tokensCall(x []int, inputs ...Tensor) *Call {
	return &Call{Inputs: append([]Tensor{Floats("x", x...)}, inputs...), Outputs: []Tensor{Floats("y", x...)}}
}

func feedForwardCall(ctx context.Context, dev *vk.Device, config colt5.ConditionalRoutedFeedForwardConfig, size []int) (*Call, error) {
	m, err := colt5.NewConditionalRoutedFeedForward(ctx, dev, config)
	if err != nil {
		return nil, err
	}
	c := tokensCall([]int{size[0], size[1], config.Dim}, byteTensor("mask", size[:2]...))
	c.Module, c.Parameters, c.Forward = m, m.Parameters(), func(ctx context.Context, t map[string]*colt5.Tensor, stats *colt5.CallStats) error {
		return m.Forward(ctx, t["y"], t["x"], colt5.FeedForwardOptions{Mask: t["mask"], Stats: stats})
	}
	return c, nil
}

func attentionCall(ctx context.Context, dev *vk.Device, config colt5.ConditionalRoutedAttentionConfig, size []int) (*Call, error) {
	m, err := colt5.NewConditionalRoutedAttention(ctx, dev, config)
	if err != nil {
		return nil, err
	}
	c := tokensCall([]int{size[0], size[1], config.Dim}, byteTensor("mask", size[:2]...))
	c.Module, c.Parameters, c.Forward = m, m.Parameters(), func(ctx context.Context, t map[string]*colt5.Tensor, stats *colt5.CallStats) error {
		return m.Forward(ctx, t["y"], t["x"], colt5.AttentionOptions{Mask: t["mask"], Stats: stats})
	}
	return c, nil
}

func blockCall(ctx context.Context, dev *vk.Device, config colt5.ConditionalRoutedTransformerBlockConfig, size []int) (*Call, error) {
	m, err := colt5.NewConditionalRoutedTransformerBlock(ctx, dev, config)
	if err != nil {
		return nil, err
	}
	c := tokensCall([]int{size[0], size[1], config.Dim}, byteTensor("mask", size[:2]...))
	c.Module, c.Parameters, c.Forward = m, m.Parameters(), func(ctx context.Context, t map[string]*colt5.Tensor, stats *colt5.CallStats) error {
		return m.Forward(ctx, t["y"], t["x"], colt5.BlockOptions{Mask: t["mask"], Stats: stats})
	}
	return c, nil
}

func crossCall(ctx context.Context, dev *vk.Device, config colt5.ConditionalRoutedCrossAttentionConfig, size []int) (*Call, error) {
	m, err := colt5.NewConditionalRoutedCrossAttention(ctx, dev, config)
	if err != nil {
		return nil, err
	}
	batch, n, memories := size[0], size[1], size[2]
	c := tokensCall([]int{batch, n, config.Dim}, byteTensor("mask", batch, n), Floats("context", batch, memories, config.Dim),
		byteTensor("context mask", batch, memories))
	c.Module, c.Parameters, c.Forward = m, m.Parameters(), func(ctx context.Context, t map[string]*colt5.Tensor, stats *colt5.CallStats) error {
		return m.Forward(ctx, t["y"], t["x"], t["context"], colt5.CrossAttentionOptions{Mask: t["mask"], ContextMask: t["context mask"], Stats: stats})
	}
	return c, nil
}

func autoregressiveCall(ctx context.Context, dev *vk.Device, config colt5.ConditionalRoutedAutoregressiveAttentionConfig, size []int) (*Call, error) {
	m, err := colt5.NewConditionalRoutedAutoregressiveAttention(ctx, dev, config)
	if err != nil {
		return nil, err
	}
	c := tokensCall([]int{size[0], size[1], config.Dim})
	c.Module, c.Parameters, c.Forward = m, m.Parameters(), func(ctx context.Context, t map[string]*colt5.Tensor, stats *colt5.CallStats) error {
		return m.Forward(ctx, t["y"], t["x"], colt5.AutoregressiveOptions{Stats: stats})
	}
	return c, nil
}

func imageCall(ctx context.Context, dev *vk.Device, config colt5.ConditionalRoutedImageAttentionConfig, size []int) (*Call, error) {
	m, err := colt5.NewConditionalRoutedImageAttention(ctx, dev, config)
	if err != nil {
		return nil, err
	}
	shape := []int{size[0], size[2], size[3], config.Dim}
	if config.ChannelFirst {
		shape = []int{size[0], config.Dim, size[2], size[3]}
	}
	c := tokensCall(shape)
	c.Module, c.Parameters, c.Forward = m, m.Parameters(), func(ctx context.Context, t map[string]*colt5.Tensor, stats *colt5.CallStats) error {
		return m.Forward(ctx, t["y"], t["x"], colt5.ImageOptions{Stats: stats})
	}
	return c, nil
}

func vitCall(ctx context.Context, dev *vk.Device, config colt5.ConditionalRoutedViTConfig, size []int) (*Call, error) {
	m, err := colt5.NewConditionalRoutedViT(ctx, dev, config)
	if err != nil {
		return nil, err
	}
	return &Call{
		Module: m, Parameters: m.Parameters(),
		Inputs:  []Tensor{Floats("x", size[0], config.Channels, config.ImageSize.Height, config.ImageSize.Width)},
		Outputs: []Tensor{Floats("y", size[0], config.NumClasses)},
		Forward: func(ctx context.Context, t map[string]*colt5.Tensor, stats *colt5.CallStats) error {
			return m.Forward(ctx, t["y"], t["x"], colt5.ViTOptions{Stats: stats})
		},
	}, nil
}

func encoderCall(ctx context.Context, dev *vk.Device, config colt5.EncoderConfig, size []int) (*Call, error) {
	m, err := colt5.NewEncoder(ctx, dev, config)
	if err != nil {
		return nil, err
	}
	c := tokensCall([]int{size[0], size[1], config.Dim}, byteTensor("mask", size[:2]...))
	x := "x"
	if config.NumTokens > 0 {
		x = "ids"
		c.Inputs[0] = byteTensor(x, size[:2]...)
	}
	c.Module, c.Parameters, c.Forward = m, m.Parameters(), func(ctx context.Context, t map[string]*colt5.Tensor, stats *colt5.CallStats) error {
		return m.Forward(ctx, t["y"], t[x], colt5.BlockOptions{Mask: t["mask"], Stats: stats})
	}
	return c, nil
}

func autoregressiveTransformerCall(ctx context.Context, dev *vk.Device, config colt5.AutoregressiveTransformerConfig, size []int) (*Call, error) {
	m, err := colt5.NewAutoregressiveTransformer(ctx, dev, config)
	if err != nil {
		return nil, err
	}
	return &Call{
		Module: m, Parameters: m.Parameters(), Logits: true,
		Inputs: []Tensor{byteTensor("ids", size[:2]...)}, Outputs: []Tensor{Floats("y", size[0], size[1], config.NumTokens)},
		Forward: func(ctx context.Context, t map[string]*colt5.Tensor, stats *colt5.CallStats) error {
			return m.Forward(ctx, t["y"], t["ids"], colt5.AutoregressiveOptions{Stats: stats})
		},
	}, nil
}
