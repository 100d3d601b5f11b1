package route

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"strings"
	"unicode/utf16"

	"github.com/colt5-vulkan/colt5/internal/cli/webpage"
)

//go:embed page.html
var pageTemplate string

// page is the data of page.html.
type page struct {
	Title    string
	Demo     bool
	About    []string
	Summary  []string
	Routers  []pageRouter
	Shown    int       // of Routers
	Passages []passage // the whole text
	Runs     [][]textRun
	Marks    [][][]int // of each router, of each passage: the lengths of its runs in UTF-16 code units, from a light one
}

// pageRouter is what a page says about a router.
type pageRouter struct {
	Name    string
	Summary []string
	Legend  string
	Top     [3]string // labels of the axis of shares: at its top, in its middle, at 0
	Bars    []pageBar
	Bytes   [3]string // labels of the axis of bytes
	Best    []pagePassage
}

type pageBar struct {
	Passage int
	Height  template.CSS
	Note    string
}

type pagePassage struct {
	Index                int
	From, Share, Excerpt string
}

// newPage makes a page of a text: for each router the density of heavy bytes and a list of at most limit passages, and
// the whole text with the heavy bytes of the shown router marked.
func newPage(t *routedText, names []string, limit int) page {
	var shownNames []string
	for _, name := range names {
		shownNames = append(shownNames, printableName(name))
	}
	p := page{
		Title: "Routed: " + strings.Join(shownNames, ", "), Demo: t.model.demo, About: t.model.about, Summary: t.summary(),
		Shown: t.shown, Passages: t.passages(),
	}
	for _, x := range p.Passages {
		p.Runs = append(p.Runs, t.runs(t.router(), x.from, x.to))
	}
	for _, r := range t.routers {
		p.Routers = append(p.Routers, t.pageRouter(r, p.Passages, limit))
		marks := make([][]int, len(p.Passages))
		for i, x := range p.Passages {
			marks[i] = runLengths(t.runs(r, x.from, x.to))
		}
		p.Marks = append(p.Marks, marks)
	}
	return p
}

func (t *routedText) pageRouter(r *routing, all []passage, limit int) pageRouter {
	density := r.density()
	top := axisTop(topShare(density))
	p := pageRouter{
		Name: r.name, Summary: r.summary(), Legend: legend(density, len(t.text)), Top: [3]string{percent(top), percent(top / 2), "0"},
		Bytes: [3]string{"byte 0", thousands(len(t.text) / 2), thousands(len(t.text) - 1)},
	}
	at := 0 // the passage with the part's first byte
	for _, x := range density {
		for all[at].to <= x.from {
			at++
		}
		p.Bars = append(p.Bars, pageBar{at, template.CSS(fmt.Sprintf("%.1f%%", 100*x.share/top)),
			fmt.Sprintf("bytes %s to %s: %s heavy", thousands(x.from), thousands(x.to-1), percent(x.share))})
	}
	for _, x := range r.best(all, limit) {
		p.Best = append(p.Best, pagePassage{x.index, thousands(x.from), percent(r.share(x.from, x.to)), t.excerpt(r, x)})
	}
	return p
}

// excerpt returns the start of a passage in one line.
func (t *routedText) excerpt(r *routing, p passage) string {
	var all strings.Builder
	for _, x := range t.runs(r, p.from, p.to) {
		all.WriteString(x.Text)
	}
	const limit = 120
	text := []rune(strings.Join(strings.Fields(all.String()), " "))
	if len(text) > limit {
		text = append(text[:limit-1], '…')
	}
	return string(text)
}

// runLengths returns the lengths of runs as JavaScript counts them, from a light one. A light run at the end is left
// out.
func runLengths(runs []textRun) []int {
	list := []int{}
	for _, x := range runs {
		if x.Heavy && len(list)%2 == 0 {
			list = append(list, 0)
		}
		list = append(list, len(utf16.Encode([]rune(x.Text))))
	}
	if len(list)%2 == 1 {
		list = list[:len(list)-1]
	}
	return list
}

// writePage writes a self-contained page.
func writePage(w io.Writer, t *routedText, names []string, limit int) error {
	tmpl, err := webpage.New("route", pageTemplate)
	if err != nil {
		return err
	}
	return tmpl.Execute(w, newPage(t, names, limit))
}
