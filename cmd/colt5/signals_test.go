//go:build unix

package main

import (
	"bufio"
	"bytes"
	"math/rand/v2"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/colt5-vulkan/colt5/internal/cli/command"
	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestSignals sends a signal after the first evaluation, and requires a checkpoint from which the run resumes.
func TestSignals(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles the kernels of a training step for 10 s on CPU drivers")
	}
	gputest.Device(t)
	gputest.CountCase()
	data := corpus(t)
	for _, s := range []struct {
		signal syscall.Signal
		code   int
	}{{syscall.SIGINT, command.ExitInterrupted}, {syscall.SIGTERM, command.ExitTerminated}} {
		out := t.TempDir()
		var files bytes.Buffer
		c := subprocess(tiny(out, data, "-steps", "100000", "-evaluate-every", "3")...)
		c.Stdout = &files
		pipe, err := c.StderrPipe()
		require.NoError(t, err)
		require.NoError(t, c.Start())
		remarks := ""
		for lines := bufio.NewScanner(pipe); lines.Scan(); {
			remarks += lines.Text() + "\n"
			if strings.HasPrefix(lines.Text(), "step 3:") {
				require.NoError(t, c.Process.Signal(s.signal))
			}
		}
		assert.Error(t, c.Wait())
		assert.Equal(t, s.code, c.ProcessState.ExitCode(), remarks)
		assert.True(t, strings.HasSuffix(remarks, "colt5: interrupted\n"), remarks)
		found := regexp.MustCompile(`step-(\d+)\n`).FindStringSubmatch(files.String())
		require.Len(t, found, 2, files.String())
		step, err := strconv.Atoi(found[1])
		require.NoError(t, err)
		assert.GreaterOrEqual(t, step, 3)
		assert.Len(t, losses(t, out), step)
		assert.FileExists(t, filepath.Join(out, "index.html"))

		if s.signal == syscall.SIGTERM {
			continue
		}
		if testing.Short() {
			return // TestResume resumes a run
		}
		whole := t.TempDir()
		steps := strconv.Itoa(step + 2)
		train(t, tiny(whole, data, "-steps", steps))
		assert.Contains(t, train(t, tiny(out, data, "-steps", steps)), "resumed after step "+strconv.Itoa(step))
		assert.Equal(t, bits(t, whole, step+2), bits(t, out, step+2))
	}
}

// TestKill kills a run at random moments, and requires the bits of an undisturbed one.
func TestKill(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 10 s; TestCheckpointsKilled of package train kills processes that save")
	}
	gputest.Device(t)
	gputest.CountCase()
	const kills = 20
	data, whole, out := corpus(t), t.TempDir(), t.TempDir()
	const steps = "40"
	train(t, tiny(whole, data, "-steps", steps))
	began := time.Now()
	require.NoError(t, subprocess(tiny(t.TempDir(), data, "-steps", "1")...).Run())
	start := time.Since(began) // of a process, with its first step
	r := rand.New(rand.NewPCG(1, 2))
	for range kills {
		c := subprocess(tiny(out, data, "-steps", steps, "-save-every", "1")...)
		require.NoError(t, c.Start())
		time.Sleep(start/2 + time.Duration(r.Int64N(int64(start))))
		require.NoError(t, c.Process.Kill())
		c.Wait()
	}
	train(t, tiny(out, data, "-steps", steps, "-save-every", "1"))
	assert.Equal(t, bits(t, whole, 40), bits(t, out, 40))
}
