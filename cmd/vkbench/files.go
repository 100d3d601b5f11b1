package main

import (
	"errors"
	"os"
	"path/filepath"
)

// outFolder makes a folder for results, and tries whether files can be made there, before the work that would be lost.
func outFolder(dir string) error {
	if dir == "" {
		return usage("-out names no folder: where are the files to go?")
	}
	err := os.MkdirAll(dir, 0o755)
	if err == nil {
		err = tryFolder(dir)
	}
	if err != nil {
		return usage("-out %s: %w", dir, err)
	}
	return nil
}

func tryFolder(dir string) error {
	f, err := os.CreateTemp(dir, ".try-*")
	if err == nil {
		err = errors.Join(f.Close(), os.Remove(f.Name()))
	}
	return err
}

// outFile tries whether a flag's file can be made, or replaced, before the work that would be lost. It must not be one of those that are read.
func outFile(flag, path string, inputs []string) error {
	if err := tryFolder(filepath.Dir(path)); err != nil {
		return usage("-%s %s: %w", flag, path, err)
	}
	out, err := os.Stat(path)
	if err != nil {
		return nil // nothing there to lose; whatever else it is, writing will tell
	}
	if !out.Mode().IsRegular() {
		return usage("-%s %s: mode is %v, want a regular file or none", flag, path, out.Mode())
	}
	for _, input := range inputs {
		if in, err := os.Stat(input); err == nil && os.SameFile(in, out) {
			return usage("-%s %s is the input %s, want another file", flag, path, input)
		}
	}
	return nil
}
