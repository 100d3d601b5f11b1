package route

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"slices"
	"strings"
	"unicode"
)

//go:embed page.html
var pageTemplate string

// writePage writes a self-contained page: the density of heavy bytes, and the whole text with heavy bytes marked.
func writePage(w io.Writer, t *routedText, names []string) error {
	page, err := template.New("page").Parse(pageTemplate)
	if err != nil {
		return err
	}
	type section struct {
		ID   int
		Bar  string // height in percent
		Note string
		Runs []textRun
	}
	data := struct {
		Title    string
		Summary  []string
		Max      string
		Sections []section
	}{Title: "Routed: " + strings.Join(names, ", "), Summary: t.summary()}
	density := t.density(160)
	top := slices.Max(density)
	data.Max = percent(top)
	for i, x := range density {
		from, to := i*len(t.text)/len(density), (i+1)*len(t.text)/len(density)
		s := section{ID: i, Bar: fmt.Sprintf("%.1f", 100*x/max(top, 1e-9)),
			Note: fmt.Sprintf("bytes %d to %d: %s heavy", from, to-1, percent(x)),
			Runs: t.runs(t.runeStart(from), t.runeStart(to))}
		for j := range s.Runs {
			s.Runs[j].Text = strings.Map(plainOrder, s.Runs[j].Text)
		}
		data.Sections = append(data.Sections, s)
	}
	return page.Execute(w, data)
}

// plainOrder replaces characters that would show the text after them in another ordet.
func plainOrder(c rune) rune {
	if unicode.Is(unicode.Bidi_Control, c) {
		return '·'
	}
	return c
}
