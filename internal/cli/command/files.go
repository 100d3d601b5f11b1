package command

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/colt5-vulkan/colt5/internal/atomicfile"
)

// CheckOutDir makes the directory of flag -out and checks that files can be created there. It is called before the work
// whose results would be lost.
func CheckOutDir(dir string) error {
	if dir == "" {
		return Usagef("-out names no folder: where are the files to go?")
	}
	err := os.MkdirAll(dir, 0o755)
	if err == nil {
		err = checkWritable(dir)
	}
	if err != nil {
		return Usagef("-out %s: %w", dir, err)
	}
	return nil
}

func checkWritable(dir string) error {
	f, err := os.CreateTemp(dir, ".try-*")
	if err == nil {
		err = errors.Join(f.Close(), os.Remove(f.Name()))
	}
	return err
}

// CheckOutFile checks that the file of a flag can be created or replaced, and that it is none of the inputs. It is
// called before the work whose result would be lost.
func CheckOutFile(flag, path string, inputs []string) error {
	if err := checkWritable(filepath.Dir(path)); err != nil {
		return Usagef("-%s %s: %w", flag, path, err)
	}
	out, err := os.Stat(path)
	if err != nil {
		return nil // there is no file that could be lost; any other problem appears when it is written
	}
	if !out.Mode().IsRegular() {
		return Usagef("-%s %s: mode is %v, want a regular file or none", flag, path, out.Mode())
	}
	for _, input := range inputs {
		if in, err := os.Stat(input); err == nil && os.SameFile(in, out) {
			return Usagef("-%s %s is the input %s, want another file", flag, path, input)
		}
	}
	return nil
}

// WriteFile writes a file atomically and prints its path to stdout.
func (env *Env) WriteFile(dir, name string, data []byte) error {
	path := filepath.Join(dir, name)
	if err := atomicfile.Write(path, data); err != nil {
		return err
	}
	_, err := fmt.Fprintln(env.Stdout, path)
	return err
}
