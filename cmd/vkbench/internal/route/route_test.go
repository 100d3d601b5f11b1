package route

import (
	"errors"
	"fmt"
	"html"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/colt5-vulkan/colt5/colt5"
	"github.com/colt5-vulkan/colt5/internal/cli/charttest"
	"github.com/colt5-vulkan/colt5/internal/cli/command"
	"github.com/colt5-vulkan/colt5/internal/cli/commandtest"
	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestMain(m *testing.M) { gputest.Main(m) }

var program = commandtest.New("vkbench", Command)

// sample returns a text with markup, control characters, invalid UTF-8 and characters of several bytes.
func sample() string {
	return strings.Repeat("Plain words, one after the other.\n", 20) + "<script>alert(1)</script> & \x1b[31mred\x1b[0m \xff\x00 äöü 漢字 \u202e\n" +
		strings.Repeat("0123456789 +-*/ 9876543210\n", 20)
}

func TestRouteTable(t *testing.T) {
	text := sample()
	path := commandtest.File(t, "text", text)
	rows := commandtest.Objects(t, program.OK(t, "route", path, "-o", "json", "-dim", "16", "-length", "512", "-heavy", "32", "-batch", "2"))
	from, heavy := 0, 0
	for _, r := range rows {
		assert.Equal(t, float64(from), r["from"])
		n, h := int(r["bytes"].(float64)), int(r["heavy"].(float64))
		assert.Equal(t, strings.ToValidUTF8(text[from:from+n], "\uFFFD"), r["text"])
		assert.Equal(t, "router", r["router"])
		assert.InDelta(t, float64(h)/float64(n), r["heavy_share"], 1e-12)
		from, heavy = from+n, heavy+h
	}
	assert.Equal(t, len(text), from)
	whole := len(text) / 512
	assert.Equal(t, whole*32+(len(text)-whole*512)*32/512, heavy, "32 of every 512 bytes, and of the rest in proportion")

	if testing.Short() {
		return
	}
	again := program.OK(t, "route", path, "-o", "json", "-dim", "16", "-length", "512", "-heavy", "32", "-batch", "1")
	assert.Equal(t, rows, commandtest.Objects(t, again), "the batch makes no difference")
	other := program.OK(t, "route", path, "-o", "json", "-dim", "16", "-length", "512", "-heavy", "32", "-seed", "5")
	assert.NotEqual(t, rows, commandtest.Objects(t, other), "the seed does")
}

func TestRouteText(t *testing.T) {
	page := filepath.Join(t.TempDir(), "page.html")
	out := program.OK(t, "route", commandtest.File(t, "text", sample()), "-dim", "16", "-length", "512", "-html", page, "-passages", "100")
	assert.Contains(t, out, "Demonstration: an untrained router of seed 0")
	assert.Contains(t, out, "GPU time, with routing records")
	assert.Contains(t, out, "calls: 2 of up to 2 x 512 bytes")
	assert.Contains(t, out, "up to 16 of a segment")
	assert.Contains(t, out, "█")
	assert.Contains(t, out, "⟦")
	assert.Contains(t, out, "漢")
	assert.NotContains(t, out, "\x1b", "control characters of the text")
	assert.NotContains(t, out, "\u202e")
	assert.True(t, utf8.ValidString(out))

	written, err := os.ReadFile(page)
	require.NoError(t, err)
	elements := charttest.CheckPage(t, written, true)
	assert.Contains(t, string(written), `<p class="warn">Demonstration: an untrained router`)
	assert.NotContains(t, string(written), "<script>alert")
	assert.Equal(t, 1, strings.Count(string(written), "<script"))
	assert.NotContains(t, string(written), "://", "nothing is fetched")
	assert.Contains(t, string(written), "prefers-color-scheme: dark")
	assert.Equal(t, shownSample(), preText(string(written)), "the whole text, once")
	_, marked, found := strings.Cut(string(written), "<mark>")
	assert.True(t, found && strings.Contains(marked, "</mark>"))

	// The same figures as on the terminal.
	var bars, shares int
	highest := 0.0
	for _, e := range elements {
		var height float64
		if n, _ := fmt.Sscanf(e.Attr["style"], "height:%f%%", &height); n == 1 {
			highest = max(highest, height)
		}
		if note := e.Attr["title"]; note != "" {
			bars++
		}
		if e.Name == "b" {
			shares++
			assert.Contains(t, out, ", "+e.Text+" heavy\n")
		}
	}
	assert.Equal(t, densityParts, bars)
	assert.Equal(t, strings.Count(out, " % heavy\n"), shares)
	legend := regexp.MustCompile("share of heavy bytes in 64 equal parts.*; the largest is ([0-9.]+) %").FindStringSubmatch(out)
	require.NotEmpty(t, legend)
	assert.Contains(t, string(written), legend[0])
	axis := regexp.MustCompile(`a full block, █, is ([0-9.]+) %`).FindStringSubmatch(out)
	require.NotEmpty(t, axis)
	assert.Contains(t, string(written), `<div class="y"><span>`+axis[1]+` %</span>`)
	largest, err := strconv.ParseFloat(legend[1], 64)
	require.NoError(t, err)
	top, err := strconv.ParseFloat(axis[1], 64)
	require.NoError(t, err)
	assert.InDelta(t, 100*largest/top, highest, 0.5)
}

// shownSample is what a page shows of sample.
func shownSample() string {
	return strings.NewReplacer("\x00", "·", "\x1b", "·", "\u202e", "·").Replace(strings.ToValidUTF8(sample(), "\uFFFD"))
}

// preText returns the text in the pre element of a page.
func preText(page string) string {
	_, inside, _ := strings.Cut(page, "<pre>")
	inside, _, _ = strings.Cut(inside, "</pre>")
	return html.UnescapeString(regexp.MustCompile("<[^>]*>").ReplaceAllString(inside, ""))
}

// TestRouteEscapes requires that no markup or control character of the text is in Markdown and CSV, and none of file
// names in a page.
func TestRouteEscapes(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles kernels for 2 s on CPU drivers")
	}
	path := commandtest.File(t, "text\xff<b>\u202e\x1b", sample())
	page := filepath.Join(t.TempDir(), "page.html")
	md := program.OK(t, "route", path, "-dim", "8", "-o", "md", "-html", page)
	csv := program.OK(t, "route", path, "-dim", "8", "-o", "csv")
	for _, out := range []string{md, csv} {
		assert.True(t, utf8.ValidString(out))
		assert.NotContains(t, strings.ReplaceAll(out, "\n", ""), "\x1b")
		assert.False(t, strings.ContainsFunc(out, func(r rune) bool { return r != '\n' && unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) }))
		assert.Contains(t, out, `x1b`)
	}
	assert.NotContains(t, md, "<script")
	assert.Contains(t, md, "&lt;script&gt;alert(1)&lt;/script&gt; &amp;")
	assert.Contains(t, csv, `<script>alert(1)</script> & \x1b[31mred`)
	written, err := os.ReadFile(page)
	require.NoError(t, err)
	elements := charttest.CheckPage(t, written, true)
	for _, e := range elements {
		if e.Name == "title" || e.Name == "h1" {
			assert.Equal(t, "Routed: "+filepath.Dir(path)+"/text\uFFFD<b>··", e.Text)
		}
	}
}

