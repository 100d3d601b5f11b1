package colt5

import (
	"flag"
	"os"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/vk"
)

func TestMain(m *testing.M) {
	flag.Parse()
	skipExamplesWithoutDevice()
	gputest.Main(m)
}

// skipExamplesWithoutDevice makes examples behave like tests on a machine without a Vulkan device. An example cannot
// skip itself.
func skipExamplesWithoutDevice() {
	if os.Getenv("COLT5_REQUIRE_GPU") == "1" || flag.Lookup("test.skip").Value.String() != "" {
		return
	}
	dev, err := vk.Open(vk.Options{})
	if err != nil {
		flag.Set("test.skip", "^Example")
		return
	}
	dev.Close()
}
