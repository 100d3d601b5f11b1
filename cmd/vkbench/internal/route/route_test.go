package route

import (
	"errors"
	"html"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/command"
	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/commandtest"
	"github.com/colt5-vulkan/colt5/colt5"
	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestMain(m *testing.M) { gputest.Main(m) }

var program = commandtest.Program{Command}

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
	assert.Contains(t, out, "GPU time: router ")
	assert.Contains(t, out, "calls: 2 of up to 2 x 512 x 16, up to 16 heavy tokens per segment")
	assert.Contains(t, out, "█")
	assert.Contains(t, out, "⟦")
	assert.Contains(t, out, "漢")
	assert.NotContains(t, out, "\x1b", "control characters of the text")
	assert.NotContains(t, out, "\u202e")
	assert.True(t, utf8.ValidString(out))

	written, err := os.ReadFile(page)
	require.NoError(t, err)
	assert.True(t, utf8.Valid(written))
	assert.NotContains(t, string(written), "<script")
	assert.NotContains(t, string(written), "ZgotmplZ")
	assert.NotContains(t, string(written), "http", "nothing is fetched")
	assert.Contains(t, string(written), "prefers-color-scheme: dark")
	_, inside, _ := strings.Cut(string(written), "<pre>")
	inside, _, _ = strings.Cut(inside, "</pre>")
	shown := strings.NewReplacer("\x00", "\uFFFD", "\u202e", "·").Replace(strings.ToValidUTF8(sample(), "\uFFFD"))
	assert.Equal(t, shown, html.UnescapeString(regexp.MustCompile("<[^>]*>").ReplaceAllString(inside, "")), "the whole text, once")
	_, marked, found := strings.Cut(string(written), "<mark>")
	assert.True(t, found && strings.Contains(marked, "</mark>"))
}

func TestRouteOneByte(t *testing.T) {
	out := program.OK(t, "route", commandtest.File(t, "text", "x"), "-dim", "8")
	assert.Contains(t, out, "bytes: 1, routed to the heavy branch: 1 (100.0 %)")
	assert.Contains(t, out, "⟦x⟧")
}

func TestRouteSeveralFiles(t *testing.T) {
	out := program.OK(t, "route", commandtest.File(t, "a", "first"), commandtest.File(t, "b", "second"), "-dim", "8", "-o", "jsonl")
	assert.Contains(t, out, `"text": "first\nsecond"`)
	code, _, remarks := program.RunOnDevice(t, "route", commandtest.File(t, "a", ""), commandtest.File(t, "b", ""))
	assert.Equal(t, command.ExitUsage, code)
	assert.Contains(t, remarks, "empty, want at least one byte")
}

func TestRouteConfigAndWeights(t *testing.T) {
	dev := gputest.Device(t)
	config := colt5.Default[colt5.ConditionalRoutedFeedForwardConfig]()
	config.Dim, config.NumHeavyTokens = 12, 3
	f, err := colt5.NewConditionalRoutedFeedForward(t.Context(), dev, config)
	require.NoError(t, err)
	defer f.Close()
	require.NoError(t, f.Init(t.Context(), 7))
	weights := filepath.Join(t.TempDir(), "weights.safetensors")
	require.NoError(t, f.Save(t.Context(), weights))
	path := commandtest.File(t, "text", sample()[:300])
	settings := commandtest.File(t, "config.json", `{"dim": 12, "num_heavy_tokens": 3, "router_straight_through": false}`)

	mine := program.OK(t, "route", path, "-config", settings, "-weights", weights, "-seed", "1", "-length", "300", "-o", "csv")
	seeded := program.OK(t, "route", path, "-config", settings, "-seed", "1", "-length", "300", "-o", "csv")
	assert.NotEqual(t, mine, seeded)
	code, _, remarks := program.RunOnDevice(t, "route", path, "-config", settings, "-length", "300", "-o", "csv")
	assert.Equal(t, command.ExitOK, code)
	assert.Contains(t, remarks, "routed to the heavy branch: 3 (")

	code, _, remarks = program.RunOnDevice(t, "route", path, "-dim", "16", "-weights", weights)
	assert.Equal(t, command.ExitUsage, code)
	assert.Contains(t, remarks, "-weights "+weights)
	assert.Contains(t, remarks, "light_ff.0.gamma")
	code, _, remarks = program.RunOnDevice(t, "route", path, "-config", commandtest.File(t, "config.json", `{"router_kwargs": {"eps": -1}}`))
	assert.Equal(t, command.ExitUsage, code)
	assert.Contains(t, remarks, "Eps is -1")
}

