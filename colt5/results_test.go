package colt5

import (
	"fmt"
	"sync"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// callResult is everything that a call returns.
type callResult struct {
	y       []float32
	stats   CallStats
	routing []RoutingRecord
}

// TestResultsBelongToTheCall: goroutines that share a module get the output, statistics and routing records of their
// own calls. When the module kept those of its last call, 10 of 20 calls returned the records of another one.
func TestResultsBelongToTheCall(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 2 s")
	}
	t.Parallel()
	gputest.CountCase()
	fx := newFixture(t)
	const goroutines, calls, items = 4, 20, 2
	m := mustNewSeeded(fx, NewConditionalRoutedAttention, smallAttention())
	var x []*Tensor
	for i := range calls {
		n := 30 + 10*(i%5) // sizes that need different plans, with another workspace
		x = append(x, fx.floats(normal(uint64(i), items*n*smallDim), items, n, smallDim))
	}
	run := func(i int) (r callResult, err error) {
		y, err := NewTensor(fx.dev, F32, x[i].Shape()...)
		if err != nil {
			return r, err
		}
		defer y.Close()
		if err := m.Forward(t.Context(), y, x[i], AttentionOptions{Stats: &r.stats, Routing: &r.routing}); err != nil {
			return r, err
		}
		r.y, err = y.Float32(t.Context())
		return r, err
	}
	var want [calls]callResult
	for i := range calls {
		var err error
		want[i], err = run(i)
		require.NoError(t, err)
		require.Len(t, want[i].routing, 2)
		if i > 0 {
			require.NotEqual(t, want[i-1].routing, want[i].routing, "the inputs are too similar to tell records apart")
			require.NotEqual(t, want[i-1].stats.Workspace, want[i].stats.Workspace)
		}
	}

	var group sync.WaitGroup
	errs := make(chan error, goroutines*calls)
	for g := range goroutines {
		group.Add(1)
		go func() {
			defer group.Done()
			for j := range calls {
				i := (j*7 + g*5) % calls // every goroutine in another order
				got, err := run(i)
				switch {
				case err != nil:
				case !sameBits(want[i].y, got.y):
					err = fmt.Errorf("call %d: other output", i)
				case !assert.ObjectsAreEqual(want[i].routing, got.routing):
					err = fmt.Errorf("call %d: routing records of another call", i)
				case got.stats.Time <= 0:
					err = fmt.Errorf("call %d: time %v", i, got.stats.Time)
				default:
					got.stats.Time = want[i].stats.Time
					if !assert.ObjectsAreEqual(want[i].stats, got.stats) {
						err = fmt.Errorf("call %d: statistics of another call", i)
					}
				}
				errs <- err
			}
		}()
	}
	group.Wait()
	close(errs)
	for err := range errs {
		assert.NoError(t, err)
	}
}

// TestRecordsAreCopies: records of one call do not change with the next one.
func TestRecordsAreCopies(t *testing.T) {
	gputest.CountCase()
	fx := newFixture(t)
	m := mustNewSeeded(fx, NewConditionalRoutedFeedForward, smallFeedForward())
	y := fx.tensor(F32, 1, smallN, smallDim)
	record := func(seed uint64) []RoutingRecord {
		var routing []RoutingRecord
		require.NoError(t, m.Forward(t.Context(), y, fx.floats(normal(seed, smallN*smallDim), 1, smallN, smallDim), FeedForwardOptions{Routing: &routing}))
		return routing
	}
	first := record(1)
	logits := append([]float32(nil), first[0].Logits...)
	assert.NotEqual(t, logits, record(2)[0].Logits)
	assert.Equal(t, logits, first[0].Logits)
}
