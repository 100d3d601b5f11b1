package settings

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/colt5-vulkan/colt5/train"
)

// OpenCorpus lists the files of a language model. Those in the folder out, which a run writes, do not belong to it.
func (d Data) OpenCorpus(names []string, out string) (training, heldOut *train.Corpus, err error) {
	written, err := os.Stat(out)
	if err != nil {
		return nil, nil, err
	}
	o := train.CorpusOptions{HeldOut: d.HeldOut, Include: func(f train.CorpusFile) (bool, error) {
		is, err := isIn(f, written)
		if err != nil || is {
			return false, err
		}
		return d.included(f)
	}}
	if d.HeldOutBy == "folder" {
		o.Key = func(f train.CorpusFile) string { return path.Dir(f.Path) }
	}
	return train.OpenCorpus(o, names...)
}

// isIn reports whether a file of a folder is in another folder.
func isIn(f train.CorpusFile, folder os.FileInfo) (bool, error) {
	dir := f.Name
	for range strings.Split(f.Path, "/") {
		dir = filepath.Dir(dir)
		stat, err := os.Stat(dir)
		if err != nil {
			return false, err
		}
		if os.SameFile(stat, folder) {
			return true, nil
		}
	}
	return false, nil
}

// OpenDocuments reads the labelled documents of a classifier.
func (d Data) OpenDocuments(name string, classes []string) (training, heldOut *train.Documents, err error) {
	return train.OpenDocuments(name, train.DocumentOptions{TextField: d.TextField, LabelField: d.LabelField, HeldOut: d.HeldOut, Classes: classes})
}

func (d Data) checkPatterns() error {
	for _, p := range append(append([]string(nil), d.Include...), d.Exclude...) {
		if _, err := path.Match(p, ""); err != nil {
			return fmt.Errorf("the pattern %q: %w: want one of Go's path.Match", p, err)
		}
	}
	return nil
}

// included reports whether a file of a folder belongs to the corpus. Files and folders whose names start with a dot do
// not.
func (d Data) included(f train.CorpusFile) (bool, error) {
	for _, name := range strings.Split(f.Path, "/") {
		if strings.HasPrefix(name, ".") {
			return false, nil
		}
	}
	if len(d.Include) > 0 && !matches(d.Include, f.Path) || matches(d.Exclude, f.Path) {
		return false, nil
	}
	if d.SkipGenerated {
		is, err := isGenerated(f.Name)
		return !is, err
	}
	return true, nil
}

// matches reports whether one of the patterns matches a path or a folder of it: a pattern with a slash from the start on,
// one without any of its names.
func matches(patterns []string, file string) bool {
	names := strings.Split(file, "/")
	for _, p := range patterns {
		for i := range names {
			part := names[i]
			if strings.Contains(p, "/") {
				part = strings.Join(names[:i+1], "/")
			}
			if ok, err := path.Match(strings.TrimSuffix(p, "/"), part); ok && err == nil {
				return true
			}
		}
	}
	return false
}

// generated is the line by which Go programs know generated files.
var generated = regexp.MustCompile(`^// Code generated .* DO NOT EDIT\.\r?\n?$`)

// isGenerated reports whether a file has that line.
func isGenerated(name string) (bool, error) {
	f, err := os.Open(name)
	if err != nil {
		return false, err
	}
	defer f.Close()
	for r := bufio.NewReader(f); ; {
		line, err := r.ReadString('\n')
		if generated.MatchString(line) {
			return true, nil
		}
		if errors.Is(err, io.EOF) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
	}
}
