package deviceinfo

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestComponent(t *testing.T) {
	for number, name := range map[uint32]string{0: "float16", 1: "float32", 3: "int8", 10: "uint64", 1000141000: "bfloat16", 11: "type 11"} {
		assert.Equal(t, name, component(number))
	}
}
