package colt5

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/colt5-vulkan/colt5/internal/errtext"
	"github.com/colt5-vulkan/colt5/internal/suggest"
)

// referenceKeys returns the arguments of the PyTorch classes that a configuration accepts as keys although it has no
// field for them, and where their value goes. nil: nowhere, the argument selects kernels of PyTorch, or has no effect
// there either (num_sets_kv). A key is accepted only where the class has the argument. This is the only place that
// lists them; doc.go describes them.
func referenceKeys(config any) map[string]any {
	switch c := config.(type) {
	case *RouterSettings:
		return map[string]any{"use_triton": nil, "triton_checkpoint_segments": nil}
	case *ConditionalRoutedFeedForwardConfig:
		return map[string]any{"use_triton": nil}
	case *ConditionalRoutedAttentionConfig, *ConditionalRoutedImageAttentionConfig,
		*ConditionalRoutedAutoregressiveAttentionConfig, *ConditionalRoutedTransformerBlockConfig:
		return map[string]any{"use_triton": nil, "use_flash_attn": nil}
	case *ConditionalRoutedCrossAttentionConfig:
		return map[string]any{"use_triton": nil, "use_flash_attn": nil, "num_sets_kv": nil}
	case *TopKConfig:
		return map[string]any{"fused": nil}
	case *ConditionalRoutedViTConfig:
		return map[string]any{"router_use_triton": nil, "flash_attn": nil, "default_coor_descent_eps": &c.Router.Eps}
	}
	return nil
}

// decode reads a JSON object into a configuration. Absent keys get their defaults. A key must be spelled as documented,
// and may be there once. null is 0 for a number, because the PyTorch package writes None for a number that is absent;
// elsewhere it is the default.
func decode[C defaults](data []byte, config *C) error {
	*config = Default[C]()
	v := reflect.ValueOf(config).Elem()
	if err := decodeObject("", data, v); err != nil {
		return fmt.Errorf("colt5: %s: %w", v.Type().Name(), err)
	}
	return nil
}

// decodeObject reads an object into a struct. path is the struct's key, followed by a dot; nothing at the top.
func decodeObject(path string, data []byte, v reflect.Value) error {
	if isNull(data) {
		return nil
	}
	keys, values, err := members(data)
	if err != nil {
		if path == "" {
			return err
		}
		return fmt.Errorf("%s: %w", strings.TrimSuffix(path, "."), err)
	}
	fields, reference := map[string]any{}, map[string]any{}
	addKeys(v, fields, reference)
	known := slices.AppendSeq(slices.Collect(maps.Keys(fields)), maps.Keys(reference))
	slices.Sort(known)
	for i, key := range keys {
		if err := checkKey(path, key, keys[:i], known); err != nil {
			return err
		}
	}
	// Keys of the reference come first: a field that such a key sets may be in the object too, and then takes precedence.
	for _, targets := range []map[string]any{reference, fields} {
		for i, key := range keys {
			if target := targets[key]; target != nil {
				if err := decodeValue(path+key, values[i], reflect.ValueOf(target).Elem()); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// members returns the keys and values of an object, in order.
func members(data []byte) (keys []string, values []json.RawMessage, err error) {
	d := json.NewDecoder(bytes.NewReader(data))
	if first, err := d.Token(); err != nil {
		return nil, nil, err
	} else if first != json.Delim('{') {
		return nil, nil, fmt.Errorf("the value is %s, want an object with keys", text(data))
	}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return nil, nil, err
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return nil, nil, err
		}
		keys, values = append(keys, key.(string)), append(values, value)
	}
	if _, err := d.Token(); err != nil {
		return nil, nil, err
	}
	if rest := bytes.TrimSpace(data[d.InputOffset():]); len(rest) > 0 {
		return nil, nil, fmt.Errorf("after the object is %s, want nothing", text(rest))
	}
	return keys, values, nil
}

// addKeys lists pointers to the fields of a struct by key, and the keys of referenceKeys. The keys of an embedded struct
// are among those of the struct.
func addKeys(v reflect.Value, fields, reference map[string]any) {
	for key, target := range referenceKeys(v.Addr().Interface()) {
		reference[key] = target
	}
	for i := range v.NumField() {
		info := v.Type().Field(i)
		if info.Anonymous {
			addKeys(v.Field(i), fields, reference)
			continue
		}
		fields[info.Tag.Get("json")] = v.Field(i).Addr().Interface()
	}
}

// checkKey checks that a key is known, and not among those before it.
func checkKey(path, key string, before, known []string) error {
	if slices.Contains(known, key) {
		if slices.Contains(before, key) {
			return fmt.Errorf("the key %s%s is there twice", path, key)
		}
		return nil
	}
	of := ""
	if path != "" {
		of = " in " + strings.TrimSuffix(path, ".")
	}
	for _, k := range known {
		if strings.EqualFold(k, key) {
			return fmt.Errorf("unknown key %s%s, want %q: case matters", errtext.Quote(key), of, k)
		}
	}
	return fmt.Errorf("unknown key %s%s%s", errtext.Quote(key), of, suggest.Phrase(key, known))
}

// decodeValue reads a value into a field. Errors name the key, the value and what was wanted.
func decodeValue(key string, data []byte, field reflect.Value) error {
	want := func(what string) error { return fmt.Errorf("%s is %s, want %s", key, text(data), what) }
	switch target := field.Addr().Interface().(type) {
	case interface{ setDefaults() }:
		return decodeObject(key+".", data, field)
	case *Size:
		if target.UnmarshalJSON(data) != nil {
			return want("a number or [height, width]")
		}
		return nil
	case *DType: // every such field is a precision
		var name string
		if isNull(data) {
			return nil
		}
		if json.Unmarshal(data, &name) != nil || target.UnmarshalText([]byte(name)) != nil {
			return want("f32, f16 or bf16")
		}
		return nil
	}
	isNumber := field.CanInt() || field.CanFloat()
	if isNull(data) {
		if isNumber {
			field.SetZero()
		}
		return nil
	}
	switch {
	case isNumber && !strings.ContainsRune("-0123456789", rune(data[0])):
		return want(map[bool]string{true: "an integer", false: "a number"}[field.CanInt()])
	case field.CanInt():
		n, err := strconv.ParseInt(string(data), 10, 64)
		if errors.Is(err, strconv.ErrRange) {
			return want(fmt.Sprintf("an integer up to %d", math.MaxInt32))
		} else if err != nil {
			return want("an integer")
		}
		field.SetInt(n)
	case field.CanFloat():
		x, err := strconv.ParseFloat(string(data), 64)
		if err != nil {
			return want(fmt.Sprintf("a number up to %g", math.MaxFloat32))
		}
		field.SetFloat(x)
	case field.Kind() == reflect.Bool:
		if json.Unmarshal(data, field.Addr().Interface()) != nil {
			return want("true or false")
		}
	case json.Unmarshal(data, field.Addr().Interface()) != nil:
		return want("a string")
	}
	return nil
}

func isNull(data []byte) bool { return string(bytes.TrimSpace(data)) == "null" }

// text returns a JSON value as an error message shows it.
func text(data []byte) string {
	const longest = 60
	var compact bytes.Buffer
	if err := json.Compact(&compact, data); err == nil {
		data = compact.Bytes()
	}
	s := string(data)
	if s != "" && len(s) <= longest && !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' }) {
		return s
	}
	return errtext.Quote(s)
}
