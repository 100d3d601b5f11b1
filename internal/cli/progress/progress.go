// Package progress draws a progress bar on a terminal.
package progress

import (
	"io"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// Bar is a progress bar. It is invisible unless it is drawn on a terminal. Errors of drawing are ignored.
type Bar struct{ bar *progressbar.ProgressBar }

// New starts a bar of so many steps on w.
func New(w io.Writer, steps int) *Bar {
	return &Bar{progressbar.NewOptions(steps,
		progressbar.OptionSetWriter(w), progressbar.OptionSetVisibility(IsTerminal(w)), progressbar.OptionSetWidth(24),
		progressbar.OptionShowCount(), progressbar.OptionSetPredictTime(false), progressbar.OptionSetElapsedTime(false),
		progressbar.OptionClearOnFinish(), progressbar.OptionThrottle(50*time.Millisecond), progressbar.OptionSetRenderBlankState(true),
	)}
}

// Describe sets the text beside the bar.
func (b *Bar) Describe(text string) { b.bar.Describe(text) }

// Step advances the bar by one step.
func (b *Bar) Step() { b.bar.Add(1) }

// Set sets the steps that are done.
func (b *Bar) Set(steps int) { b.bar.Set(steps) }

// Clear removes the bar until it changes again. Call it before other output.
func (b *Bar) Clear() { b.bar.Clear() }

// Finish removes the bar.
func (b *Bar) Finish() { b.bar.Finish() }

// IsTerminal reports whether w is a terminal: an *os.File, or a writer with the method Fd of one.
func IsTerminal(w io.Writer) bool {
	f, ok := w.(interface{ Fd() uintptr })
	return ok && term.IsTerminal(int(f.Fd()))
}
