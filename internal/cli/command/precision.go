package command

import (
	"fmt"
	"slices"
	"strings"

	"github.com/colt5-vulkan/colt5/pipelines"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/urfave/cli/v3"
)

// PrecisionFlag is a list of precisions; see ParsePrecisions.
func PrecisionFlag(value string) cli.Flag {
	return &cli.StringFlag{Name: "precision", Value: value, Usage: "time in these `PRECISIONS`, of f32, f16, bf16"}
}

// ParsePrecisions reads "f32,f16". Duplicates are removed.
func ParsePrecisions(text string) ([]pipelines.DType, error) {
	var list []pipelines.DType
	for _, name := range strings.Split(text, ",") {
		var p pipelines.DType
		if err := p.UnmarshalText([]byte(name)); err != nil || p > pipelines.BF16 {
			return nil, Usagef("-precision is %q, want some of f32, f16, bf16", text)
		}
		if !slices.Contains(list, p) {
			list = append(list, p)
		}
	}
	return list, nil
}

// ParsePrecision reads one precision.
func ParsePrecision(text string) (pipelines.DType, error) {
	list, err := ParsePrecisions(text)
	if err == nil && len(list) > 1 {
		err = Usagef("-precision is %q, want one of f32, f16, bf16", text)
	}
	if err != nil {
		return 0, err
	}
	return list[0], nil
}

// SupportedPrecisions returns the precisions of a list that a device supports, and a remark on each of the others.
func SupportedPrecisions(caps vk.Caps, list []pipelines.DType) (supported []pipelines.DType, remarks []string) {
	for _, p := range list {
		if err := p.Supported(caps); err != nil {
			remarks = append(remarks, fmt.Sprintf("Left out: %s, which the device does not support: %v.", p, err))
			continue
		}
		supported = append(supported, p)
	}
	return supported, remarks
}