// TestRouteSmall requires numbers of the text, not of a segment that it does not fill.
func TestRouteSmall(t *testing.T) {
	out := program.OK(t, "route", commandtest.File(t, "hi.txt", "hi!"), "-dim", "8")
	assert.Contains(t, out, "calls: 1 of up to 1 x 3 bytes")
	assert.Contains(t, out, "heavy bytes: 1 of 3 (33.3 %), up to 1 of a segment")
	assert.NotContains(t, out, "1,024")
	assert.NotContains(t, out, "1024")
}

func TestRouteOneByte(t *testing.T) {
	out := program.OK(t, "route", commandtest.File(t, "text", "x"), "-dim", "8")
	assert.Contains(t, out, "heavy bytes: 1 of 1 (100.0 %)")
	assert.Contains(t, out, "routing: none")
	assert.Contains(t, out, "⟦x⟧")
}

func TestRouteSeveralFiles(t *testing.T) {
	out := program.OK(t, "route", commandtest.File(t, "a", "first"), commandtest.File(t, "b", "second"), "-dim", "8", "-o", "jsonl")
	assert.Contains(t, out, `"text": "first\nsecond"`)
	code, _, remarks := program.RunOnDevice(t, "route", commandtest.File(t, "a", ""), commandtest.File(t, "b", ""))
	assert.Equal(t, command.ExitUsage, code)
	assert.Contains(t, remarks, "empty, want at least one byte")
}

