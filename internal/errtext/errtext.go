// Package errtext puts text from files into error messages: escaped, so that it cannot reach a terminal as control
// sequences or forge lines, and shortened, so that the size of a message does not depend on the file.
package errtext

import (
	"fmt"
	"strconv"
	"strings"
)

// maxQuoted is the maximum length of what Quote returns, in bytes.
const maxQuoted = 96

// Quote returns s in double quotes with Go's escapes, at most 96 bytes long. Of a longer text it keeps the beginning and
// the end.
func Quote(s string) string {
	if len(s) <= maxQuoted { // escapes only make it longer
		if q := strconv.Quote(s); len(q) <= maxQuoted {
			return q
		}
	}
	const ellipsis = `"..."`
	const tail = 32
	head := maxQuoted - tail - len(ellipsis)
	begin := `"`
	for _, r := range s[:min(len(s), head)] {
		q := escape(r)
		if len(begin)+len(q) > head {
			break
		}
		begin += q
	}
	end := ""
	text := []rune(s[max(0, len(s)-tail):])
	for i := len(text) - 1; i >= 0; i-- {
		q := escape(text[i])
		if len(end)+len(q) > tail-1 {
			break
		}
		end = q + end
	}
	return begin + ellipsis + end + `"`
}

func escape(r rune) string {
	q := strconv.Quote(string(r))
	return q[1 : len(q)-1]
}

// Name returns a name as it is if it is short and consists of letters, digits and the characters of tensor names and
// paths: . _ - / Otherwise it returns Quote(s).
func Name(s string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._-/", r)
	}
	if s == "" || len(s) > maxQuoted || strings.ContainsFunc(s, func(r rune) bool { return !plain(r) }) {
		return Quote(s)
	}
	return s
}

// Shape formats a shape, at most its first eight dimensions.
func Shape[T int | int64](shape []T) string {
	const limit = 8
	if len(shape) <= limit {
		return fmt.Sprint(shape)
	}
	return fmt.Sprintf("%s ..] (%d dimensions)", strings.TrimSuffix(fmt.Sprint(shape[:limit]), "]"), len(shape))
}

// maxNamed is how many problems the text of Problems names.
const maxNamed = 3

// Problems collects problems. Its text is the first three and the number of the others.
type Problems struct {
	first []string
	count int
}

// Addf adds a problem. It formats no more than the first three.
func (p *Problems) Addf(format string, args ...any) {
	if p.count++; len(p.first) < maxNamed {
		p.first = append(p.first, fmt.Sprintf(format, args...))
	}
}

// Count returns the number of problems.
func (p *Problems) Count() int { return p.count }

// Merge returns the problems of all kinds as one error, nil if there are none. Its text begins with one problem of each
// kind.
func Merge(kinds ...Problems) error {
	var all Problems
	for n := range maxNamed {
		for _, k := range kinds {
			if n < len(k.first) && len(all.first) < maxNamed {
				all.first = append(all.first, k.first[n])
			}
		}
	}
	for _, k := range kinds {
		all.count += k.count
	}
	return all.Err()
}

// Err returns nil if there are no problems.
func (p *Problems) Err() error {
	if p.count == 0 {
		return nil
	}
	return p
}

func (p *Problems) Error() string {
	text := strings.Join(p.first, "; ")
	if more := p.count - len(p.first); more > 0 {
		text += fmt.Sprintf("; ... and %d more", more)
	}
	return text
}
