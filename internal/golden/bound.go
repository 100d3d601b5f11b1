package golden

import (
	"encoding/json"
	"fmt"
	"strings"
)

// Bounds of results that pass 16-bit matrices; there, routed tokens may differ as well. See [Case.OutputBound].
const (
	OutputBound16Bit = 2e-2
	GradBound16Bit   = 5e-2
)

const (
	outputBound, scoreBound   = 2e-5, 1e-4
	gradBound, routeGradBound = 2e-4, 2e-3
	sharp                     = 0.1 // from this eps down, rounding is amplified: by up to 1 / eps
)

// readRule reads what the bounds hang on.
func (c *Case) readRule() error {
	type options struct {
		Eps             *float64 `json:"eps"`
		StraightThrough *bool    `json:"straight_through"`
	}
	var config struct {
		options
		RouterStraightThrough *bool   `json:"router_straight_through"`
		RouterKwargs          options `json:"router_kwargs"`
	}
	if err := json.Unmarshal(c.Config, &config); err != nil {
		return fmt.Errorf("metadata config: %w", err)
	}
	c.eps, c.hard = 0.03, true
	if c.Module == "ConditionalRoutedViT" {
		c.eps = 1
	}
	c.stack = c.Module == "ConditionalRoutedViT" || c.Module == "ConditionalRoutedTransformerBlock"
	for _, eps := range []*float64{config.Eps, config.RouterKwargs.Eps} {
		if eps != nil {
			c.eps = *eps
		}
	}
	for _, hard := range []*bool{config.StraightThrough, config.RouterStraightThrough, config.RouterKwargs.StraightThrough} {
		if hard != nil {
			c.hard = *hard
		}
	}
	return nil
}

// Halve makes it a case of a module whose products have a precision of 16 bits, float16 or bfloat16: the config says so, and the bounds of outputs are
// those of such products.
func (c *Case) SetPrecision(precision string) error {
	config := map[string]json.RawMessage{}
	if err := json.Unmarshal(c.Config, &config); err != nil {
		return fmt.Errorf("metadata config: %w", err)
	}
	config["precision"] = fmt.Appendf(nil, "%q", precision)
	var err error
	c.Config, err = json.Marshal(config)
	c.half = true
	return err
}

// Behind says whether a router may stand behind a product of 16 bits, and so decide otherwise than the case says: of such a case only
// outputs can be compared.
func (c *Case) RoutingMayDiffer() bool { return c.half && c.stack }

// sharpDescent says whether the case runs a coordinate descent with a small eps.
func (c *Case) sharpDescent() bool {
	return c.eps <= sharp && (c.alone() || len(c.Routes) > 0)
}

// alone says whether the module is a coordinate descent and hardly more.
func (c *Case) alone() bool { return c.Module == "CoordinateDescent" || c.Module == "TopK" }

// OutputBound is the most that a float32 result may differ from Outputs[name]: the largest difference by max(1, the largest
// expected value).
func (c *Case) OutputBound(name string) float64 {
	if c.half {
		return OutputBound16Bit
	}
	soft := !c.hard
	switch c.Module {
	case "CoordinateDescent":
		soft = true
	case "TopK":
		soft = name == "coor_descent_values"
	}
	if soft {
		return c.ScoreBound()
	}
	return outputBound
}

// ScoreBound is OutputBound for the soft scores of Routes; their indices have to be the same.
func (c *Case) ScoreBound() float64 {
	if c.sharpDescent() {
		return scoreBound
	}
	return outputBound
}

// InputGradBound is OutputBound for InputGrads.
func (c *Case) InputGradBound() float64 {
	if c.sharpDescent() {
		return routeGradBound
	}
	return gradBound
}

// WeightGradBound is OutputBound for WeightGrads[name]: only the gradients of what lies before a router pass it.
func (c *Case) WeightGradBound(name string) float64 {
	if c.stack || strings.Contains(name, "routing_token") {
		return c.InputGradBound()
	}
	return gradBound
}
