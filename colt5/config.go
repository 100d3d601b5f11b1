package colt5

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// config is a configuration of a module.
type config interface {
	check(op string) error
	precision() DType
	build(w *weights) layer // adds the weights
}

// Default returns the default configuration of a module, or the default RouterOptions. They are those of the colt5-attention package, but for
// RouteScope, which is the image. Fields without a default, such as Dim, are 0.
func Default[C defaults]() C {
	var c C
	any(&c).(interface{ setDefaults() }).setDefaults()
	return c
}

type defaults interface {
	ConditionalRoutedFeedForwardConfig | ConditionalRoutedAttentionConfig | ConditionalRoutedTransformerBlockConfig |
		ConditionalRoutedCrossAttentionConfig | ConditionalRoutedAutoregressiveAttentionConfig | ConditionalRoutedImageAttentionConfig |
		ConditionalRoutedViTConfig | EncoderConfig | AutoregressiveTransformerConfig | CoordinateDescentConfig | TopKConfig | RouterConfig |
		RouterOptions
}

// OptionalFloat is a number that may be absent: 0, or null in JSON.
type OptionalFloat float64

// UnmarshalJSON reads a number or null.
func (f *OptionalFloat) UnmarshalJSON(data []byte) error {
	var p *float64
	if err := json.Unmarshal(data, &p); err != nil {
		return err
	}
	*f = 0
	if p != nil {
		*f = OptionalFloat(*p)
	}
	return nil
}

// MarshalJSON writes a number, or null for 0.
func (f OptionalFloat) MarshalJSON() ([]byte, error) {
	if f == 0 {
		return []byte("null"), nil
	}
	return json.Marshal(float64(f))
}

// OptionalInt is a number that may be absent: 0, or null in JSON.
type OptionalInt int

// UnmarshalJSON reads a number or null.
func (i *OptionalInt) UnmarshalJSON(data []byte) error {
	var p *int
	if err := json.Unmarshal(data, &p); err != nil {
		return err
	}
	*i = 0
	if p != nil {
		*i = OptionalInt(*p)
	}
	return nil
}

// MarshalJSON writes a number, or null for 0.
func (i OptionalInt) MarshalJSON() ([]byte, error) {
	if i == 0 {
		return []byte("null"), nil
	}
	return json.Marshal(int(i))
}

// decode reads JSON into a config that holds its defaults. An unknown key is an error.
func decode(name string, data []byte, config any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(config); err != nil {
		return fmt.Errorf("colt5: %s: %w", name, err)
	}
	return nil
}
