package route

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/colt5-vulkan/colt5/colt5"
	"github.com/colt5-vulkan/colt5/internal/cli/command"
	"github.com/colt5-vulkan/colt5/internal/cli/input"
	"github.com/colt5-vulkan/colt5/internal/cli/scope"
	"github.com/colt5-vulkan/colt5/safetensors"
)

// readConfig reads the configuration of an Encoder whose tokens are bytes: its own, or that of a classifier of colt5 train, which
// has it as a part, alone or in a checkpoint.
func readConfig(path string) (colt5.EncoderConfig, error) {
	var c colt5.EncoderConfig
	data, err := input.ReadFile(path, input.ConfigLimit)
	var whole struct {
		Encoder json.RawMessage
		Config  struct{ Encoder json.RawMessage }
	}
	if json.Unmarshal(data, &whole) == nil { // otherwise the error below names the problem
		for _, part := range []json.RawMessage{whole.Encoder, whole.Config.Encoder} {
			if len(part) > 0 {
				data = part
			}
		}
	}
	if err == nil {
		err = json.Unmarshal(data, &c)
	}
	if err == nil && c.NumTokens == 0 {
		err = fmt.Errorf("num_tokens is 0: the encoder has no embedding, and its input is vectors, want an encoder of bytes")
	}
	if err != nil {
		return c, command.Usagef("-config %s: %w; want the configuration of an Encoder", path, err)
	}
	return c, nil
}

// checkBytes requires that all bytes are token ids of a vocabulary.
func checkBytes(text []byte, vocabulary int) error {
	for i, b := range text {
		if int(b) >= vocabulary {
			return command.Usagef("byte %d of the text is %d, want less than %d, the num_tokens of -config", i, b, vocabulary)
		}
	}
	return nil
}

// newEncoder makes the model of an Encoder. Without a file of weights it has the initial values of a seed.
func newEncoder(ctx context.Context, s *scope.Scope, o options, text []byte) (model, error) {
	c := o.encoder
	if _, err := c.Memory(s.Dev.Caps(), 1, 1); err != nil {
		return model{}, command.AsUsage(err)
	}
	if err := checkBytes(text, c.NumTokens); err != nil {
		return model{}, err
	}
	e, err := colt5.NewEncoder(ctx, s.Dev, c)
	if e = scope.Keep(s, e, err); e == nil {
		return model{}, s.Err()
	}
	weights := fmt.Sprintf("untrained, with the initial values of seed %d: which passages it selects is arbitrary", o.seed)
	if o.weights != "" {
		weights = "weights of " + printableName(o.weights)
		if err := load(ctx, e, o.weights); err != nil {
			return model{}, command.Usagef("-weights %s: %w", o.weights, err)
		}
	} else if err := e.Init(ctx, o.seed); err != nil {
		return model{}, err
	}
	m := model{about: []string{fmt.Sprintf("model: Encoder of %s and dim %d, configuration %s, %s",
		command.Count(c.Depth, "layer"), c.Dim, printableName(o.config), weights)}}
	if c.NumTokens > 256 {
		m.about = append(m.about, fmt.Sprintf("tokens: the bytes of the text; the vocabulary has %d tokens, and its first 256 should be bytes",
			c.NumTokens))
	}
	for _, p := range e.Parameters() {
		if name, ok := strings.CutSuffix(p.Name, ".routing_token"); ok {
			m.routers = append(m.routers, name)
		}
	}
	m.forward = func(s *scope.Scope, g segments) (*colt5.Tensor, []colt5.RoutingRecord, colt5.CallStats, error) {
		x, y := tokenIDs(s, text[g.at:][:g.batch*g.length], c.NumTokens, g), s.Tensor(colt5.F32, g.batch, g.length, c.Dim)
		var records []colt5.RoutingRecord
		var stats colt5.CallStats
		if s.Err() == nil {
			s.Fail(e.Forward(s.Context(), y, x, colt5.BlockOptions{Stats: &stats, Routing: &records}))
		}
		return y, records, stats, s.Err()
	}
	return m, nil
}

// load loads the weights of an Encoder from a file of its own, or of a classifier.
func load(ctx context.Context, e *colt5.Encoder, path string) error {
	f, err := safetensors.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	o := safetensors.LoadOptions{}
	const part = "encoder."
	if _, ok := f.Info(part + e.Parameters()[0].Name); ok {
		o.Prefix = part
	}
	return e.LoadFrom(ctx, f, o)
}

// tokenIDs makes the tensor of token ids of bytes. Small vocabularies are not addressed by bytes.
func tokenIDs(s *scope.Scope, text []byte, vocabulary int, g segments) *colt5.Tensor {
	if vocabulary >= 256 {
		return s.Uint8(text, g.batch, g.length)
	}
	ids := make([]int32, len(text))
	for i, b := range text {
		ids[i] = int32(b)
	}
	t, err := colt5.FromSlice(s.Context(), s.Dev, ids, g.batch, g.length)
	return scope.Keep(s, t, err)
}
