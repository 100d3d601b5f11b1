package generate

import (
	"io"
	"unicode/utf8"

	"github.com/colt5-vulkan/colt5/internal/cli/webpage"
)

// terminal writes characters as soon as they are complete, and replaces those that a terminal would obey and bytes that
// are no character.
type terminal struct {
	out  io.Writer
	rest []byte // of a character
}

func (t *terminal) Write(p []byte) (int, error) {
	t.rest = append(t.rest, p...)
	return len(p), t.write(false)
}

// flush writes the rest and ends the line.
func (t *terminal) flush() error {
	err := t.write(true)
	if err == nil {
		_, err = t.out.Write([]byte("\n"))
	}
	return err
}

func (t *terminal) write(all bool) error {
	var text []byte
	for len(t.rest) > 0 && (all || utf8.FullRune(t.rest)) {
		c, n := utf8.DecodeRune(t.rest)
		text = utf8.AppendRune(text, webpage.Shown(c))
		t.rest = t.rest[n:]
	}
	if len(text) == 0 {
		return nil
	}
	_, err := t.out.Write(text)
	return err
}
