package main

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/urfave/cli/v3"
)

// Kinds of values that a reader wants to see otherwise than a program does. Programs get the plain number.
type (
	size   uint64  // bytes
	millis float64 // milliseconds
	share  float64 // of 1
)

// column of a table. The key is for programs, and tells the unit.
type column struct {
	key, title string
	width      int  // characters at least, in Markdown
	left       bool // aligned to the left
	data       bool // for programs alone: not in Markdown
}

// words is a column of text, numbers one of the rest; the width is in characters. A column of data is for programs alone.
func words(key, title string, width int) column {
	return column{key: key, title: title, width: width, left: true}
}
func numbers(key, title string, width int) column {
	return column{key: key, title: title, width: width}
}
func data(key string) column { return column{key: key, data: true} }

// table is written row by row, so that what is known is seen at once.
type table struct {
	out, remarks io.Writer
	format       string
	columns      []column
	rows         int
	began        bool
	before       func() // called before something is written
	err          error
}

func outputFlag() cli.Flag {
	return &cli.StringFlag{Name: "o", Value: "md", Usage: "output `FORMAT`: md (Markdown), csv, json or jsonl"}
}

// table starts a table on stdout in the format that the flags name.
func (a *app) table(c *cli.Command, columns ...column) (*table, error) {
	format := c.String("o")
	if !slices.Contains([]string{"md", "csv", "json", "jsonl"}, format) {
		return nil, usage("-o is %q, want md, csv, json or jsonl", format)
	}
	return &table{out: a.stdout, remarks: a.stderr, format: format, columns: columns, before: func() {}}, nil
}

// remark writes a line beside the table: to stdout in Markdown, where it does no harm, to stderr otherwise.
func (t *table) remark(format string, args ...any) {
	t.before()
	text := fmt.Sprintf(format, args...)
	switch {
	case t.format != "md":
		fmt.Fprintln(t.remarks, text)
	case t.began:
		t.print("\n%s\n", text)
	default:
		t.print("%s\n\n", text)
	}
}

func (t *table) print(format string, args ...any) {
	if _, err := fmt.Fprintf(t.out, format, args...); err != nil && t.err == nil {
		t.err = err
	}
}

// begin writes the head.
func (t *table) begin() {
	if t.began {
		return
	}
	t.began = true
	switch t.format {
	case "md":
		var titles, rules []string
		for i, c := range t.columns {
			if c.data {
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

// pad brings a cell to the width of its column.
func (t *table) pad(i int, text string) string {
	c := t.columns[i]
	fill := strings.Repeat(" ", max(0, max(c.width, utf8.RuneCountInString(c.title), 2)-utf8.RuneCountInString(text)))
	if c.left {
		return text + fill
	}
	return fill + text
}

// row writes a row, one value a column; nil is an empty cell.
func (t *table) row(values ...any) {
	if len(values) != len(t.columns) && t.err == nil {
		t.err = fmt.Errorf("a row of %d values in a table of %d columns", len(values), len(t.columns))
	}
	if t.err != nil {
		return
	}
	t.before()
	t.begin()
	switch t.format {
	case "md":
		var cells []string
		for i, v := range values {
			if !t.columns[i].data {
				cells = append(cells, t.pad(i, markdown(v)))
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

func (t *table) csv(cells []string) {
	w := csv.NewWriter(t.out)
	w.Write(cells) // Flush keeps its error
	w.Flush()
	if err := w.Error(); err != nil && t.err == nil {
		t.err = err
	}
}

// object writes a row as a JSON object, keys in the order of the columns.
func (t *table) object(values []any) string {
	var parts []string
	for i, v := range values {
		if f, ok := number(v); ok && (math.IsNaN(f) || math.IsInf(f, 0)) {
			v = nil // JSON has no such number
		}
		text, err := json.Marshal(v)
		if err != nil && t.err == nil {
			t.err = err
		}
		parts = append(parts, fmt.Sprintf("%q: %s", t.columns[i].key, text))
	}
	return "{" + strings.Join(parts, ", ") + "}"
}

// close ends the table.
func (t *table) close() error {
	t.before()
	t.begin()
	if t.format == "json" {
		t.print("\n]\n")
	}
	return t.err
}

func number(v any) (float64, bool) {
	r := reflect.ValueOf(v)
	if r.IsValid() && r.CanFloat() {
		return r.Float(), true
	}
	return 0, false
}

// plain is a value for programs.
func plain(v any) string {
	if f, ok := number(v); ok {
		return strconv.FormatFloat(f, 'g', -1, 64)
	}
	switch x := v.(type) {
	case nil, absent:
		return ""
	case size:
		return strconv.FormatUint(uint64(x), 10)
	}
	return fmt.Sprint(v)
}

// markdown is a value for people.
func markdown(v any) string {
	switch x := v.(type) {
	case nil:
		return ""
	case bool:
		return map[bool]string{true: "yes", false: "no"}[x]
	case millis:
		return significant(float64(x))
	case share:
		if x > 0 && x < 0.0995 {
			return fmt.Sprintf("%.1f %%", 100*float64(x))
		}
		return fmt.Sprintf("%.0f %%", 100*float64(x))
	case size:
		return x.String()
	case mebibytes:
		return size(x * (1 << 20)).String()
	case float64:
		return significant(x)
	}
	return strings.NewReplacer("|", `\|`, "\n", " ").Replace(fmt.Sprint(v))
}

// significant writes a number with four digits, without an exponent where that is readable.
func significant(x float64) string {
	if a := math.Abs(x); a >= 1e-3 && a < 1e6 {
		return strconv.FormatFloat(x, 'f', min(max(3-int(math.Floor(math.Log10(a))), 0), 6), 64)
	}
	return fmt.Sprintf("%.3g", x)
}

// String is the size with a unit.
func (s size) String() string {
	units := [...]string{"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
	x, i := float64(s), 0
	for x >= 1024 && i < len(units)-1 {
		x /= 1024
		i++
	}
	if x == math.Trunc(x) {
		return fmt.Sprintf("%.0f %s", x, units[i])
	}
	return fmt.Sprintf("%.2f %s", x, units[i])
}
