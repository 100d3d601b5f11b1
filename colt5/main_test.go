package colt5

import (
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
)

func TestMain(m *testing.M) { gputest.Main(m) }
