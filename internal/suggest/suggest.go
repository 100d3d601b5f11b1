// Package suggest finds the name that a mistyped word was meant to be.
package suggest

import (
	"strings"

	"github.com/agnivade/levenshtein"
)

// maxWord bounds the words that are compared: text of a file may be long, and comparing takes time quadratic in the
// length.
const maxWord = 64

// Nearest returns the name nearest to a word: the one with the fewest letters inserted, deleted or replaced, or one that
// contains the word or is contained in it. Case and the separators _ - and space do not count. Of equally near names it
// returns the first. "" means that no name is near.
func Nearest(word string, names []string) string {
	if word == "" || len(word) > maxWord {
		return ""
	}
	word = plain(word)
	best, least := "", max(2, len(word)/3)+1
	for _, name := range names {
		other := plain(name)
		d := levenshtein.ComputeDistance(word, other)
		if short := min(len(word), len(other)); short >= 3 && (strings.Contains(other, word) || strings.Contains(word, other)) {
			d = min(d, 2)
		}
		if d < least && d < max(len(word), len(other)) { // not all letters differ
			best, least = name, d
		}
	}
	return best
}

// plain returns a name without what does not count.
func plain(s string) string {
	return strings.NewReplacer("_", "", "-", "", " ", "").Replace(strings.ToLower(s))
}

// Phrase returns what an error message adds about a word: `, did you mean "NAME"?`, or nothing if no name is near.
func Phrase(word string, names []string) string {
	if name := Nearest(word, names); name != "" {
		return `, did you mean "` + name + `"?`
	}
	return ""
}
