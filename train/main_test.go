package train

import (
	"os"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
)

// TestMain turns the test binary into a process that writes checkpoints until it is killed, for startWriter.
func TestMain(m *testing.M) {
	if dir := os.Getenv("TRAIN_TEST_CHECKPOINTS"); dir != "" {
		writeCheckpoints(dir)
	}
	gputest.Main(m)
}
