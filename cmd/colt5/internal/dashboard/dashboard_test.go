package dashboard

import (
	"bytes"
	"os"
	"testing"

	"github.com/colt5-vulkan/colt5/cmd/colt5/internal/history"
	"github.com/colt5-vulkan/colt5/cmd/colt5/internal/model"
	"github.com/colt5-vulkan/colt5/cmd/colt5/internal/settings"
	"github.com/colt5-vulkan/colt5/internal/cli/charttest"
	"github.com/colt5-vulkan/colt5/train"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// example is a run with two evaluations.
func example(task settings.Task) Run {
	h := &history.History{}
	for i := range 1200 {
		h.Steps = append(h.Steps, train.Record{Step: i, Loss: 5 - float64(i)/1000})
		if i == 599 || i == 1199 {
			h.Add(history.Evaluation{Step: int64(i + 1), HeldOut: 4, Labels: 10, Accuracy: 0.7, Prompt: "<b>\x1b[1m", Sample: "x\u202ey", Text: Latin1([]byte("añ<z")),
				Routers: []model.Router{
					{Name: "layers.0.attn.q_router", KEff: 4, ScoreSum: 3, Saturated: 0.5, Empty: 0.25, Ties: 7, Chosen: []int{2, 1, 2}},
					{Name: "layers.0.conditional_ff.router", KEff: 4, ScoreSum: 4, Chosen: []int{0, 5}},
				}})
		}
	}
	return Run{Config: settings.Default(task), History: h, Facts: []Fact{{"device", "a GPU"}}}
}

func TestPage(t *testing.T) {
	for _, task := range settings.Tasks {
		var out bytes.Buffer
		require.NoError(t, Write(&out, example(task), []byte(`{"x": "<y>"}`)))
		charttest.CheckPage(t, out.Bytes(), false)
		page := out.String()
		if dir := os.Getenv("COLT5_KEEP_PAGES"); dir != "" {
			require.NoError(t, os.WriteFile(dir+"/"+string(task)+".html", out.Bytes(), 0o644))
		}
		for _, want := range []string{
			"a GPU", "Routers after step 1,200", "75.0 %", "<pre>a<mark>ñ</mark>&lt;z</pre>", "<mark>añ&lt;z</mark>", "&lt;b&gt;·[1m", "x·y", "after step 600",
			"{&#34;x&#34;: &#34;&lt;y&gt;&#34;}", "5.7708", "means of 3 steps", `id="loss"`, `id="scores"`, `id="saturated"`, `id="empty"`, `id="ties"`,
		} {
			assert.Contains(t, page, want)
		}
		classifier := task == settings.Classifier
		assert.Equal(t, classifier, bytes.Contains(out.Bytes(), []byte(`id="accuracy"`)))
		assert.Equal(t, classifier, bytes.Contains(out.Bytes(), []byte("70.0 %")))
	}
}

// TestEmptyPage has a run that a signal stopped before its first step.
func TestEmptyPage(t *testing.T) {
	var out bytes.Buffer
	require.NoError(t, Write(&out, Run{Config: settings.Default(settings.LM), History: &history.History{}}, nil))
	charttest.CheckPage(t, out.Bytes(), false)
	assert.NotContains(t, out.String(), "<svg")
}

func TestPNG(t *testing.T) {
	png, err := PNG(example(settings.LM))
	require.NoError(t, err)
	charttest.CheckPNG(t, png)
}

func TestMeans(t *testing.T) {
	points, each := means(example(settings.LM).History.Steps)
	assert.Equal(t, 3, each)
	assert.Len(t, points, 400)
	assert.InDelta(t, history.Bits(5-0.001), points[0].Y, 1e-9)
	assert.Equal(t, 1.5, points[0].X)
	points, each = means(nil)
	assert.Empty(t, points)
	assert.Zero(t, each)
}

func TestTextRuns(t *testing.T) {
	text := []byte("a\xffé\x00b")
	chosen := expand([]int{3, 1, 9}, len(text))
	assert.Equal(t, []bool{false, false, false, true, false, false}, chosen, "the last run is longer than the text")
	assert.Equal(t, []textRun{{"a\uFFFD", false}, {"é", true}, {"·b", false}}, textRuns(text, chosen), "a character is chosen if one of its bytes is")
}
