package golden

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// Error bounds of modules whose matrix products have 16-bit operands. See [Case.OutputBound].
const (
	OutputBound16Bit = 2e-2
	GradBound16Bit   = 5e-2
)

const (
	outputBound, scoreBound   = 2e-5, 1e-4
	gradBound, routeGradBound = 2e-4, 2e-3
	smallEps                  = 0.1 // with an eps of at most this, the wider bounds apply: coordinate descent amplifies rounding errors by up to 1 / eps
)

// readBoundRule reads the part of the config that decides the error bounds.
func (c *Case) readBoundRule() error {
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
	c.eps, c.straightThrough = 0.03, true
	if c.Module == "ConditionalRoutedViT" {
		c.eps = 1
	}
	c.nestedRouters = slices.Contains([]string{"ConditionalRoutedViT", "ConditionalRoutedTransformerBlock", "Encoder"}, c.Module)
	for _, eps := range []*float64{config.Eps, config.RouterKwargs.Eps} {
		if eps != nil {
			c.eps = *eps
		}
	}
	for _, straight := range []*bool{config.StraightThrough, config.RouterStraightThrough, config.RouterKwargs.StraightThrough} {
		if straight != nil {
			c.straightThrough = *straight
		}
	}
	return nil
}

// SetPrecision sets the precision of the module's matrix products in Config, "f16" or "bf16", and selects the error
// bounds of 16-bit operands.
func (c *Case) SetPrecision(precision string) error {
	config := map[string]json.RawMessage{}
	if err := json.Unmarshal(c.Config, &config); err != nil {
		return fmt.Errorf("metadata config: %w", err)
	}
	config["precision"] = fmt.Appendf(nil, "%q", precision)
	var err error
	c.Config, err = json.Marshal(config)
	c.use16Bit = true
	return err
}

// RoutingMayDiffer reports whether a router's input comes from a product with 16-bit operands. Rounding may then change
// which tokens it selects, so routing records cannot be compared, and gradients only if the case's tokens are replayed.
func (c *Case) RoutingMayDiffer() bool { return c.use16Bit && c.nestedRouters }

// amplifiesRounding reports whether the case runs a coordinate descent with a small eps.
func (c *Case) amplifiesRounding() bool {
	return c.eps <= smallEps && (c.isDescent() || len(c.Routings) > 0)
}

// isDescent reports whether the module is a coordinate descent without a router around it.
func (c *Case) isDescent() bool { return c.Module == "CoordinateDescent" || c.Module == "TopK" }

// OutputBound returns the error bound of Outputs[name]: the largest absolute difference, divided by max(1, the largest
// absolute expected value).
func (c *Case) OutputBound(name string) float64 {
	if c.use16Bit {
		return OutputBound16Bit
	}
	if c.bound > 0 {
		return c.bound
	}
	soft := !c.straightThrough
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

// Compared returns the elements of values that are to be compared, an output or an expected one of Outputs[name]: all,
// or with ValidRowsOnly those of valid rows.
func Compared[T any](c *Case, values []T) []T {
	if !c.ValidRowsOnly {
		return values
	}
	var list []T
	mask := c.Inputs["mask"].U8
	width := len(values) / len(mask)
	for row, valid := range mask {
		if valid != 0 {
			list = append(list, values[row*width:(row+1)*width]...)
		}
	}
	return list
}

// ScoreBound returns the error bound of the soft scores of Routings. Their indices must be equal.
func (c *Case) ScoreBound() float64 {
	if c.scoreBound > 0 {
		return c.scoreBound
	}
	if c.amplifiesRounding() {
		return scoreBound
	}
	return outputBound
}

// InputGradBound returns the error bound of InputGrads.
func (c *Case) InputGradBound() float64 {
	if c.use16Bit {
		return GradBound16Bit
	}
	if c.amplifiesRounding() {
		return routeGradBound
	}
	return gradBound
}

// WeightGradBound returns the error bound of WeightGrads[name]. It is wider for weights in front of a router, because
// their gradients pass through its coordinate descent.
func (c *Case) WeightGradBound(name string) float64 {
	if c.use16Bit || c.nestedRouters || strings.Contains(name, "routing_token") {
		return c.InputGradBound()
	}
	return gradBound
}
