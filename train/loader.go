package train

import (
	"context"
	"errors"
)

// Loader prepares batches in the background, while steps run.
type Loader struct {
	cancel context.CancelFunc
	ready  chan *Batch   // closed at the end
	free   chan *Batch   // batches that Next has returned before
	err    error         // of the goroutine; valid once ready is closed
	last   *Batch        // what Next returned
	done   chan struct{} // closed when the goroutine has ended
}

// NewLoader starts to prepare the batches from step first on, up to ahead of them before they are needed; 0: 2. The
// loader ends with ctx, or with Close, which the caller must call.
func NewLoader(ctx context.Context, batches Batches, first int64, ahead int) *Loader {
	if ahead < 1 {
		ahead = 2
	}
	ctx, cancel := context.WithCancel(ctx)
	l := &Loader{cancel: cancel, ready: make(chan *Batch, ahead), free: make(chan *Batch, ahead+2), done: make(chan struct{})}
	for range cap(l.free) { // one is filled, one is in use, the others are ready
		l.free <- &Batch{}
	}
	go func() {
		defer close(l.done)
		defer close(l.ready)
		for step := first; ; step++ {
			var b *Batch
			select {
			case b = <-l.free:
			case <-ctx.Done():
				l.err = ctx.Err()
				return
			}
			if l.err = batches.Batch(ctx, step, b); l.err != nil {
				return
			}
			select {
			case l.ready <- b:
			case <-ctx.Done():
				l.err = ctx.Err()
				return
			}
		}
	}()
	return l
}

// Next returns the next batch, which is valid until the next call of Next. An error of the batches is returned once
// those before it have been; it then stays. Calls of Next must not overlap.
func (l *Loader) Next(ctx context.Context) (*Batch, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	select {
	case b, ok := <-l.ready:
		if !ok {
			return nil, l.err
		}
		if l.last != nil {
			l.free <- l.last
		}
		l.last = b
		return b, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Close ends the background work and waits for its end. The error is that of the batches, if they had one. Closing a
// closed Loader does the same again.
func (l *Loader) Close() error {
	if l == nil {
		return nil
	}
	l.cancel()
	<-l.done
	if errors.Is(l.err, context.Canceled) || errors.Is(l.err, context.DeadlineExceeded) {
		return nil
	}
	return l.err
}
