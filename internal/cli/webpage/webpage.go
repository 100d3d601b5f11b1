// Package webpage has what pages share: the head, and the style sheet of their elements, for light and dark.
package webpage

import (
	_ "embed"
	"html/template"
)

// styleSheet has the variables that are the only colours of a page.
//
//go:embed style.css
var styleSheet string

const head = `{{define "head"}}<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{.}}</title>
<style>
{{style}}</style>{{end}}`

// New parses the template of a page. {{template "head" TITLE}} is the contents of its head element.
func New(name, text string) (*template.Template, error) {
	t, err := template.New(name).Funcs(template.FuncMap{"style": func() template.CSS { return template.CSS(styleSheet) }}).Parse(head)
	if err != nil {
		return nil, err
	}
	return t.Parse(text)
}
