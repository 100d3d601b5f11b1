package charttest

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Element is an element of a page.
type Element struct {
	Name string
	Attr map[string]string
	Text string // directly in it
	Rows int    // of a table
}

// CheckPage requires a page of valid UTF-8 with nested elements, without external references, without control characters,
// with unique ids, with links to these only, and with CSS variables for all colours. A script element is allowed if
// scripts is set. It returns the elements in the order of their start tags.
func CheckPage(t *testing.T, page []byte, scripts bool) []*Element {
	t.Helper()
	require.True(t, utf8.Valid(page), "not UTF-8")
	assert.True(t, bytes.HasPrefix(page, []byte("<!DOCTYPE html>\n<html lang=")))
	assert.NotContains(t, string(page), "ZgotmplZ", "text that the template refused")
	for _, c := range string(page) {
		require.False(t, unicode.IsControl(c) && c != '\n' && c != '\t', "control character %U", c)
	}
	d := xml.NewDecoder(bytes.NewReader(page))
	d.Strict, d.AutoClose, d.Entity = false, xml.HTMLAutoClose, xml.HTMLEntity
	var list, open []*Element
	ids, links := map[string]bool{}, []string{}
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		switch x := token.(type) {
		case xml.StartElement:
			e := &Element{Name: x.Name.Local, Attr: map[string]string{}}
			for _, a := range x.Attr {
				e.Attr[a.Name.Local] = a.Value
			}
			if id, ok := e.Attr["id"]; ok {
				assert.False(t, ids[id], "two elements have the id %s", id)
				ids[id] = true
			}
			if link, ok := e.Attr["href"]; ok {
				links = append(links, link)
			}
			if !scripts || e.Name != "script" {
				CheckSelfContained(t, x)
			}
			assert.Empty(t, fixedColors(e.Attr["style"]))
			if e.Name == "tr" {
				for _, o := range open {
					if o.Name == "table" {
						o.Rows++
					}
				}
			}
			list, open = append(list, e), append(open, e)
		case xml.EndElement:
			require.NotEmpty(t, open)
			assert.Equal(t, open[len(open)-1].Name, x.Name.Local)
			if e := open[len(open)-1]; e.Name == "style" {
				assert.Empty(t, fixedColors(e.Text), "colours that do not follow the dark mode")
				for _, m := range textColor.FindAllStringSubmatch(e.Text, -1) {
					assert.Contains(t, Texts, m[1], "a colour of text without a test of its contrast")
				}
			}
			open = open[:len(open)-1]
		case xml.CharData:
			if len(open) > 0 {
				open[len(open)-1].Text += string(x)
			}
			assert.NotContains(t, string(x), "url(")
			assert.NotContains(t, string(x), "@import")
		}
	}
	assert.Empty(t, open)
	for _, link := range links {
		id, local := strings.CutPrefix(link, "#")
		assert.True(t, local && ids[id], "a link to %q, want one to an element of the page", link)
	}
	return list
}

// Texts are the CSS variables of texts, and the backgrounds on which they are. A test of package webpage computes their
// contrast.
var Texts = map[string][]string{
	"ink": {"paper", "box"}, "faint": {"paper", "box"}, "link": {"paper", "box"}, "warn": {"warn-paper"}, "on-mark": {"mark"},
	"f32": {"paper"}, "f16": {"paper"}, "bf16": {"paper"}, // labels of plots
}

var textColor = regexp.MustCompile(`(?:^|[;{\s])color:\s*var\(--([a-z0-9-]+)\)`)

var colored = regexp.MustCompile(`(?:^|[;{\s])((?:color|background|background-color|fill|stroke|outline|border|border-[a-z]+)\s*:\s*([^;}]+))`)

// fixedColors returns the declarations of a style that have a colour, or may have one, but no CSS variable.
func fixedColors(css string) (list []string) {
	for _, m := range colored.FindAllStringSubmatch(css, -1) {
		value := strings.TrimSpace(m[2])
		neutral := slices.Contains([]string{"none", "transparent", "inherit", "0", "collapse"}, value) || strings.HasPrefix(m[1], "border-radius")
		if !neutral && !strings.Contains(value, "var(--") {
			list = append(list, strings.TrimSpace(m[1]))
		}
	}
	return list
}
