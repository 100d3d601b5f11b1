// Package nearest finds the word that a misspelled one was probably meant to be.
package nearest

import "strings"

// Of returns the word of a list that is nearest to a misspelled one: with the fewest letters to insert, delete, replace
// or exchange with their neighbour, without regard to case. Of several nearest words it returns the first. It returns
// "" if more than a third of the letters would have to change; one always may, but not the only one.
func Of(word string, list []string) string {
	best, least := "", min(max(len(word)/3, 1), len(word)-1)
	for _, w := range list {
		if d := distance(strings.ToLower(word), strings.ToLower(w)); d < least || d == least && best == "" {
			best, least = w, d
		}
	}
	return best
}

// distance is the optimal string alignment distance of two words, in bytes.
func distance(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		before, last, row = last, row, before
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
	}
	return row[len(b)]
}
