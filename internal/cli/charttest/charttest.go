// Package charttest checks drawn charts and pages.
package charttest

import (
	"bytes"
	"encoding/xml"
	"errors"
	"image/png"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// CheckSVG requires XML with paths and without external references.
func CheckSVG(t *testing.T, svg []byte) {
	t.Helper()
	paths := 0
	for d := xml.NewDecoder(bytes.NewReader(svg)); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		if e, ok := token.(xml.StartElement); ok {
			if e.Name.Local == "path" {
				paths++
			}
			CheckSelfContained(t, e)
		}
	}
	assert.Greater(t, paths, 5)
}

// CheckSelfContained requires an element without external references.
func CheckSelfContained(t *testing.T, e xml.StartElement) {
	t.Helper()
	assert.NotContains(t, []string{"script", "link", "img", "image", "iframe", "object", "embed", "base", "use"}, e.Name.Local)
	for _, a := range e.Attr {
		if a.Name.Space == "xmlns" || a.Name.Local == "xmlns" {
			continue
		}
		if a.Name.Local == "href" {
			assert.True(t, strings.HasPrefix(a.Value, "#"), a.Value)
		}
		assert.NotContains(t, []string{"src", "srcset", "action", "data", "onload"}, a.Name.Local)
		assert.NotContains(t, a.Value, "//", a.Name.Local)
		assert.NotContains(t, a.Value, "url(", a.Name.Local)
	}
}

// CheckPNG requires an image of the size of a chart with more than 10 colours.
func CheckPNG(t *testing.T, data []byte) {
	t.Helper()
	picture, err := png.Decode(bytes.NewReader(data))
	require.NoError(t, err)
	size := picture.Bounds().Size()
	assert.Equal(t, 1152, size.X)
	assert.Equal(t, 720, size.Y)
	colors := map[any]bool{}
	for y := range size.Y {
		for x := range size.X {
			colors[picture.At(x, y)] = true
		}
	}
	assert.Greater(t, len(colors), 10)
}
