// Package dims reads and writes sizes such as 2x32768x512.
package dims

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Parse reads a size such as 2x32768x512.
func Parse(text string) ([]int, error) {
	var size []int
	for _, part := range strings.Split(text, "x") {
		n, err := strconv.Atoi(part)
		if err != nil || n < 0 || n > math.MaxInt32 {
			return nil, fmt.Errorf("want numbers up to %d with x between them, such as 2x1024x512", math.MaxInt32)
		}
		size = append(size, n)
	}
	return size, nil
}

// Format is the inverse of Parse.
func Format(size []int) string {
	var parts []string
	for _, n := range size {
		parts = append(parts, strconv.Itoa(n))
	}
	return strings.Join(parts, "x")
}

// ParseList reads sizes whose numbers may be lists and returns all combinations: 2x8192,16384x512 is 2x8192x512 and
// 2x16384x512.
func ParseList(text string) ([][]int, error) {
	const limit = 10000
	sizes := [][]int{nil}
	for _, part := range strings.Split(text, "x") {
		var extended [][]int
		numbers := strings.Split(part, ",")
		if len(sizes)*len(numbers) > limit {
			return nil, fmt.Errorf("want at most %d sizes", limit)
		}
		for _, s := range sizes {
			for _, number := range numbers {
				n, err := Parse(number)
				if err != nil {
					return nil, fmt.Errorf("%w or 2x1024,2048x512; for another case -size again", err)
				}
				extended = append(extended, append(slices.Clone(s), n[0]))
			}
		}
		sizes = extended
	}
	return sizes, nil
}
