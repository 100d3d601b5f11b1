package command

import (
	"io"
	"os"
)

// checkedWriter notes the first error, because not every writer of output, such as that of help texts, reports it.
type checkedWriter struct {
	w   io.Writer
	err error
}

func (c *checkedWriter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	if c.err == nil {
		c.err = err
	}
	return n, err
}

// Fd returns the file descriptor of a file, so that a terminal is recognised as one.
func (c *checkedWriter) Fd() uintptr {
	if f, ok := c.w.(*os.File); ok {
		return f.Fd()
	}
	return ^uintptr(0)
}