// TestRouteKeepsPage requires a failure to keep an earlier page, and to leave no partial one.
func TestRouteKeepsPage(t *testing.T) {
	path := commandtest.File(t, "text", sample())
	page := filepath.Join(t.TempDir(), "page.html")
	wrong := []string{"route", path, "-dim", "16", "-html", page, "-router", "none"}
	code, _, _ := program.RunOnDevice(t, wrong...)
	assert.Equal(t, command.ExitUsage, code)
	assert.NoFileExists(t, page)
	require.NoError(t, os.WriteFile(page, []byte("earlier"), 0o644))
	code, _, _ = program.RunOnDevice(t, wrong...)
	assert.Equal(t, command.ExitUsage, code)
	kept, err := os.ReadFile(page)
	require.NoError(t, err)
	assert.Equal(t, "earlier", string(kept))
	program.OK(t, wrong[:len(wrong)-2]...)
	kept, err = os.ReadFile(page)
	require.NoError(t, err)
	assert.Contains(t, string(kept), "<mark>")
}

func TestRouteCalls(t *testing.T) {
	for _, c := range []struct{ length, batch, bytes, calls int }{{10, 2, 1, 1}, {10, 2, 10, 1}, {10, 2, 20, 1}, {10, 2, 30, 2}, {10, 2, 35, 3}, {10, 2, 25, 2}} {
		assert.Equal(t, c.calls, options{length: c.length, batch: c.batch}.calls(c.bytes), c)
	}
	out := program.OK(t, "route", commandtest.File(t, "text", strings.Repeat("x", 35)), "-dim", "8", "-length", "10")
	assert.Contains(t, out, "calls: 3 of up to")
}

func TestEmbedding(t *testing.T) {
	text := []byte(sample())
	e := newEmbedding(3, 5, text)
	all := e.tokens(text, 0, len(text))
	require.Len(t, all, 5*len(text))
	for _, at := range []int{0, 1, 40, len(text) - 1} {
		low, high := max(at-window, 0), min(at+window+1, len(text))
		for i := range 5 {
			var near, mean float64
			for _, b := range text[low:high] {
				near += float64(e.bytes[b][i]) / 65
			}
			for _, b := range text {
				mean += float64(e.bytes[b][i]) / float64(len(text))
			}
			want := ownWeight*float64(e.bytes[text[at]][i]) + contextWeight*(near-mean*float64(high-low)/65)
			assert.InDelta(t, want, all[5*at+i], 1e-5)
		}
	}
	part := e.tokens(text, 100, 50)
	for i, x := range part {
		assert.InDelta(t, all[5*100+i], x, 1e-5, "the split makes no difference")
	}
	assert.NotEqual(t, e.bytes, newEmbedding(4, 5, text).bytes)
}

