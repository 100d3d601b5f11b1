package main

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"html/template"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/pipelines"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// outline are the headings, figures, warnings and columns of a page, which may refer to nothing outside.
func outline(t *testing.T, page []byte) []string {
	t.Helper()
	d := xml.NewDecoder(bytes.NewReader(page))
	d.Strict, d.AutoClose, d.Entity = false, xml.HTMLAutoClose, xml.HTMLEntity
	var lines, open []string
	rows := 0
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		switch x := token.(type) {
		case xml.StartElement:
			own(t, x)
			open = append(open, x.Name.Local)
			for _, a := range x.Attr {
				if a.Name.Local == "id" && x.Name.Local != "h2" {
					lines = append(lines, x.Name.Local+" "+a.Value)
				}
			}
			if x.Name.Local == "tr" {
				rows++
			}
		case xml.EndElement:
			if x.Name.Local == "table" {
				lines, rows = append(lines, fmt.Sprintf("%d rows", rows)), 0
			}
			open = open[:len(open)-1]
		case xml.CharData:
			if last := open[max(len(open)-1, 0):]; len(last) == 1 && strings.Contains(" h1 h2 th ", " "+last[0]+" ") {
				lines = append(lines, last[0]+" "+string(x))
			}
			assert.NotContains(t, string(x), "url(")
			assert.NotContains(t, string(x), "@import")
		}
	}
	assert.Empty(t, open)
	return lines
}

// TestReportPage has a page with everything.
func TestReportPage(t *testing.T) {
	info := vk.Info{Name: `A <device> & "more"`, Driver: "d", Caps: vk.Caps{CPU: true}}
	plots := []drawn{{"roofline", "Roofline", "caption", template.HTML(`<svg xmlns="http://www.w3.org/2000/svg"></svg>`)}}
	p := newReportPage(info, "vkbench report -out DIR", time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), []string{"one", noGPUFigures}, someRows(), plots)
	p.Failed = []string{"two"}
	var out bytes.Buffer
	require.NoError(t, p.write(&out))
	assert.Equal(t, []string{
		`h1 A <device> & "more"`, "p cpu", "div failed", "figure roofline",
		"h2 Roofs", "th name", "th shape", "th precision", "th GPU ms", "th GB/s", "th TFLOP/s", "6 rows",
		"h2 Modules", "th name", "th shape", "th precision", "th GPU ms", "th p10", "th p90", "th wall ms", "th GB/s", "th TFLOP/s", "th of roof",
		"th workspace", "th peak memory", "th runs", "4 rows",
		"h2 Lengths", "th name", "th shape", "th precision", "th GPU ms", "th ns a token", "th TFLOP/s", "th peak memory", "th runs", "6 rows",
		"h2 Device", fmt.Sprintf("%d rows", len(properties(info))), "h2 Again",
	}, outline(t, out.Bytes()))
	text := out.String()
	assert.Contains(t, text, "the times are no GPU figures")
	assert.Equal(t, 1, strings.Count(text, "no GPU figures"))
	assert.Contains(t, text, `<p class="remark">one</p>`)
	assert.Contains(t, text, "on 2026-01-02. <code>vkbench report -out DIR</code>")
	assert.NotContains(t, text, "<device>")

	info.Caps.CPU = false
	out.Reset()
	require.NoError(t, newReportPage(info, "", time.Now(), nil, nil, nil).write(&out))
	assert.Equal(t, []string{`h1 A <device> & "more"`, "h2 Device", fmt.Sprintf("%d rows", len(properties(info))), "h2 Again"}, outline(t, out.Bytes()))
	assert.NotContains(t, out.String(), "no GPU figures")
}

// TestReport measures a little, and one case that fails.
func TestReport(t *testing.T) {
	dev := gputest.Device(t)
	dir := filepath.Join(t.TempDir(), "report")
	code, out, remarks := onDevice(t, "report", "-out", dir, "-only", "router,rmsnorm", "-size", "router=2x40,5x16x5", "-size", "rmsnorm=5x12", "-precision", "f32",
		"-lengths", "128,256", "-reps", "1", "-warmup", "0")
	require.Equal(t, exitFailed, code)
	assert.Contains(t, remarks, "router 2x5x16x5 f32: ", "nothing to route")
	names := []string{"bench.jsonl", "roofline.svg", "roofline.png", "length.svg", "length.png", "token.svg", "token.png", "length_dense.svg", "length_dense.png", "report.html"}
	for i, path := range strings.Fields(out) {
		assert.Equal(t, filepath.Join(dir, names[i]), path)
	}
	rows, err := readRows(filepath.Join(dir, "bench.jsonl"))
	require.NoError(t, err)
	count := map[string]int{}
	for _, r := range rows {
		count[r.Name]++
		assert.Equal(t, dev.Info().Name, r.Device)
	}
	assert.Equal(t, 1, count["router"])
	assert.Equal(t, 1, count["rmsnorm"])
	assert.Positive(t, count[blockLength])
	assert.Positive(t, count[denseAttention])
	page, err := os.ReadFile(filepath.Join(dir, "report.html"))
	require.NoError(t, err)
	found := outline(t, page)
	assert.Subset(t, found, []string{"h1 " + dev.Info().Name, "div failed", "figure roofline", "figure length", "figure token", "figure length_dense",
		"h2 Roofs", "h2 Modules", "h2 Lengths", "h2 Device", "h2 Again"})
	assert.Equal(t, dev.Caps().CPU, strings.Contains(string(page), `id="cpu"`))
	assert.Equal(t, dev.Caps().CPU, strings.Contains(remarks, "no GPU figures"))
	assert.Contains(t, string(page), "vkbench report -only router,rmsnorm -size router=2x40,5x16x5 -size rmsnorm=5x12 -precision f32 -reps 1 -warmup 0 -lengths 128,256 -out DIR")
	for _, name := range names[1:9] {
		data, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		if strings.HasSuffix(name, ".svg") {
			checkSVG(t, data)
		} else {
			checkPNG(t, data)
		}
	}
}

