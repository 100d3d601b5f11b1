package main

import (
	"context"
	"strings"
	"testing"

	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/command"
	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/commandtest"
	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/stretchr/testify/assert"
)

func TestMain(m *testing.M) { gputest.Main(m) }

var program = commandtest.Program(commands)

const goldenCase = "../../testdata/golden/topk_00.safetensors"

var names = []string{"devices", "info", "verify", "bench", "peak", "tune", "report", "plot", "plan", "route"}

func TestUsage(t *testing.T) {
	program.RejectsUsage(t, [][2]string{
		{"", "which command"},
		{"nonsense", `there is no command "nonsense"`},
		{"-nonsense", "-nonsense"},
	})
}

func TestHelp(t *testing.T) {
	for _, args := range [][]string{{"help"}, {"-help"}, {"--help"}} {
		code, out, remarks := program.Run(args...)
		assert.Equal(t, command.ExitOK, code)
		assert.Empty(t, remarks)
		for _, want := range append([]string{"Exit codes", "0  fine", "1  a check failed", "2  wrong usage", "3  no usable"}, names...) {
			assert.Contains(t, out, want)
		}
	}
	for _, name := range names {
		code, out, _ := program.Run(name, "-help")
		assert.Equal(t, command.ExitOK, code)
		assert.Equal(t, name != "plot", strings.Contains(out, "--device"))
	}
}

// TestInterrupted requires every command that waits to fail, and to say once that it was interrupted.
func TestInterrupted(t *testing.T) {
	gputest.Device(t)
	ctx, stop := context.WithCancel(t.Context())
	stop()
	for _, args := range []string{
		"bench -only membership_mask", "report -only membership_mask -out " + t.TempDir(), "tune", "verify " + goldenCase,
		"route " + commandtest.File(t, "text", "some text"), "peak",
	} {
		code, _, remarks := program.RunContext(ctx, strings.Fields(args)...)
		assert.Equal(t, command.ExitFailed, code, args)
		assert.True(t, strings.HasSuffix(remarks, "vkbench: interrupted\n"), "%s: %s", args, remarks)
	}
}

func TestNoDevice(t *testing.T) {
	for _, args := range [][]string{
		{"info", "-device", "no such device"}, {"devices", "-device", "no such device"}, {"verify", goldenCase, "-device=no such device"},
		{"bench", "--device", "no such device"}, {"route", goldenCase, "-device", "no such device"},
		{"peak", "-device", "no such device"}, {"report", "-out", t.TempDir(), "-device", "no such device"},
	} {
		code, _, remarks := program.Run(args...)
		assert.Equal(t, command.ExitNoDevice, code, args)
		assert.Contains(t, remarks, "no usable Vulkan device")
	}
}