// TestRouteKeepsPage requires a failure to keep an earlier page, and to leave no partial one.
func TestRouteKeepsPage(t *testing.T) {
	path := commandtest.File(t, "text", sample())
	page := filepath.Join(t.TempDir(), "page.html")
	wrong := []string{"route", path, "-dim", "16", "-html", page, "-weights", path}
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
		r := &routedText{text: []byte(text), heavy: make([]bool, len(text)), logits: make([]float32, len(text))}
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
	text := "aä\nb\x1b漢"
	r := &routedText{text: []byte(text), heavy: make([]bool, len(text))}
	r.heavy[2], r.heavy[3] = true, true // the second byte of ä, and the line break
	assert.Equal(t, []textRun{{"a", false}, {"ä\n", true}, {"b\x1b漢", false}}, r.runs(0, len(text)))
	p := passage{0, len(text), 2}
	assert.Equal(t, "  a⟦ä⏎⟧\n  b·漢", r.highlight(p, false))
	assert.Equal(t, "  a\x1b[1;30;43mä⏎\x1b[0m\n  b·漢", r.highlight(p, true))
	assert.Equal(t, 1, r.runeStart(2), "back to the start of a character")
	assert.Equal(t, len(text), r.runeStart(len(text)))
	assert.Equal(t, 1, r.count(0, 3))
}

func TestSetHeavy(t *testing.T) {
	r := &routedText{heavy: make([]bool, 12)}
	// Two segments of five bytes from byte 1, two slots each. The last slot is empty.
	r.setHeavy(segments{at: 1, batch: 2, length: 5}, 2, []int32{4, 0, 3, 0}, []float32{1, 0.5, 1, 0})
	assert.Equal(t, []bool{1: true, 5: true, 9: true, 11: false}, r.heavy)
	assert.Equal(t, 3, r.selected)
}

func TestBars(t *testing.T) {
	assert.Equal(t, " ▁▄█", bars([]float64{0, 0.001, 0.5, 1}))
	assert.Equal(t, "  ", bars([]float64{0, 0}))
	assert.Equal(t, "1,234,567", thousands(1234567))
	assert.Equal(t, "999", thousands(999))
	r := &routedText{text: make([]byte, 10), heavy: make([]bool, 10)}
	r.heavy[9] = true
	assert.Equal(t, []float64{0, 0, 0.25}, r.density(3))
	assert.Len(t, r.density(100), 10)
	assert.False(t, math.IsNaN(r.density(1)[0]))
}

func TestUsage(t *testing.T) {
	text, empty, settings := commandtest.File(t, "text", "some text"), commandtest.File(t, "empty", ""), commandtest.File(t, "settings", "{}")
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
		{"route -html= " + text, "-html is empty"},
		{"route " + filepath.Dir(text), "is a folder, want a regular file"},
		{"route " + text + " /dev/zero", "/dev/zero is a device, want a regular file"},
		{"route -config /dev/zero " + text, "/dev/zero is a device, want a regular file"},
		{"route " + text + " " + large, large + " has 200 GiB, want at most 256 MiB"},
		{"route " + half + " " + text + " " + half, "the files have more than 256 MiB, want at most that"},
		{"route -html /does/not/exist/page " + text, "/does/not/exist/page"},
	})
}
