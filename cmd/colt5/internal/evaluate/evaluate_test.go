package evaluate

import (
	"testing"

	"github.com/colt5-vulkan/colt5/internal/cli/commandtest"
)

func TestUsage(t *testing.T) {
	commandtest.New("colt5", Command).RejectsUsage(t, [][2]string{
		{"eval", "eval needs a model and files"},
		{"eval no-such-file x", "no-such-file: no such file"},
	})
}
