package safetensors

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestLoadOptionsName(t *testing.T) {
	drop := func(name string) string {
		if name == "drop" {
			return ""
		}
		return strings.ToUpper(name)
	}
	for _, c := range []struct {
		options      LoadOptions
		tensor, want string
	}{
		{LoadOptions{}, "a.b", "a.b"},
		{LoadOptions{}, "", ""},
		{LoadOptions{Prefix: "module."}, "module.a", "a"},
		{LoadOptions{Prefix: "module."}, "module.module.a", "module.a"},
		{LoadOptions{Prefix: "module."}, "a", "ignored"},
		{LoadOptions{AddPrefix: "layers."}, "0.a", "layers.0.a"},
		{LoadOptions{Prefix: "x.", AddPrefix: "y.", Rename: drop}, "x.a", "Y.A"},
		{LoadOptions{Rename: drop}, "drop", "ignored"},
	} {
		got, ok := c.options.Name(c.tensor)
		if !ok {
			got = "ignored"
		}
		assert.Equal(t, c.want, got)
	}
}
