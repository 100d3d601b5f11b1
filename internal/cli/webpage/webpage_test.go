package webpage

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/cli/chart"
	"github.com/colt5-vulkan/colt5/internal/cli/charttest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// luminance is the relative luminance of WCAG 2.2 of a colour such as #1a5299.
func luminance(t *testing.T, hex string) float64 {
	t.Helper()
	require.Regexp(t, "^#[0-9a-f]{6}$", hex)
	n, err := strconv.ParseUint(hex[1:], 16, 32)
	require.NoError(t, err)
	part := func(shift uint) float64 {
		c := float64(n>>shift&0xff) / 255
		if c <= 0.04045 {
			return c / 12.92
		}
		return math.Pow((c+0.055)/1.055, 2.4)
	}
	return 0.2126*part(16) + 0.7152*part(8) + 0.0722*part(0)
}

// contrast is the contrast ratio of WCAG 2.2.
func contrast(t *testing.T, a, b string) float64 {
	t.Helper()
	x, y := luminance(t, a), luminance(t, b)
	return (max(x, y) + 0.05) / (min(x, y) + 0.05)
}

// themes returns the variables in light and dark.
func themes(t *testing.T) map[string]map[string]string {
	t.Helper()
	light, dark, found := strings.Cut(styleSheet, "@media (prefers-color-scheme: dark)")
	require.True(t, found)
	dark, _, _ = strings.Cut(dark, "\n}")
	read := func(css string) map[string]string {
		list := map[string]string{}
		for _, m := range regexp.MustCompile(`--([a-z0-9-]+): (#[0-9a-f]+);`).FindAllStringSubmatch(css, -1) {
			list[m[1]] = m[2]
		}
		return list
	}
	return map[string]map[string]string{"light": read(light), "dark": read(dark)}
}

// TestContrast requires a ratio of 4.5 of all texts, and of 3 of bars, in both themes. Every variable has a use.
func TestContrast(t *testing.T) {
	assert.InDelta(t, 21, contrast(t, "#000000", "#ffffff"), 1e-9)
	assert.InDelta(t, 4.54, contrast(t, "#767676", "#ffffff"), 0.01)
	for name, variables := range themes(t) {
		uses := map[string]bool{"rule": true, "grid": true, "axis": true, "bar": true} // lines and bars
		for text, backgrounds := range charttest.Texts {
			for _, background := range backgrounds {
				ratio := contrast(t, variables[text], variables[background])
				assert.GreaterOrEqual(t, ratio, 4.5, "%s: --%s on --%s", name, text, background)
				uses[text], uses[background] = true, true
			}
		}
		for _, graphic := range []string{"bar", "axis"} {
			assert.GreaterOrEqual(t, contrast(t, variables[graphic], variables["paper"]), 3.0, "%s: --%s", name, graphic)
		}
		for v := range variables {
			assert.True(t, uses[v], "%s: --%s has no use in this test", name, v)
		}
		assert.Len(t, variables, len(uses), name)
	}
}

// TestChartColors has the colours of charts on white and on pages.
func TestChartColors(t *testing.T) {
	for name, c := range chart.Variables() {
		r, g, b, _ := c.RGBA()
		hex := fmt.Sprintf("#%02x%02x%02x", r>>8, g>>8, b>>8)
		if name != "grid" {
			assert.GreaterOrEqual(t, contrast(t, hex, "#ffffff"), 4.5, name)
		}
		for theme, variables := range themes(t) {
			assert.Contains(t, variables, name, theme)
		}
	}
}
