// Package commandtest runs a program of package command in the process of a test.
package commandtest

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/cli/command"
	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Program is a program under test.
type Program command.Program

// New makes a program of the commands under test.
func New(name string, commands ...command.Constructor) Program {
	return Program{Name: name, Commands: commands}
}

// Run runs the program. args start with the command's name.
func (p Program) Run(args ...string) (code int, stdout, stderr string) {
	return p.RunContext(context.Background(), args...)
}

// RunContext is Run with a context.
func (p Program) RunContext(ctx context.Context, args ...string) (code int, stdout, stderr string) {
	var out, remarks bytes.Buffer
	code = command.Program(p).Run(ctx, append([]string{p.Name}, args...), &out, &remarks)
	return code, out.String(), remarks.String()
}

// RunOnDevice is Run for tests that need a device. Without one the test is skipped.
func (p Program) RunOnDevice(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	gputest.Device(t)
	gputest.CountCase()
	return p.Run(args...)
}

// OK is RunOnDevice with the exit code ExitOK. It returns stdout.
func (p Program) OK(t *testing.T, args ...string) string {
	t.Helper()
	code, out, remarks := p.RunOnDevice(t, args...)
	require.Equal(t, command.ExitOK, code, "%s\n%s", out, remarks)
	return out
}

// RejectsUsage requires ExitUsage and an error of one line for each pair of arguments, separated by spaces, and a part
// of the error.
func (p Program) RejectsUsage(t *testing.T, list [][2]string) {
	t.Helper()
	for _, test := range list {
		args, want := test[0], test[1]
		t.Run(args, func(t *testing.T) {
			code, out, remarks := p.Run(strings.Fields(args)...)
			assert.Equal(t, command.ExitUsage, code)
			assert.Empty(t, out)
			assert.Contains(t, remarks, want)
			assert.Equal(t, 1, strings.Count(remarks, "\n"), "one line: %s", remarks)
		})
	}
}

// HelpOf requires the help of a command for -help, also beside arguments.
func (p Program) HelpOf(t *testing.T, name string) {
	t.Helper()
	for _, args := range [][]string{{name, "-help"}, {name, "argument", "-help"}, {name, "-help", "argument"}, {name, "argument", "-h"}, {"help", name}} {
		code, out, remarks := p.Run(args...)
		assert.Equal(t, command.ExitOK, code, args)
		assert.Empty(t, remarks, args)
		assert.True(t, strings.HasPrefix(out, "NAME:\n   "+p.Name+" "+name+" - "), "%v: %s", args, out)
		_, description, _ := strings.Cut(out, "DESCRIPTION:\n")
		description, _, _ = strings.Cut(description, "OPTIONS:\n") // of which a line may be long
		for line := range strings.Lines(description) {
			assert.LessOrEqual(t, len(line), 122, line)
		}
	}
}

// Objects reads output in the format json.
func Objects(t *testing.T, text string) []map[string]any {
	t.Helper()
	var list []map[string]any
	require.NoError(t, json.Unmarshal([]byte(text), &list), text)
	return list
}

// File writes a temporary file and returns its path.
func File(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
	return path
}
