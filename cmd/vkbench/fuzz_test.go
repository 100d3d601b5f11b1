package main

import (
	"strings"
	"testing"
	"unicode"

	"github.com/colt5-vulkan/colt5/internal/cli/command"
	"github.com/stretchr/testify/assert"
)

// FuzzFlags: no arguments make the program panic. Wrong usage is an error of one printable line. The arguments, one a
// line, follow a command that needs no device.
func FuzzFlags(f *testing.F) {
	for _, args := range []string{
		"feedforward\n1x64x8", "feedforward\n1x64\n-o\njson", "-precision\nf16\nvit\n2", "-train\nfeedforward\n1x8x8", "-help",
		"topk\n99999999999999999999x1", "--\n\x1b[31m", "-o\nmd\n-o\ncsv\nencoder\n1x1", "\xff\n-\xff=1", "-config\n/dev/zero\nblock\n1x8",
	} {
		f.Add(args)
	}
	f.Fuzz(func(t *testing.T, args string) {
		list := strings.Split(args, "\n")
		if strings.Contains(args, "device") {
			return // opening devices takes long
		}
		code, _, remarks := program.Run(append([]string{"plan"}, list...)...)
		if code != command.ExitUsage {
			return
		}
		assert.LessOrEqual(t, len(remarks), 2000)
		assert.Equal(t, 1, strings.Count(remarks, "\n"), "%q", remarks)
		assert.False(t, strings.ContainsFunc(strings.TrimSuffix(remarks, "\n"), func(r rune) bool { return !unicode.IsPrint(r) }), "%q", remarks)
	})
}
