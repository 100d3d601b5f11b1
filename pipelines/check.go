package pipelines

import (
	"fmt"
	"math"
	"strings"

	"github.com/colt5-vulkan/colt5/vk"
)

// This file checks the sizes and ranges that Record is given. Every error names the operation, the argument, what it
// was and what was wanted.

// dim is one dimension of a shape: its name and its size.
type dim struct {
	name string
	n    int
}

// element is the element type of a tensor.
type element struct {
	name string
	size uint64 // in bytes
}

func (d DType) element() element { return element{d.String(), uint64(d.Size())} }

var (
	f32 = F32.element()
	i32 = I32.element()
	u8  = U8.element()
	u32 = element{"u32", 4} // not a DType: only kernels exchange such words
)

// Alignment of ranges, in bytes. Kernels read rows of 4*n floats as vec4, and other rows and lists word by word.
// A range that starts at any row of a tensor therefore has the alignment that its kernel needs.
const (
	vec4Align = 16
	wordAlign = 4
	byteAlign = 1
)

// rowAlign is the alignment of a float32 tensor with rows of c elements.
func rowAlign(c int) uint64 {
	if c%4 == 0 {
		return vec4Align
	}
	return wordAlign
}

// shape formats dimensions for error messages: "[Rows 5, C 32]".
func shape(dims ...dim) string {
	var parts []string
	for _, d := range dims {
		parts = append(parts, fmt.Sprintf("%s %d", d.name, d.n))
	}
	return "[" + strings.Join(parts, ", ") + "]"
}

// firstError returns the first error that is not nil.
func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// checkPositive checks that sizes are at least 1 and fit an int32.
func checkPositive(op string, dims ...dim) error {
	for _, d := range dims {
		if d.n < 1 || d.n > math.MaxInt32 {
			return fmt.Errorf("pipelines: %s: %s is %d, want 1 to %d", op, d.name, d.n, math.MaxInt32)
		}
	}
	return nil
}

// maxRowLength is the largest number of elements of a row: shaders count its bytes in 32 bits.
const maxRowLength = 1<<30 - 1

func checkRowLength(op string, c int) error {
	if c < 1 || c > maxRowLength {
		return fmt.Errorf("pipelines: %s: C is %d, want 1 to %d", op, c, maxRowLength)
	}
	return nil
}

// maxCPUIterations bounds the loop iterations of one invocation on CPU drivers: some of them silently end a loop after
// 65,534.
const maxCPUIterations = 60000

// checkIterations checks n, the loop iterations of one invocation. The subject, such as "a row of 4096 floats", is for
// the message.
func checkIterations(caps vk.Caps, op, subject string, n int) error {
	if !caps.CPU || n <= maxCPUIterations {
		return nil
	}
	return fmt.Errorf("pipelines: %s: %w: %s needs %d loop iterations, CPU drivers allow %d", op, vk.ErrUnsupported, subject, n, maxCPUIterations)
}

// checkTensor checks that a range is present, is aligned, and has exactly the size of a tensor with these dimensions.
func checkTensor(op, arg string, r vk.Range, align uint64, e element, dims ...dim) error {
	bytes := tensorBytes(e, dims)
	if r.IsZero() || r.Size() != bytes { // the text of the error is made only here: every recorded step checks its ranges
		return checkRange(op, arg, r, align, bytes, shape(dims...)+" "+e.name)
	}
	return checkAlign(op, arg, r, align)
}

// checkOptional is checkTensor for an argument that may be absent.
func checkOptional(op, arg string, r vk.Range, align uint64, e element, dims ...dim) error {
	if r.IsZero() {
		return nil
	}
	return checkTensor(op, arg, r, align, e, dims...)
}

// checkPresence is checkTensor for an argument that the config either requires or excludes.
func checkPresence(wanted bool, op, arg string, r vk.Range, align uint64, e element, dims ...dim) error {
	if !wanted {
		if !r.IsZero() {
			return fmt.Errorf("pipelines: %s: %s has %d bytes, want none: the config leaves it out", op, arg, r.Size())
		}
		return nil
	}
	return checkTensor(op, arg, r, align, e, dims...)
}

// checkRange is checkTensor for memory that is described otherwise than by dimensions. The description is for the
// message.
func checkRange(op, arg string, r vk.Range, align, bytes uint64, description string) error {
	switch {
	case r.IsZero():
		return fmt.Errorf("pipelines: %s: %s is missing, want %s, %d bytes", op, arg, description, bytes)
	case r.Size() != bytes:
		return fmt.Errorf("pipelines: %s: %s has %d bytes, want %s, %d bytes", op, arg, r.Size(), description, bytes)
	}
	return checkAlign(op, arg, r, align)
}

// checkScratch checks scratch memory of float32 elements. It is absent if no bytes are wanted.
func checkScratch(op string, r vk.Range, bytes uint64, description string) error {
	if bytes == 0 && r.IsZero() {
		return nil
	}
	return checkRange(op, "scratch", r, wordAlign, bytes, description)
}

func checkAlign(op, arg string, r vk.Range, align uint64) error {
	if r.Offset()%align != 0 {
		return fmt.Errorf("pipelines: %s: %s starts at byte %d of its buffer, want a multiple of %d", op, arg, r.Offset(), align)
	}
	return nil
}

// tensorBytes is the size of a tensor. Dimensions that were checked keep the product below 2^64.
func tensorBytes(e element, dims []dim) uint64 {
	bytes := e.size
	for _, d := range dims {
		bytes *= uint64(d.n)
	}
	return bytes
}
