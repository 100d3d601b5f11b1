// Package validate checks whether results can be results at all: finite floats, indices in range.
package validate

import (
	"fmt"
	"slices"
)

// Floats requires finite elements. Unless constant is set, they must not all be equal.
func Floats(data []float32, constant bool) error {
	for i, x := range data {
		if x-x != 0 {
			return fmt.Errorf("element %d is %v, want a finite number", i, x)
		}
	}
	if !constant && len(data) > 1 && !slices.ContainsFunc(data, func(x float32) bool { return x != data[0] }) {
		return fmt.Errorf("all %d elements are %v, want different values", len(data), data[0])
	}
	return nil
}

// Indices requires elements from 0 to limit - 1 that are unique within each row of rowLength elements.
func Indices(data []int32, rowLength, limit int) error {
	seen := make([]bool, limit)
	for i, x := range data {
		if i%rowLength == 0 {
			clear(seen)
		}
		if x < 0 || int(x) >= limit || seen[x] {
			return fmt.Errorf("element %d is %d, want a number below %d, and each at most once in a row of %d", i, x, limit, rowLength)
		}
		seen[x] = true
	}
	return nil
}
