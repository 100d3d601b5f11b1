package colt5

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
)

// config is a configuration of a module.
type config interface {
	check(k checker) error
	precision() DType
	build(w *weights) layer // adds the weights
}

// Default returns the default configuration of a module, or the default RouterSettings. The values are
// those of the colt5-attention package, except that RouteScope is RouteScopeImage. Fields without a default, such as
// Dim, are 0.
func Default[C defaults]() C {
	var c C
	any(&c).(interface{ setDefaults() }).setDefaults()
	return c
}

type defaults interface {
	ConditionalRoutedFeedForwardConfig | ConditionalRoutedAttentionConfig | ConditionalRoutedTransformerBlockConfig |
		ConditionalRoutedCrossAttentionConfig | ConditionalRoutedAutoregressiveAttentionConfig | ConditionalRoutedImageAttentionConfig |
		ConditionalRoutedViTConfig | EncoderConfig | AutoregressiveTransformerConfig | CoordinateDescentConfig | TopKConfig | RouterConfig |
		RouterSettings
}

// decode reads JSON into a configuration that holds its defaults. An unknown key is an error. null is 0 for a number:
// the PyTorch package writes None for a number that is absent.
func decode(name string, data []byte, config any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(config); err != nil {
		return fmt.Errorf("colt5: %s: %w", name, err)
	}
	return zeroNulls(reflect.ValueOf(config).Elem(), data)
}

// zeroNulls sets the numbers of a struct to 0 that are null in JSON; encoding/json leaves them as they are.
func zeroNulls(config reflect.Value, data []byte) error {
	var values map[string]json.RawMessage
	if err := json.Unmarshal(data, &values); err != nil {
		return err
	}
	for i := range config.NumField() {
		field, info := config.Field(i), config.Type().Field(i)
		value, present := values[info.Tag.Get("json")]
		switch {
		case info.Anonymous: // its keys are among those of the struct
			if err := zeroNulls(field, data); err != nil {
				return err
			}
		case !present:
		case field.Kind() == reflect.Struct && bytes.HasPrefix(value, []byte("{")):
			if err := zeroNulls(field, value); err != nil {
				return err
			}
		case (field.CanInt() || field.CanFloat()) && string(value) == "null":
			field.SetZero()
		}
	}
	return nil
}
