package report

import (
	"bytes"
	"fmt"
	"html"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/figures"
	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/measure"
	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/results"
	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/resultstest"
	"github.com/colt5-vulkan/colt5/internal/cli/chart"
	"github.com/colt5-vulkan/colt5/internal/cli/charttest"
	"github.com/colt5-vulkan/colt5/internal/cli/command"
	"github.com/colt5-vulkan/colt5/internal/cli/commandtest"
	"github.com/colt5-vulkan/colt5/internal/cli/deviceinfo"
	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/pipelines"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestMain(m *testing.M) { gputest.Main(m) }

var program = commandtest.New("vkbench", Command, PlotCommand)

// outline returns the headings, figures, warnings and columns of a page, and checks the page.
func outline(t *testing.T, page []byte) []string {
	t.Helper()
	var lines []string
	rows := ""
	for _, e := range charttest.CheckPage(t, page, false) {
		if rows != "" && e.Name != "thead" && e.Name != "tbody" && e.Name != "tr" && e.Name != "th" && e.Name != "td" {
			lines, rows = append(lines, rows), ""
		}
		if id := e.Attr["id"]; id != "" && e.Name != "h2" {
			lines = append(lines, e.Name+" "+id)
		}
		switch e.Name {
		case "h1", "h2", "th", "dt":
			lines = append(lines, e.Name+" "+e.Text)
		case "table":
			rows = fmt.Sprintf("%d rows", e.Rows)
		}
	}
	return lines
}

// TestPage has a page with all parts, and one without optional parts.
func TestPage(t *testing.T) {
	info := vk.Info{Name: `A <device> & "more"`, Driver: "d", Caps: vk.Caps{CPU: true}}
	plots := []drawing{{"roofline", "Roofline", "caption", chart.Inline{Wide: "<svg></svg>", Narrow: "<svg></svg>"}}}
	p := newPage(info, "vkbench report -out DIR", time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), []string{"one", measure.CPUDriverRemark}, resultstest.Rows(), plots)
	p.Failed = []string{"two"}
	var out bytes.Buffer
	require.NoError(t, p.write(&out))
	assert.Equal(t, []string{
		`h1 A <device> & "more"`, "p cpu", "p failed",
		"dt peak bandwidth", "dt peak rate of f32", "dt peak rate of f16", "dt f32 time / f16 time", "dt transformer block, 2,048 tokens",
		"dt dense attention / block, 2,048 tokens",
		"h2 Plots", "figure roofline",
		"h2 Rates of copies and products", "th name", "th shape", "th precision", "th GPU ms", "th GB/s", "th TFLOP/s", "6 rows",
		"h2 Modules and kernels", "th name", "th shape", "th precision", "th GPU ms", "th p10", "th p90", "th wall ms", "th GB/s", "th TFLOP/s", "th of peak",
		"th workspace", "th peak memory", "th runs", "4 rows",
		"h2 Lengths", "th name", "th shape", "th precision", "th tokens", "th GPU time", "th per token", "th TFLOP/s", "th peak memory", "th runs", "6 rows",
		"h2 Failures", "h2 Remarks", "h2 Device", fmt.Sprintf("%d rows", len(deviceinfo.Properties(info))), "h2 Reproduce",
	}, outline(t, out.Bytes()), "the summary first, the remarks after the results")
	text := out.String()
	assert.Equal(t, strings.Count(text, "<table"), len(regexp.MustCompile(`<div class="scroll" role="region" aria-label="[^"]+" tabindex="0"><table>`).FindAllString(text, -1)), "each in a box that scrolls")
	assert.Contains(t, text, ".scroll { overflow-x: auto;")
	assert.Contains(t, text, "the times are no GPU figures")
	assert.Equal(t, 1, strings.Count(text, "no GPU figures"))
	assert.Contains(t, text, `<p class="remark">one</p>`)
	assert.Contains(t, text, "on 2026-01-02")
	assert.Contains(t, text, "<code>vkbench report -out DIR</code> repeats")
	assert.Contains(t, text, `1 failure: <a href="#failures">`)
	assert.Contains(t, text, `<p class="failure">two</p>`)
	assert.Contains(t, text, "<td>2,048</td><td>12.00 ms</td><td>5.859 µs</td>", "times have units")
	assert.NotContains(t, text, "<device>")

	info.Caps.CPU = false
	out.Reset()
	require.NoError(t, newPage(info, "", time.Now(), nil, nil, nil).write(&out))
	assert.Equal(t, []string{`h1 A <device> & "more"`, "h2 Device", fmt.Sprintf("%d rows", len(deviceinfo.Properties(info))), "h2 Reproduce"}, outline(t, out.Bytes()))
	assert.NotContains(t, out.String(), "no GPU figures")
}