func TestPassages(t *testing.T) {
	for _, text := range []string{"x", sample(), strings.Repeat("漢", 500), strings.Repeat("\x80", 700), strings.Repeat("word ", 300), strings.Repeat("x", 1000)} {
		r := &routedText{text: []byte(text)}
		at := 0
		for _, p := range r.passages() {
			require.Equal(t, at, p.from)
			require.Greater(t, p.to, p.from)
			require.LessOrEqual(t, p.to-p.from, passageBytes)
			if utf8.ValidString(text) {
				require.True(t, utf8.ValidString(text[p.from:p.to]))
			}
			at = p.to
		}
		require.Equal(t, len(text), at)
	}
}

func TestRunsAndHighlight(t *testing.T) {
	text := "aä\r\nb\x1b漢\uFFFF\r"
	r := &routing{heavy: make([]bool, len(text))}
	x := &routedText{text: []byte(text), routers: []*routing{r}}
	r.heavy[2], r.heavy[4] = true, true // the second byte of ä, and the line break
	assert.Equal(t, []textRun{{"a", false}, {"ä", true}, {"", false}, {"\n", true}, {"b·漢··", false}}, x.runs(r, 0, len(text)))
	p := passage{0, 0, len(text)}
	assert.Equal(t, "  a⟦ä⟧⟦⏎⟧\n  b·漢··", x.highlight(p, false))
	assert.Equal(t, "  a\x1b[1;30;43mä\x1b[0m\x1b[1;30;43m⏎\x1b[0m\n  b·漢··", x.highlight(p, true))
	assert.Equal(t, 2, r.count(0, 5))
	assert.Equal(t, []int{1, 1, 0, 1}, runLengths(x.runs(r, 0, len(text))))
	assert.Equal(t, []int{0, 3, 2, 1}, runLengths([]textRun{{"a𝄞", true}, {"bc", false}, {"d", true}, {"e", false}}))
	assert.Empty(t, runLengths([]textRun{{"a", false}}))
}

// TestAddRecord has two segments of five bytes from byte 1, with two routes of two slots.
func TestAddRecord(t *testing.T) {
	r := &routing{heavy: make([]bool, 12), logits: make([]float32, 12)}
	record := colt5.RoutingRecord{
		Lists: 4, K: 2, N: 5, Routes: 2, Block: 5, Indices: []int32{4, 0, 4, 1, 3, 0, 3, 0}, Scores: []float32{1, 0.5, 1, 1, 1, 0, 1, 0}, Empty: 0.25,
		Logits: []float32{0, 1, 2, 3, 4, 1, 0, 0, 0, 5, -1, -1, -1, -1, -1, -2, -2, -2, -2, 0}, SoftScores: make([]float32, 20),
	}
	r.add(segments{at: 1, batch: 2, length: 5}, record)
	assert.Equal(t, []bool{1: true, 2: true, 5: true, 9: true, 11: false}, r.heavy)
	assert.Equal(t, 4, r.selected)
	assert.Equal(t, 2, r.most)
	assert.Equal(t, 2, r.routes)
	assert.Equal(t, []float32{0, 1, 1, 2, 3, 5, -1, -1, -1, -1, 0, 0}, r.logits)

	// Without empty slots, a score of 0 is a soft score that is too small.
	record.Empty = 0
	r = &routing{heavy: make([]bool, 12)}
	r.add(segments{at: 1, batch: 2, length: 5}, record)
	assert.True(t, r.heavy[6])
	r.addAll(segments{at: 10, batch: 2, length: 1})
	assert.True(t, r.heavy[10] && r.heavy[11])
}

func TestBars(t *testing.T) {
	lines := chart([]part{{0, 10, 0}, {10, 20, 0.001}, {20, 30, 0.1}, {30, 40, 0.19}}, 40)
	assert.Equal(t, []string{
		"share of heavy bytes in 4 equal parts of the text, of about 10 bytes; the largest is 19.0 %", "(a full block, █, is 20.0 %)", " ▁▄█", "└──┘", "byte 0  byte 39",
	}, lines)
	for top, want := range map[float64]float64{0: 1, 0.0001: 0.001, 0.05: 0.05, 0.051: 0.06, 0.09: 0.1, 0.45: 0.5, 0.81: 1, 1: 1} {
		assert.Equal(t, want, axisTop(top))
	}
	assert.Equal(t, "1,234,567", thousands(1234567))
	assert.Equal(t, "999", thousands(999))
	r := &routing{heavy: make([]bool, 10)}
	r.heavy[9] = true
	assert.Len(t, r.density(), 10)
	assert.Equal(t, part{9, 10, 1}, r.density()[9])
	assert.Equal(t, []passage{{1, 5, 10}}, r.best([]passage{{0, 0, 5}, {1, 5, 10}}, 8), "none without a heavy byte")
}

