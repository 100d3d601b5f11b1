package platforms

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestOf(t *testing.T) {
	for want, devices := range map[string][]vk.Info{
		"NVIDIA":   {{VendorID: 0x10de, Driver: "NVIDIA", Type: "discrete"}, {VendorID: 0x10de, Driver: "NVK", Type: "discrete"}},
		"AMD":      {{VendorID: 0x1002, Driver: "radv", Type: "discrete"}, {VendorID: 0x1002, Driver: "AMD proprietary driver", Type: "integrated"}},
		"Intel":    {{VendorID: 0x8086, Driver: "Intel open-source Mesa driver", Type: "integrated"}},
		"Qualcomm": {{VendorID: 0x5143, Driver: "turnip Mesa driver", Type: "integrated"}},
		"Apple":    {{VendorID: 0x10005, Driver: "Honeykrisp", Type: "integrated"}, {VendorID: 0x106b, Driver: "MoltenVK", Type: "integrated"}},
		"CPU":      {{VendorID: 0x10005, Driver: "llvmpipe", Type: "cpu"}},
		"others": {{VendorID: 0x13b5, Driver: "panvk", Type: "integrated"}, {VendorID: 0x1ae0, Driver: "SwiftShader driver", Type: "cpu"},
			{VendorID: 0x8086, Driver: "a CPU driver of Intel", Type: "cpu"}, {}},
	} {
		for _, i := range devices {
			assert.Equal(t, want, Of(i).Name, "%+v", i)
		}
	}
	for _, f := range Families {
		for _, text := range []string{f.Ran, f.Compiled, f.Untried} {
			assert.NotEmpty(t, text, f.Name)
			assert.Contains(t, f.String(), text)
		}
	}
}

// The README has the table of this package.
func TestReadme(t *testing.T) {
	text, err := os.ReadFile("../../../../README.md")
	require.NoError(t, err)
	assert.True(t, strings.Contains(string(text), "\n"+Markdown()), "README.md does not have the table of Families:\n%s", Markdown())
}

// The families name the chips that `make test-compilers` compiles for, and no others.
func TestChips(t *testing.T) {
	makefile, err := os.ReadFile("../../../../Makefile")
	require.NoError(t, err)
	line := regexp.MustCompile(`(?m)^ALL_CHIPS := (.*)$`).FindSubmatch(makefile)
	require.NotNil(t, line)
	var chips []string
	for _, f := range Families {
		chips = append(chips, f.chips...)
	}
	assert.ElementsMatch(t, strings.Fields(string(line[1])), chips)
}
