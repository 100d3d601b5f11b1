package ref

import (
	"fmt"
	"math"
	"runtime"
	"sync"
)

// Float is a precision of the reference.
type Float interface{ ~float32 | ~float64 }

// convert returns x in precision T. It returns nil for nil.
func convert[T Float](x []float32) []T {
	if x == nil {
		return nil
	}
	if same, ok := any(x).([]T); ok {
		return same
	}
	y := make([]T, len(x))
	for i, v := range x {
		y[i] = T(v)
	}
	return y
}

// parallel splits 0..n-1 into one range per CPU, calls f for each concurrently, and waits for all. Results must not
// depend on the split, so f must compute every index independently.
func parallel(n int, f func(lo, hi int)) {
	workers := min(runtime.GOMAXPROCS(0), n)
	if workers <= 1 {
		f(0, n)
		return
	}
	var wg sync.WaitGroup
	for w := range workers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			f(w*n/workers, (w+1)*n/workers)
		}()
	}
	wg.Wait()
}

// checkLen panics unless the length got of an argument equals want.
func checkLen(op, arg string, got, want int) {
	if got != want {
		panic(fmt.Sprintf("ref: %s: len(%s) is %d, want %d", op, arg, got, want))
	}
}

// checkOptional is checkLen for an argument that may be nil.
func checkOptional[E any](op, arg string, s []E, want int) {
	if s != nil {
		checkLen(op, arg, len(s), want)
	}
}

// checkIndex panics unless 0 <= index < n.
func checkIndex(op, arg string, index int32, n int) {
	if index < 0 || int(index) >= n {
		panic(fmt.Sprintf("ref: %s: %s holds %d, want 0..%d", op, arg, index, n-1))
	}
}

// isValid reports whether entry i is not masked.
func isValid(mask []uint8, i int) bool { return mask == nil || mask[i] != 0 }

// isSkipped reports whether slot i is empty or has score 0.
func isSkipped[T Float](score []T, valid []uint8, i int) bool {
	return valid != nil && valid[i] == 0 || score != nil && score[i] == 0
}

func expT[T Float](x T) T  { return T(math.Exp(float64(x))) }
func logT[T Float](x T) T  { return T(math.Log(float64(x))) }
func sqrtT[T Float](x T) T { return T(math.Sqrt(float64(x))) }
