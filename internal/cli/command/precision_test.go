package command

import (
	"testing"

	"github.com/colt5-vulkan/colt5/pipelines"
	"github.com/stretchr/testify/assert"
)

func TestParsePrecisions(t *testing.T) {
	for text, want := range map[string][]pipelines.DType{
		"f32": {pipelines.F32}, "bf16,f16,bf16": {pipelines.BF16, pipelines.F16}, "float32,bfloat16": {pipelines.F32, pipelines.BF16}, "": nil, "f32,": nil, "F32": nil, "f64": nil, "f32 ,f16": nil,
	} {
		got, err := ParsePrecisions(text)
		assert.Equal(t, want, got, text)
		assert.Equal(t, want == nil, err != nil, text)
	}
}