// TestReport measures small sizes, and one case that fails.
func TestReport(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 8 s; the other tests make parts of the page")
	}
	dev := gputest.Device(t)
	dir := filepath.Join(t.TempDir(), "report")
	lengths := "128,256"
	code, out, remarks := program.RunOnDevice(t, "report", "-out", dir, "-only", "router,rmsnorm", "-size", "router=2x40,5x16x5", "-size", "rmsnorm=5x12", "-precision", "f32",
		"-lengths", lengths, "-reps", "1", "-warmup", "0")
	require.Equal(t, command.ExitFailed, code)
	assert.Contains(t, remarks, "router 2x5x16x5 f32: ", "nothing to route")
	names := []string{"bench.jsonl", "length.svg", "length.png", "token.svg", "token.png", "length_dense.svg", "length_dense.png", "report.html"}
	if !dev.Caps().CPU { // whose rates are no peaks
		names = slices.Insert(names, 1, "roofline.svg", "roofline.png")
	}
	require.Len(t, strings.Fields(out), len(names))
	for i, path := range strings.Fields(out) {
		assert.Equal(t, filepath.Join(dir, names[i]), path)
	}
	rows, err := results.ReadFile(filepath.Join(dir, "bench.jsonl"))
	require.NoError(t, err)
	count := map[string]int{}
	for _, r := range rows {
		count[r.Name]++
		assert.Equal(t, dev.Info().Name, r.Device)
	}
	assert.Equal(t, 1, count["router"])
	assert.Equal(t, 1, count["rmsnorm"])
	assert.Positive(t, count[results.BlockLength])
	assert.Positive(t, count[results.DenseAttention])
	page, err := os.ReadFile(filepath.Join(dir, "report.html"))
	require.NoError(t, err)
	found := outline(t, page)
	assert.Subset(t, found, []string{"h1 " + dev.Info().Name, "p failed", "figure length", "figure token", "figure length_dense",
		"h2 Rates of copies and products", "h2 Modules and kernels", "h2 Lengths", "h2 Failures", "h2 Remarks", "h2 Device", "h2 Reproduce"})
	assert.Equal(t, dev.Caps().CPU, strings.Contains(string(page), `id="cpu"`))
	assert.Contains(t, html.UnescapeString(string(page)), "Host: "+rows[0].OS+"; "+rows[0].CPU)
	assert.Equal(t, dev.Caps().CPU, strings.Contains(remarks, "no GPU figures"))
	assert.Contains(t, string(page), "vkbench report -only router,rmsnorm -size router=2x40,5x16x5 -size rmsnorm=5x12 -precision f32 -reps 1 -warmup 0 -lengths "+lengths+" -out DIR")
	for _, name := range names[1 : len(names)-1] {
		data, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		if strings.HasSuffix(name, ".svg") {
			charttest.CheckSVG(t, data)
		} else {
			charttest.CheckPNG(t, data)
		}
	}
}

// TestWriteInterrupted requires the rows so far in a file of their own, and that rows are printed if they cannot be
// written.
func TestWriteInterrupted(t *testing.T) {
	dir := t.TempDir()
	var out bytes.Buffer
	env := &command.Env{Stdout: &out, Stderr: io.Discard}
	r := &report{}
	require.NoError(t, r.writeInterrupted(env, dir))
	assert.Empty(t, out.String(), "no rows")
	r.rows.WriteString("a row\n")
	require.NoError(t, r.writeInterrupted(env, dir))
	path := filepath.Join(dir, "interrupted.jsonl")
	assert.Equal(t, path+"\n", out.String())
	kept, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Equal(t, "a row\n", string(kept))

	assert.Error(t, env.WriteFile(filepath.Join(dir, "no"), "x", nil))
	assert.Equal(t, path+"\n", out.String(), "a file that was not written is not named")
	out.Reset()
	r.rows.Reset()
	r.rows.WriteString(resultstest.JSON("membership_mask", "1x2x3", "f32", 1, vk.Info{}))
	assert.Error(t, r.write(env, filepath.Join(dir, "no"), nil))
	assert.Equal(t, r.rows.String(), out.String(), "rows that could not be written are printed")

	for _, name := range []string{"length.svg", "token.png", "roofline.svg", "other.svg"} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), nil, 0o644))
	}
	assert.Equal(t, []string{"length.svg", "token.png"}, staleFiles(dir, []drawing{{File: "roofline"}}))
	for _, f := range figures.All(resultstest.Rows()) {
		assert.Contains(t, figures.FileStems, f.File)
	}
}

func TestLengths(t *testing.T) {
	for text, want := range map[string][]int{"": nil, "none": {}, "5": {5}, "1,1024": {1, 1024}} {
		got, err := parseLengths(text)
		require.NoError(t, err)
		assert.Equal(t, want, got)
	}
	for _, text := range []string{"0", "2,1", "2,2", "x", "1,", "99999999999"} {
		_, err := parseLengths(text)
		assert.ErrorContains(t, err, "want ascending numbers")
	}
	for word, want := range map[string]string{"f32,f16": "f32,f16", "a b": "'a b'", "": "''", "it's": `'it'\''s'`, "$(x)": "'$(x)'"} {
		assert.Equal(t, want, quoted(word))
	}
}

// TestUnsupportedPrecision requires a failure where the device supports none of the precisions.
func TestUnsupportedPrecision(t *testing.T) {
	caps := gputest.Device(t).Caps()
	for _, p := range []pipelines.DType{pipelines.F16, pipelines.BF16} {
		if p.Supported(caps) == nil {
			continue
		}
		code, out, remarks := program.RunOnDevice(t, "report", "-lengths", "none", "-only", "linear", "-out", t.TempDir(), "-precision", p.String())
		assert.Equal(t, command.ExitFailed, code)
		assert.Empty(t, out)
		assert.Contains(t, remarks, "Left out: "+p.String()+", which the device does not support")
	}
}

func TestUsage(t *testing.T) {
	text := commandtest.File(t, "text", "some text")
	program.RejectsUsage(t, [][2]string{
		{"report", "-out names no folder"},
		{"report all", "takes no arguments"},
		{"report -only= -out /tmp", "-only is empty"},
		{"report -out " + text, "-out " + text},
		{"report -lengths 5,4", `-lengths is "5,4"`},
		{"report -precision f8", `-precision is "f8"`},
		{"report -only nonsense", `-only names "nonsense"`},
		{"report -size rmsnorm=1x1", `rmsnorm is not among the cases of this run`},
	})
}
