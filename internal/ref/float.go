package ref

import (
	"fmt"
	"math"
	"runtime"
	"sync"
)

// Float is a precision a twin can compute in.
type Float interface{ ~float32 | ~float64 }

// convert returns x in the precision of the computation; nil stays nil.
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

// parallel cuts 0..n-1 into one range a processor and waits for all of them.
// Every index is computed alone, so the result does not depend on the cut.
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

// checkLen panics unless an argument has the wanted number of elements.
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

// valid says whether entry i is real.
func isValid(mask []uint8, i int) bool { return mask == nil || mask[i] != 0 }

// empty says whether slot i holds no token.
func isEmpty[T Float](score []T, valid []uint8, i int) bool {
	return valid != nil && valid[i] == 0 || score != nil && score[i] == 0
}

func expT[T Float](x T) T  { return T(math.Exp(float64(x))) }
func logT[T Float](x T) T  { return T(math.Log(float64(x))) }
func sqrtT[T Float](x T) T { return T(math.Sqrt(float64(x))) }
