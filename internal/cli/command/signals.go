package command

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"syscall"
)

// ErrInterrupted says that a signal stopped the program. Commands return it after they have saved their results.
var ErrInterrupted = errors.New("interrupted")

// errTerminated is the cause of a context that SIGTERM cancelled, which batch systems send.
var errTerminated = errors.New("terminated")

// WithSignals returns a context that SIGINT and SIGTERM cancel. A second signal ends the program at once. stop ends
// this.
func WithSignals(parent context.Context) (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(parent)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		select {
		case s := <-signals:
			signal.Stop(signals)
			if s == syscall.SIGTERM {
				cancel(errTerminated)
			} else {
				cancel(ErrInterrupted)
			}
		case <-ctx.Done():
			signal.Stop(signals)
		}
	}()
	return ctx, func() { cancel(nil) }
}

// Interrupted returns ErrInterrupted if ctx is cancelled, and nil otherwise.
func Interrupted(ctx context.Context) error {
	if ctx.Err() != nil {
		return ErrInterrupted
	}
	return nil
}

// InterruptedBy returns ErrInterrupted in place of an err that only says that ctx was cancelled, and other errors
// unchanged.
func InterruptedBy(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return ErrInterrupted
	}
	return err
}
