package charttest

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestFixedColors(t *testing.T) {
	assert.Empty(t, fixedColors("p { color: var(--ink); border: 1px solid var(--rule); fill: none } :root { --paper: #fff; color-scheme: dark; }"))
	assert.Equal(t, []string{"color: red", "border: 1px solid #123456", "fill:#FFFFFF", "stroke:#000"},
		fixedColors("p { color: red; background: var(--paper); border: 1px solid #123456; fill: none } a{fill:#FFFFFF;stroke:#000}"))
}
