package measure

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/cases"
	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/results"
	"github.com/colt5-vulkan/colt5/internal/cli/progress"
	"github.com/colt5-vulkan/colt5/internal/cli/table"
	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/pipelines"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestSweepEnds requires a sweep to end where a run would take too long or exceed the memory.
func TestSweepEnds(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 4 s")
	}
	dev := gputest.Device(t)
	gputest.CountCase()
	var out bytes.Buffer
	bar := progress.New(&out, 1)
	r := NewRunner(dev, NewPace(true, 1, 0))
	r.Table = table.New(&out, &out, "jsonl", r.Columns(nil)...)
	s := NewSweep(true)
	s.Lengths, s.dims = []int{64, 128, 256}, map[string][]int{results.BlockLength: {16, 5}, results.DenseAttention: {2, 8}}
	var remarks []string
	remark := func(text string) { remarks = append(remarks, text) }
	stopped, stop := context.WithCancel(t.Context())
	stop()
	assert.EqualError(t, s.Run(stopped, r, bar, []pipelines.DType{pipelines.F32}, remark), "interrupted", "once")
	s.maxMillis = 1e-12
	require.NoError(t, s.Run(t.Context(), r, bar, []pipelines.DType{pipelines.F32}, remark))
	require.Len(t, remarks, 2)
	assert.Contains(t, remarks[0], "block_length in f32 ends before 128 tokens, which would take about ")
	assert.Contains(t, remarks[1], "dense_attention in f32 ends before 128 tokens, which would take about ")
	assert.Equal(t, 2, strings.Count(out.String(), "x64x"))

	for _, test := range []struct {
		err  error
		want string
	}{{vk.ErrOutOfMemory, ""}, {fmt.Errorf("x: %w", vk.ErrUnsupported), ""}, {errors.New("broken"), "invalid 1x64 f32: broken"}} {
		remarks = nil
		c := cases.Case{Name: "invalid", Setup: func(*cases.Builder, []int) (*cases.Workload, error) { return nil, test.err }}
		err := s.runCase(t.Context(), r, bar, c, pipelines.F32, remark)
		if test.want != "" {
			assert.ErrorContains(t, err, test.want)
			continue
		}
		assert.NoError(t, err)
		assert.Contains(t, strings.Join(remarks, ""), "invalid in f32 ends before 64 tokens: ")
	}
	assert.Zero(t, s.predict(results.BlockLength, nil))
	assert.InDelta(t, 6, s.predict(results.BlockLength, []float64{1, 3}), 1e-9)
	assert.InDelta(t, 12, s.predict(results.DenseAttention, []float64{1, 3}), 1e-9)
}

func TestNewSweep(t *testing.T) {
	large := NewSweep(false)
	assert.Equal(t, 1024, large.Lengths[0])
	assert.Equal(t, 1<<20, large.Lengths[len(large.Lengths)-1])
	assert.Len(t, large.Lengths, 11)
	assert.Equal(t, []int{512, 1024}, large.dims[results.BlockLength])
}
