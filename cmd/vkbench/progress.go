package main

import (
	"io"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// progress is a bar on stderr, where that is a terminal.
type progress struct{ bar *progressbar.ProgressBar }

func (a *app) progress(steps int) *progress {
	return &progress{progressbar.NewOptions(steps,
		progressbar.OptionSetWriter(a.stderr), progressbar.OptionSetVisibility(isTerminal(a.stderr)), progressbar.OptionSetWidth(24),
		progressbar.OptionShowCount(), progressbar.OptionSetPredictTime(false), progressbar.OptionSetElapsedTime(false),
		progressbar.OptionClearOnFinish(), progressbar.OptionThrottle(50*time.Millisecond), progressbar.OptionSetRenderBlankState(true),
	)}
}

// A bar that cannot be drawn is no reason to stop: its errors are left alone.

// at names what is going on.
func (p *progress) at(what string) { p.bar.Describe(what) }

// next goes on by a step.
func (p *progress) next() { p.bar.Add(1) }

// clear makes room for other output.
func (p *progress) clear() { p.bar.Clear() }

// end takes the bar away.
func (p *progress) end() { p.bar.Finish() }

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
