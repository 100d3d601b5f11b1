package colt5

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"

	"github.com/colt5-vulkan/colt5/vk"
)

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

// What follows checks single fields; the errors name the field by its Go name.

func atLeast(op, field string, v, least int) error {
	if v < least || v > math.MaxInt32 {
		return fmt.Errorf("colt5: %s: %s is %d, want %d to %d", op, field, v, least, math.MaxInt32)
	}
	return nil
}

// checkDepth bounds the number of layers: without a bound a slip of the pen takes all memory of the host.
func checkDepth(op string, depth int) error {
	const most = 1 << 14
	if depth < 1 || depth > most {
		return fmt.Errorf("colt5: %s: Depth is %d, want 1 to %d", op, depth, most)
	}
	return nil
}

func aboveZero(op, field string, v float64) error {
	if !(v > 0) || v > math.MaxFloat32 {
		return fmt.Errorf("colt5: %s: %s is %v, want a positive number", op, field, v)
	}
	return nil
}

// zero checks a field that another one, or nothing, takes the place of.
func zero(op, field string, v int, why string) error {
	if v != 0 {
		return fmt.Errorf("colt5: %s: %s is %d, want 0: %s", op, field, v, why)
	}
	return nil
}

func needDevice(op string, dev *vk.Device) error {
	if dev == nil {
		return fmt.Errorf("colt5: %s: the device is nil", op)
	}
	return nil
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// checkDescent checks the schedule of coordinate descent.
func checkDescent(op string, iters int, eps, epsInit, epsDecay float64) error {
	if err := firstError(atLeast(op, "NIters", iters, 1), aboveZero(op, "Eps", eps), aboveZero(op, "EpsDecay", epsDecay)); err != nil {
		return err
	}
	if epsDecay > 1 {
		return fmt.Errorf("colt5: %s: EpsDecay is %v, want at most 1", op, epsDecay)
	}
	if epsInit != 0 {
		return aboveZero(op, "EpsInit", epsInit)
	}
	return nil
}
