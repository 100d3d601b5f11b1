package main

import (
	"errors"
	"os"
)

// outFolder makes a folder for results, and tries whether files can be made there, before the work that would be lost.
func outFolder(dir string) error {
	if dir == "" {
		return usage("-out names no folder: where are the files to go?")
	}
	err := os.MkdirAll(dir, 0o755)
	if err == nil {
		var f *os.File
		if f, err = os.CreateTemp(dir, ".try-*"); err == nil {
			err = errors.Join(f.Close(), os.Remove(f.Name()))
		}
	}
	if err != nil {
		return usage("-out %s: %w", dir, err)
	}
	return nil
}
