package train

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"time"

	"github.com/colt5-vulkan/colt5/internal/errtext"
)

// Corpus is the concatenation of files. Only the list of files is in memory; ReadAt reads from the files. It may be
// used by several goroutines.
type Corpus struct {
	files []CorpusFile
	size  int64
}

// CorpusFile is a file of a corpus.
type CorpusFile struct {
	Path string // below the folder that was given, with slashes; of a file that was given, its name
	Name string // for os.Open
	Size int64  // in bytes

	start    int64 // position in the corpus
	modified time.Time
}

// CorpusOptions select files and their part.
type CorpusOptions struct {
	// Include selects the files of folders. nil: all regular files. Files that are given by name are always in the corpus.
	Include func(f CorpusFile) (bool, error)
	// HeldOut is the n of the function HeldOut. 0: nothing is held out.
	HeldOut uint32
	// Key returns the key of a file for the function HeldOut, for instance its folder, so that folders are not split.
	// nil: its Path.
	Key func(f CorpusFile) string
}

// OpenCorpus lists the files of folders, and files that are given by name, and returns those to train with and those
// that are held out. The order is that of names, and within a folder that of [filepath.WalkDir]: by name, the same on
// every system. Empty files are left out, and symbolic links in folders. No file at all is an error.
//
// A file that changes or vanishes later is an error of ReadAt.
func OpenCorpus(o CorpusOptions, names ...string) (training, heldOut *Corpus, err error) {
	training, heldOut = &Corpus{}, &Corpus{}
	for _, name := range names {
		if err := o.walk(name, func(f CorpusFile) {
			key := f.Path
			if o.Key != nil {
				key = o.Key(f)
			}
			if HeldOut(key, o.HeldOut) {
				heldOut.add(f)
			} else {
				training.add(f)
			}
		}); err != nil {
			return nil, nil, fmt.Errorf("train: OpenCorpus: %w", err)
		}
	}
	if training.size+heldOut.size == 0 {
		return nil, nil, fmt.Errorf("train: OpenCorpus: %d names have no file that is not empty, want at least one", len(names))
	}
	return training, heldOut, nil
}

// walk calls add for the files of a folder, or for a single file.
func (o CorpusOptions) walk(root string, add func(CorpusFile)) error {
	stat, err := os.Stat(root)
	if err != nil {
		return err
	}
	if !stat.IsDir() {
		if !stat.Mode().IsRegular() {
			return fmt.Errorf("%s: mode is %v, want a regular file or a folder", errtext.Name(root), stat.Mode())
		}
		add(CorpusFile{Path: filepath.Base(root), Name: root, Size: stat.Size(), modified: stat.ModTime()})
		return nil
	}
	folder, err := filepath.EvalSymlinks(root) // WalkDir follows no link, not even this one
	if err != nil {
		return err
	}
	return filepath.WalkDir(folder, func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		stat, err := d.Info()
		if err != nil {
			return err
		}
		path, err := filepath.Rel(folder, name)
		if err != nil {
			return err
		}
		f := CorpusFile{Path: filepath.ToSlash(path), Name: name, Size: stat.Size(), modified: stat.ModTime()}
		if o.Include != nil {
			included, err := o.Include(f)
			if err != nil {
				return fmt.Errorf("%s: %w", errtext.Name(name), err)
			}
			if !included {
				return nil
			}
		}
		add(f)
		return nil
	})
}

func (c *Corpus) add(f CorpusFile) {
	if f.Size == 0 {
		return
	}
	f.start = c.size
	c.files = append(c.files, f)
	c.size += f.Size
}

// Size is the number of bytes.
func (c *Corpus) Size() int64 { return c.size }

// Files returns the files in order.
func (c *Corpus) Files() []CorpusFile { return append([]CorpusFile(nil), c.files...) }

// Fingerprint is a hash of the paths and sizes of the files, for the config of a run: a run that resumes with another
// corpus would not continue. It does not read the files.
func (c *Corpus) Fingerprint() string {
	h := sha256.New()
	for _, f := range c.files {
		fmt.Fprintf(h, "%q %d\n", f.Path, f.Size)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// ReadAt reads len(p) bytes from position off on, as [io.ReaderAt]. A file whose size or time of modification is not
// that of OpenCorpus is an error.
func (c *Corpus) ReadAt(p []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, fmt.Errorf("train: Corpus.ReadAt: off is %d, want at least 0", off)
	}
	first := sort.Search(len(c.files), func(i int) bool { return c.files[i].start+c.files[i].Size > off })
	for _, f := range c.files[first:] {
		if n == len(p) {
			return n, nil
		}
		at := off + int64(n) - f.start
		part := p[n:min(int64(len(p)), int64(n)+f.Size-at)]
		if err := f.read(part, at); err != nil {
			return n, fmt.Errorf("train: Corpus.ReadAt: %w", err)
		}
		n += len(part)
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// read reads from one file.
func (f CorpusFile) read(p []byte, at int64) error {
	file, err := os.Open(f.Name)
	if err != nil {
		return err
	}
	_, readErr := file.ReadAt(p, at)
	stat, err := file.Stat() // after the read, which it also covers
	if err := errors.Join(err, file.Close()); err != nil {
		return err
	}
	if err := unchanged(f.Name, stat, f.Size, f.modified); err != nil {
		return err
	}
	return readErr
}

// unchanged returns an error if a file has changed since it was listed.
func unchanged(name string, stat fs.FileInfo, size int64, modified time.Time) error {
	if stat.Size() == size && stat.ModTime().Equal(modified) {
		return nil
	}
	return fmt.Errorf("%s changed: it has %d bytes, modified %v, want %d bytes, modified %v", errtext.Name(name),
		stat.Size(), stat.ModTime().Format(time.RFC3339Nano), size, modified.Format(time.RFC3339Nano))
}