// TestSweepEnds where a run would take too long, and where something does not fit.
func TestSweepEnds(t *testing.T) {
	dev := gputest.Device(t)
	gputest.CountCase()
	var out bytes.Buffer
	a := &app{stdout: &out, stderr: &out}
	b := newBenchmark(context.Background(), dev, newPace(true, 1, 0))
	b.table = &table{out: &out, remarks: &out, format: "jsonl", columns: b.columns(nil), before: func() {}}
	s := newSweep(true)
	s.lengths, s.dims = []int{64, 128, 256}, map[string][]int{blockLength: {16, 5}, denseAttention: {2, 8}}
	var remarks []string
	remark := func(text string) { remarks = append(remarks, text) }
	stopped, stop := context.WithCancel(b.ctx)
	stop()
	b.ctx = stopped
	assert.EqualError(t, s.run(b, a.progress(1), []pipelines.DType{pipelines.F32}, remark), "interrupted", "once")
	b.ctx = context.WithoutCancel(stopped)
	s.most = 1e-12
	require.NoError(t, s.run(b, a.progress(1), []pipelines.DType{pipelines.F32}, remark))
	require.Len(t, remarks, 2)
	assert.Contains(t, remarks[0], "block_length in f32 ends before 128 tokens, which would take some ")
	assert.Contains(t, remarks[1], "dense_attention in f32 ends before 128 tokens, which would take some ")
	assert.Equal(t, 2, strings.Count(out.String(), "x64x"))

	for _, test := range []struct {
		err  error
		want string
	}{{vk.ErrOutOfMemory, ""}, {fmt.Errorf("x: %w", vk.ErrUnsupported), ""}, {errors.New("broken"), "planted 1x64 f32: broken"}} {
		remarks = nil
		c := benchCase{name: "planted", setup: func(*benchStage, []int) (*workload, error) { return nil, test.err }}
		err := s.line(b, a.progress(1), c, pipelines.F32, remark)
		if test.want != "" {
			assert.ErrorContains(t, err, test.want)
			continue
		}
		assert.NoError(t, err)
		assert.Contains(t, strings.Join(remarks, ""), "planted in f32 ends before 64 tokens: ")
	}
	assert.Zero(t, s.expect(blockLength, nil))
	assert.InDelta(t, 6, s.expect(blockLength, []float64{1, 3}), 1e-9)
	assert.InDelta(t, 12, s.expect(denseAttention, []float64{1, 3}), 1e-9)
}

// TestReportStopped: the rows so far are kept, and an earlier report stays as it is.
func TestReportStopped(t *testing.T) {
	dir := t.TempDir()
	var out bytes.Buffer
	a := &app{stdout: &out, stderr: io.Discard}
	r := &reporting{}
	require.NoError(t, r.keep(a, dir))
	assert.Empty(t, out.String(), "there is nothing to keep")
	r.rows.WriteString("a row\n")
	require.NoError(t, r.keep(a, dir))
	path := filepath.Join(dir, "interrupted.jsonl")
	assert.Equal(t, path+"\n", out.String())
	kept, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Equal(t, "a row\n", string(kept))

	assert.Error(t, a.writeNamed(filepath.Join(dir, "no"), "x", nil))
	assert.Equal(t, path+"\n", out.String(), "what was not written is not named")
	out.Reset()
	r.rows.Reset()
	r.rows.WriteString(earlier("membership_mask", "1x2x3", "f32", 1, vk.Info{}))
	assert.Error(t, r.write(a, filepath.Join(dir, "no"), nil))
	assert.Equal(t, r.rows.String(), out.String(), "rows that no file takes are printed")

	for _, name := range []string{"length.svg", "token.png", "roofline.svg", "other.svg"} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), nil, 0o644))
	}
	assert.Equal(t, []string{"length.svg", "token.png"}, stale(dir, []drawn{{File: "roofline"}}))
	for _, f := range figures(someRows(), "d") {
		assert.Contains(t, figureFiles, f.file)
	}
}

func TestLengths(t *testing.T) {
	large := newSweep(false)
	assert.Equal(t, 1024, large.lengths[0])
	assert.Equal(t, 1<<20, large.lengths[len(large.lengths)-1])
	assert.Len(t, large.lengths, 11)
	assert.Equal(t, []int{512, 1024}, large.dims[blockLength])
	for text, want := range map[string][]int{"": nil, "none": {}, "5": {5}, "1,1024": {1, 1024}} {
		got, err := parseLengths(text)
		require.NoError(t, err)
		assert.Equal(t, want, got)
	}
	for _, text := range []string{"0", "2,1", "2,2", "x", "1,", "99999999999"} {
		_, err := parseLengths(text)
		assert.ErrorContains(t, err, "want rising numbers")
	}
	for word, want := range map[string]string{"f32,f16": "f32,f16", "a b": "'a b'", "": "''", "it's": `'it'\''s'`, "$(x)": "'$(x)'"} {
		assert.Equal(t, want, quoted(word))
	}
}
