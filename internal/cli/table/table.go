// Package table writes tables in Markdown, CSV, JSON and JSON lines, row by row, so that each row is visible as soon as
// it is known.
package table

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strings"
	"unicode/utf8"
)

// Formats are the formats of New.
var Formats = []string{"md", "csv", "json", "jsonl"}

// Column describes a column. Its key is used in CSV and JSON, and names the unit; its title is used in Markdown.
type Column struct {
	key, title string
	width      int  // minimum width in Markdown, in characters
	left       bool // aligned to the left
	hidden     bool // not in Markdown
}

// Text is a column of text. Its minimum width is in characters.
func Text(key, title string, width int) Column {
	return Column{key: key, title: title, width: width, left: true}
}

// Number is a column of numbers, aligned to the right.
func Number(key, title string, width int) Column {
	return Column{key: key, title: title, width: width}
}

// Hidden is a column that Markdown leaves out.
func Hidden(key string) Column { return Column{key: key, hidden: true} }

// Table is a table that is being written.
type Table struct {
	BeforeWrite func() // called before each write; nil: nothing

	out, remarks io.Writer
	format       string
	columns      []Column
	rows         int
	started      bool
	err          error // of the first write that failed
}

// New starts a table of one of the Formats on out. Remarks go to out in Markdown, and to remarks otherwise.
func New(out, remarks io.Writer, format string, columns ...Column) *Table {
	return &Table{out: out, remarks: remarks, format: format, columns: columns}
}

func (t *Table) beforeWrite() {
	if t.BeforeWrite != nil {
		t.BeforeWrite()
	}
}

// Remark writes a line of text before or after the table: to the table's output in Markdown, to the writer of remarks
// otherwise.
func (t *Table) Remark(format string, args ...any) {
	t.beforeWrite()
	text := fmt.Sprintf(format, args...)
	switch {
	case t.format != "md":
		fmt.Fprintln(t.remarks, text)
	case t.started:
		t.print("\n%s\n", text)
	default:
		t.print("%s\n\n", text)
	}
}

func (t *Table) print(format string, args ...any) {
	if _, err := fmt.Fprintf(t.out, format, args...); err != nil && t.err == nil {
		t.err = err
	}
}

// begin writes the header, once.
func (t *Table) begin() {
	if t.started {
		return
	}
	t.started = true
	switch t.format {
	case "md":
		var titles, rules []string
		for i, c := range t.columns {
			if c.hidden {
				continue
			}
			titles = append(titles, t.pad(i, c.title))
			rule := strings.Repeat("-", max(c.width, utf8.RuneCountInString(c.title), 2)-1)
			if c.left {
				rules = append(rules, ":"+rule)
			} else {
				rules = append(rules, rule+":")
			}
		}
		t.print("| %s |\n| %s |\n", strings.Join(titles, " | "), strings.Join(rules, " | "))
	case "csv":
		var keys []string
		for _, c := range t.columns {
			keys = append(keys, c.key)
		}
		t.csv(keys)
	case "json":
		t.print("[")
	}
}

// pad pads a cell to the width of its column.
func (t *Table) pad(i int, text string) string {
	c := t.columns[i]
	fill := strings.Repeat(" ", max(0, max(c.width, utf8.RuneCountInString(c.title), 2)-utf8.RuneCountInString(text)))
	if c.left {
		return text + fill
	}
	return fill + text
}

// Row writes a row, one value per column. nil is an empty cell.
func (t *Table) Row(values ...any) {
	if len(values) != len(t.columns) && t.err == nil {
		t.err = fmt.Errorf("a row of %d values in a table of %d columns", len(values), len(t.columns))
	}
	if t.err != nil {
		return
	}
	t.beforeWrite()
	t.begin()
	switch t.format {
	case "md":
		var cells []string
		for i, v := range values {
			if !t.columns[i].hidden {
				cells = append(cells, t.pad(i, Markdown(v)))
			}
		}
		t.print("| %s |\n", strings.Join(cells, " | "))
	case "csv":
		var cells []string
		for _, v := range values {
			cells = append(cells, plain(v))
		}
		t.csv(cells)
	case "json":
		t.print("%s\n  %s", map[bool]string{true: ",", false: ""}[t.rows > 0], t.object(values))
	case "jsonl":
		t.print("%s\n", t.object(values))
	}
	t.rows++
}

func (t *Table) csv(cells []string) {
	w := csv.NewWriter(t.out)
	w.Write(cells) // Error returns its error
	w.Flush()
	if err := w.Error(); err != nil && t.err == nil {
		t.err = err
	}
}

// object formats a row as a JSON object with its keys in the order of the columns.
func (t *Table) object(values []any) string {
	var parts []string
	for i, v := range values {
		if f, ok := number(v); ok && (math.IsNaN(f) || math.IsInf(f, 0)) {
			v = nil // not representable in JSON
		}
		text, err := json.Marshal(v)
		if err != nil && t.err == nil {
			t.err = err
		}
		parts = append(parts, fmt.Sprintf("%q: %s", t.columns[i].key, text))
	}
	return "{" + strings.Join(parts, ", ") + "}"
}

// Close ends the table and returns the first error.
func (t *Table) Close() error {
	t.beforeWrite()
	t.begin()
	if t.format == "json" {
		t.print("\n]\n")
	}
	return t.err
}
