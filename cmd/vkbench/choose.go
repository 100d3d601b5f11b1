package main

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/colt5-vulkan/colt5/colt5"
	"github.com/colt5-vulkan/colt5/pipelines"
	"github.com/colt5-vulkan/colt5/vk"
)

// chooseCases keeps the cases named only (none: all) and gives them other sizes where the flags do.
func chooseCases(cases []benchCase, only, sizes []string) ([]benchCase, error) {
	for _, name := range only {
		if !slices.Contains(caseNames(cases), name) {
			return nil, usage("-only is %q, want some of %s", name, strings.Join(caseNames(cases), ", "))
		}
	}
	if len(only) > 0 {
		cases = slices.DeleteFunc(cases, func(c benchCase) bool { return !slices.Contains(only, c.name) })
	}
	given := map[string][][]int{}
	for _, text := range sizes {
		name, numbers, named := strings.Cut(text, "=")
		if !named {
			name, numbers = "", text
		}
		list, err := parseSizes(numbers)
		if err != nil {
			return nil, usage("-size is %q, %w", text, err)
		}
		if named && !slices.Contains(caseNames(cases), name) {
			return nil, usage("-size is %q, want sizes of %s", text, strings.Join(caseNames(cases), ", "))
		}
		for _, c := range cases {
			if named && c.name != name {
				continue
			}
			if len(list[0]) != len(c.dims) {
				return nil, usage("-size is %q, but %s has %d sizes: %s", text, c.name, len(c.dims), strings.Join(c.dims, " x "))
			}
			for _, size := range list {
				if err := c.fits(size); err != nil {
					return nil, usage("-size is %q, but of %s %w", text, c.name, err)
				}
			}
			given[c.name] = append(given[c.name], list...)
		}
	}
	for i := range cases {
		if g := given[cases[i].name]; g != nil {
			cases[i].sizes, cases[i].small = g, g
		}
	}
	return cases, nil
}

// fits rejects sizes that are no case: 0 where it has no meaning, more to choose than there is, and what would not be counted in 64 bits.
func (x benchCase) fits(size []int) error {
	all, product := -1, 1.0
	for i, d := range x.dims {
		product *= float64(max(size[i], 1))
		switch {
		case size[i] == 0 && !strings.Contains(d, "(0: "):
			return fmt.Errorf("%s is 0, want at least 1", d)
		case d == "entries", d == "tokens":
			all = i
		case d == "k" && all >= 0 && size[i] > size[all]:
			return fmt.Errorf("k is %d of %d %s, want no more than these", size[i], size[all], x.dims[all])
		}
	}
	if product > 1<<58 {
		return fmt.Errorf("the sizes multiply to more than 2^58")
	}
	return nil
}

// parseSize reads "2x32768x512".
func parseSize(text string) ([]int, error) {
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

// parseSizes reads sizes whose numbers may be lists, and makes all combinations: "2x8192,16384x512" is 2x8192x512 and 2x16384x512.
func parseSizes(text string) ([][]int, error) {
	const most = 10000
	sizes := [][]int{nil}
	for _, part := range strings.Split(text, "x") {
		var longer [][]int
		numbers := strings.Split(part, ",")
		if len(sizes)*len(numbers) > most {
			return nil, fmt.Errorf("want at most %d sizes", most)
		}
		for _, s := range sizes {
			for _, number := range numbers {
				n, err := parseSize(number)
				if err != nil {
					return nil, fmt.Errorf("%w or 2x1024,2048x512; for another case -size again", err)
				}
				longer = append(longer, append(slices.Clone(s), n[0]))
			}
		}
		sizes = longer
	}
	return sizes, nil
}

// list splits "a,b" at its commas; nothing is an empty list.
func list(text string) []string {
	if text == "" {
		return nil
	}
	return strings.Split(text, ",")
}

// precisionName is how a precision is called here.
func precisionName(p pipelines.DType) string { return strings.ToLower(p.String()) }

// parsePrecisions reads "f32,f16", or the names that modules use, "float32,float16". A precision that is named twice counts once.
func parsePrecisions(text string) ([]pipelines.DType, error) {
	all := []pipelines.DType{pipelines.F32, pipelines.F16, pipelines.BF16}
	var chosen []pipelines.DType
	for _, name := range strings.Split(text, ",") {
		name = strings.Replace(name, "float", "f", 1)
		i := slices.IndexFunc(all, func(p pipelines.DType) bool { return precisionName(p) == name })
		if i < 0 {
			return nil, usage("-precision is %q, want some of f32, f16, bf16", text)
		}
		if !slices.Contains(chosen, all[i]) {
			chosen = append(chosen, all[i])
		}
	}
	return chosen, nil
}

// onePrecision reads a precision.
func onePrecision(text string) (colt5.DType, error) {
	list, err := parsePrecisions(text)
	if err == nil && len(list) > 1 {
		err = usage("-precision is %q, want one of f32, f16, bf16", text)
	}
	if err != nil {
		return 0, err
	}
	return colt5.DType(list[0]), nil
}

// supported are the precisions of a list that a device has, and remarks on the others.
func supported(caps vk.Caps, list []pipelines.DType) (have []pipelines.DType, remarks []string) {
	for _, p := range list {
		if err := p.Supported(caps); err != nil {
			remarks = append(remarks, fmt.Sprintf("Left out: %s, which the device does not have: %v.", precisionName(p), err))
			continue
		}
		have = append(have, p)
	}
	return have, remarks
}

// work lists cases at their sizes, each in the precisions of a list that the device has, or, without 16-bit variants, in float32. The
// remarks say what is not as asked.
func work(cases []benchCase, small bool, caps vk.Caps, asked []pipelines.DType) (todo []sized, remarks []string) {
	have, remarks := supported(caps, asked)
	var plain []string
	for _, x := range cases {
		precisions := have
		if !slices.Contains(halves(), x.name) {
			precisions = []pipelines.DType{pipelines.F32}
			plain = append(plain, x.name)
		}
		todo = append(todo, x.at(small, precisions)...)
	}
	if len(plain) > 0 && !slices.Equal(asked, []pipelines.DType{pipelines.F32}) {
		remarks = append(remarks, "In f32 alone, for they have no 16-bit variants: "+strings.Join(plain, ", ")+".")
	}
	return todo, remarks
}

// nothing is the error of work that leaves nothing to run.
func nothing(todo []sized, remarks []string) error {
	if len(todo) > 0 {
		return nil
	}
	return fmt.Errorf("nothing that was asked for can run here. %s", strings.Join(remarks, " "))
}

// at lists the case at its sizes, in every precision of a list.
func (x benchCase) at(small bool, precisions []pipelines.DType) []sized {
	sizes := x.sizes
	if small {
		sizes = x.small
	}
	var todo []sized
	for _, s := range sizes {
		for _, p := range precisions {
			todo = append(todo, sized{benchCase: x, size: s, precision: p})
		}
	}
	return todo
}
