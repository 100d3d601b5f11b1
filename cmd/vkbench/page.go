package main

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

// writePage writes a page that needs nothing else: the density of heavy bytes, and the whole text.
func writePage(w io.Writer, r *routedText, names []string) error {
	page, err := template.New("page").Parse(pageTemplate)
	if err != nil {
		return err
	}
	type section struct {
		ID   int
		Bar  string // height in the bar, percent
		Note string
		Runs []textRun
	}
	data := struct {
		Title    string
		Summary  []string
		Most     string
		Sections []section
	}{Title: "Routed: " + strings.Join(names, ", "), Summary: r.summary()}
	density := r.density(160)
	most := slices.Max(density)
	data.Most = percent(most)
	for i, x := range density {
		from, to := i*len(r.text)/len(density), (i+1)*len(r.text)/len(density)
		s := section{ID: i, Bar: fmt.Sprintf("%.1f", 100*x/max(most, 1e-9)),
			Note: fmt.Sprintf("bytes %d to %d: %s heavy", from, to-1, percent(x)),
			Runs: r.runs(r.whole(from), r.whole(to))}
		for j := range s.Runs {
			s.Runs[j].Text = strings.Map(plainOrder, s.Runs[j].Text)
		}
		data.Sections = append(data.Sections, s)
	}
	return page.Execute(w, data)
}

// plainOrder replaces characters that would show the text after them in another order.
func plainOrder(c rune) rune {
	if unicode.Is(unicode.Bidi_Control, c) {
		return '·'
	}
	return c
}
