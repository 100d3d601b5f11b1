//go:build linux

package faults_test

import (
	"os"
	"os/exec"
	"regexp"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestPromises: every test that SECURITY.md names for a promise exists.
func TestPromises(t *testing.T) {
	text, err := os.ReadFile("../../SECURITY.md")
	require.NoError(t, err)
	names := regexp.MustCompile("`((?:Test|Fuzz)[A-Za-z]+)`").FindAllStringSubmatch(string(text), -1)
	require.Greater(t, len(names), 15)
	for _, n := range names {
		find := exec.Command("grep", "-rqs", "--include=*_test.go", "^func "+n[1]+"(", "../..")
		assert.NoError(t, find.Run(), n[1])
	}
}
