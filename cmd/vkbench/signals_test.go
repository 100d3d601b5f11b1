//go:build unix

package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/results"
	"github.com/colt5-vulkan/colt5/internal/cli/command"
	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// subprocess returns vkbench as a process of its own.
func subprocess(args ...string) (c *exec.Cmd, remarks *bytes.Buffer) {
	c, remarks = exec.Command(os.Args[0], args...), &bytes.Buffer{}
	c.Env = append(os.Environ(), runMain+"=1", "COLT5_GPU_CASES_FILE=")
	c.Stderr = remarks
	return c, remarks
}

// manySizes are sizes of linear that take minutes, about a second each.
var manySizes = "2048x256x500" + strings.Repeat(",512,500", 100)

var signals = []struct {
	signal syscall.Signal
	code   int
}{{syscall.SIGTERM, command.ExitTerminated}, {syscall.SIGINT, command.ExitInterrupted}}

// TestSignals sends a signal after the first row.
func TestSignals(t *testing.T) {
	gputest.Device(t)
	gputest.CountCase()
	for _, s := range signals {
		c, remarks := subprocess("bench", "-steps", "-o", "jsonl", "-only", "linear", "-size", manySizes)
		pipe, err := c.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, c.Start())
		lines := bufio.NewScanner(pipe)
		require.True(t, lines.Scan(), remarks)
		require.NoError(t, c.Process.Signal(s.signal))
		for ok := true; ok; ok = lines.Scan() {
			assert.True(t, json.Valid(lines.Bytes()), "a whole row: %s", lines.Text())
		}
		assert.Error(t, c.Wait())
		assert.Equal(t, s.code, c.ProcessState.ExitCode(), remarks)
		assert.True(t, strings.HasSuffix(remarks.String(), "vkbench: interrupted\n"), remarks)
		if testing.Short() {
			return
		}
	}
}

// TestSignalsReport requires a report that a signal stops to write its rows.
func TestSignalsReport(t *testing.T) {
	if testing.Short() {
		t.Skip("takes several seconds")
	}
	gputest.Device(t)
	gputest.CountCase()
	for _, s := range signals {
		for wait := 3 * time.Second; ; wait *= 2 { // until there is a row
			dir := t.TempDir()
			c, remarks := subprocess("report", "-out", dir, "-lengths", "none", "-only", "linear", "-size", manySizes)
			require.NoError(t, c.Start())
			time.Sleep(wait)
			require.NoError(t, c.Process.Signal(s.signal))
			assert.Error(t, c.Wait())
			require.Equal(t, s.code, c.ProcessState.ExitCode(), remarks)
			rows, err := results.ReadFile(filepath.Join(dir, "interrupted.jsonl"))
			if os.IsNotExist(err) && wait < time.Minute {
				continue
			}
			require.NoError(t, err)
			assert.Equal(t, results.CopyPeak, rows[0].Name)
			break
		}
	}
}