func TestFindRouter(t *testing.T) {
	names := []string{"layers.0.q_router", "layers.0.kv_router", "layers.0.router", "layers.1.router"}
	for name, want := range map[string]int{"": 3, "layers.0.router": 2, "1": 3, "kv": 1, "layers.1.router": 3} {
		i, err := findRouter(names, name)
		require.NoError(t, err)
		assert.Equal(t, want, i)
	}
	_, err := findRouter(names, "layers.2")
	assert.ErrorContains(t, err, `-router is "layers.2"`)
	assert.ErrorContains(t, err, "the routers are layers.0.q_router, ")
	_, err = findRouter(names, "layers.0")
	assert.EqualError(t, err, `-router is "layers.0", a part of layers.0.q_router, layers.0.kv_router, ..; want one`)
}

func TestUsage(t *testing.T) {
	text, empty, settings := commandtest.File(t, "text", "some text"), commandtest.File(t, "empty", ""), commandtest.File(t, "settings", `{"dim": 8, "depth": 1, "num_tokens": 256}`)
	vectors := commandtest.File(t, "vectors", `{"dim": 8, "depth": 1}`)
	large, half := commandtest.File(t, "large", ""), commandtest.File(t, "half", "") // sparse
	require.NoError(t, errors.Join(os.Truncate(large, 200<<30), os.Truncate(half, textLimit/2)))
	program.RejectsUsage(t, [][2]string{
		{"route", "needs a text file"},
		{"route /does/not/exist", "/does/not/exist"},
		{"route " + empty, "is empty"},
		{"route " + text + " -dim 0", "-dim is 0, want 1 to 2147483647"},
		{"route -heavy -1 " + text, "-heavy is -1, want 1 to"},
		{"route -length 0 " + text, "-length is 0, want 1 to"},
		{"route -batch 562949953421312 " + text, "-batch is 562949953421312, want 1 to 2147483647"},
		{"route -html " + text + " " + text, "-html " + text + " is the input"},
		{"route -config " + settings + " -html " + settings + " " + text, "-html " + settings + " is the input"},
		{"route -html " + filepath.Dir(text) + " " + text, "want a regular file or none"},
		{"route -batch 0 " + text, "-batch is 0, want 1 to"},
		{"route -o yaml " + text, `-o is "yaml"`},
		{"route -config /does/not/exist " + text, "/does/not/exist"},
		{"route -config " + text + " " + text, "invalid character"},
		{"route -config " + vectors + " " + text, "the encoder has no embedding"},
		{"route -weights " + text + " " + text, "-weights needs -config"},
		{"route -config " + settings + " -dim 5 " + text, "-dim is of the demonstration"},
		{"route -config " + settings + " -heavy 5 " + text, "-heavy is of the demonstration"},
		{"route -html= " + text, "-html is empty"},
		{"route " + filepath.Dir(text), "is a folder, want a regular file"},
		{"route " + text + " /dev/zero", "/dev/zero is a device, want a regular file"},
		{"route -config /dev/zero " + text, "/dev/zero is a device, want a regular file"},
		{"route " + text + " " + large, large + " has 200 GiB, want at most 256 MiB"},
		{"route " + half + " " + text + " " + half, "the files have more than 256 MiB, want at most that"},
		{"route -html /does/not/exist/page " + text, "/does/not/exist/page"},
	})
}
