package train

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"

	"github.com/colt5-vulkan/colt5/internal/atomicfile"
	"github.com/colt5-vulkan/colt5/internal/errtext"
)

// ErrNoCheckpoint is the error of a directory that has no checkpoint.
var ErrNoCheckpoint = errors.New("there is no checkpoint")

// Checkpoint is the state of a run after some steps: a directory that was written as a whole.
type Checkpoint struct {
	Path   string
	Step   int64           // steps that the run has done
	Config json.RawMessage // of the run
	Data   json.RawMessage // what Save was given; absent: null
}

// File returns the path of a file of the checkpoint.
func (c *Checkpoint) File(name string) string { return filepath.Join(c.Path, name) }

// CheckConfig returns an error that names the first difference if the config of the checkpoint is not that of a run.
// Config is compared as JSON, whatever the order of keys.
func (c *Checkpoint) CheckConfig(config any) error {
	want, err := canonical(config)
	if err != nil {
		return err
	}
	if difference := difference("config", c.Config, want); difference != "" {
		return fmt.Errorf("train: checkpoint %s has another config: %s", errtext.Name(c.Path), difference)
	}
	return nil
}

// manifestName is the file of a checkpoint that describes the others. It is written last.
const (
	manifestName    = "checkpoint.json"
	manifestFormat  = "colt5 checkpoint"
	manifestVersion = 1

	maxManifestBytes = 64 << 20
)

// manifest is the content of that file.
type manifest struct {
	Format       string                  `json:"format"`
	Version      int                     `json:"version"`
	Step         int64                   `json:"step"`
	Config       json.RawMessage         `json:"config"`
	ConfigSHA256 string                  `json:"config_sha256"` // of the bytes of Config without spaces
	Data         json.RawMessage         `json:"data"`
	Files        map[string]manifestFile `json:"files"`
}

type manifestFile struct {
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"`
}

// OpenCheckpoint reads a checkpoint: its directory, or the newest one of a directory of checkpoints. It reads all files
// and compares their sizes and hashes, so that a checkpoint that is damaged or incomplete is an error. The error is
// ErrNoCheckpoint if the directory has none.
func OpenCheckpoint(path string) (*Checkpoint, error) {
	_, err := os.Stat(filepath.Join(path, manifestName))
	if err == nil || checkpointPattern.MatchString(filepath.Base(path)) {
		return readCheckpoint(path)
	}
	steps, err := listCheckpoints(path)
	if err != nil {
		return nil, fmt.Errorf("train: OpenCheckpoint: %w", err)
	}
	if len(steps) == 0 {
		return nil, fmt.Errorf("train: OpenCheckpoint: %s: %w", errtext.Name(path), ErrNoCheckpoint)
	}
	return readCheckpoint(filepath.Join(path, checkpointName(steps[len(steps)-1])))
}

// readCheckpoint reads and verifies the checkpoint in a directory.
func readCheckpoint(path string) (*Checkpoint, error) {
	m, err := readManifest(filepath.Join(path, manifestName))
	if err == nil {
		err = m.verify(path)
	}
	if err != nil {
		return nil, fmt.Errorf("train: checkpoint %s: %w", errtext.Name(path), err)
	}
	return &Checkpoint{Path: path, Step: m.Step, Config: m.Config, Data: m.Data}, nil
}

func readManifest(path string) (m manifest, err error) {
	text, err := atomicfile.Read(path, maxManifestBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return m, fmt.Errorf("%s is missing: the directory is no complete checkpoint", manifestName)
	}
	if err != nil {
		return m, err
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	if err := decoder.Decode(&m); err != nil {
		return m, fmt.Errorf("%s: %w", manifestName, err)
	}
	if m.Format != manifestFormat || m.Version != manifestVersion {
		return m, fmt.Errorf("%s has format %s, version %d, want %q, version %d",
			manifestName, errtext.Quote(m.Format), m.Version, manifestFormat, manifestVersion)
	}
	if m.Config, err = canonical(m.Config); err != nil {
		return m, fmt.Errorf("%s: config: %w", manifestName, err)
	}
	if hash := hashOf(m.Config); hash != m.ConfigSHA256 {
		return m, fmt.Errorf("%s: the config has SHA-256 %s, want %s", manifestName, hash, errtext.Quote(m.ConfigSHA256))
	}
	return m, nil
}

// verify compares the files of a checkpoint with the manifest.
func (m manifest) verify(path string) error {
	found, err := describeFiles(path)
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(m.Files)) {
		want := m.Files[name]
		got, ok := found[name]
		switch {
		case !ok:
			return fmt.Errorf("%s is missing, want %d bytes", errtext.Name(name), want.Bytes)
		case got.Bytes != want.Bytes:
			return fmt.Errorf("%s has %d bytes, want %d", errtext.Name(name), got.Bytes, want.Bytes)
		case got.SHA256 != want.SHA256:
			return fmt.Errorf("%s is damaged: its SHA-256 is %s, want %s", errtext.Name(name), got.SHA256, errtext.Quote(want.SHA256))
		}
		delete(found, name)
	}
	for _, name := range slices.Sorted(maps.Keys(found)) {
		return fmt.Errorf("%s is no file of the checkpoint", errtext.Name(name))
	}
	return nil
}

// describeFiles describes all files of a checkpoint but the manifest.
func describeFiles(path string) (map[string]manifestFile, error) {
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, err
	}
	files := map[string]manifestFile{}
	for _, e := range entries {
		if e.Name() == manifestName {
			continue
		}
		if !e.Type().IsRegular() {
			return nil, fmt.Errorf("%s: mode is %v, want a regular file", errtext.Name(e.Name()), e.Type())
		}
		f, err := describeFile(filepath.Join(path, e.Name()))
		if err != nil {
			return nil, err
		}
		files[e.Name()] = f
	}
	return files, nil
}

func describeFile(path string) (f manifestFile, err error) {
	file, err := os.Open(path)
	if err != nil {
		return f, err
	}
	defer file.Close()
	h := sha256.New()
	f.Bytes, err = io.Copy(h, file)
	f.SHA256 = hex.EncodeToString(h.Sum(nil))
	return f, err
}

func hashOf(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// canonical returns the JSON of a value without spaces and with the keys of objects in order.
func canonical(v any) (json.RawMessage, error) {
	text, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("train: config: %w", err)
	}
	tree, err := parseJSON(text)
	if err != nil {
		return nil, fmt.Errorf("train: config: %w", err)
	}
	return json.Marshal(tree)
}

// parseJSON keeps the digits of numbers.
func parseJSON(text []byte) (tree any, err error) {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	err = decoder.Decode(&tree)
	return tree, err
}

// difference describes the first difference of two values in canonical JSON; "" if there is none.
func difference(name string, got, want json.RawMessage) string {
	g, gotErr := parseJSON(got)
	w, wantErr := parseJSON(want)
	if err := errors.Join(gotErr, wantErr); err != nil {
		return err.Error()
	}
	return treeDifference(name, g, w)
}

func treeDifference(name string, got, want any) string {
	g, gotObject := got.(map[string]any)
	w, wantObject := want.(map[string]any)
	if !gotObject || !wantObject {
		if reflect.DeepEqual(got, want) {
			return ""
		}
		return fmt.Sprintf("%s is %s, want %s", errtext.Name(name), jsonText(got), jsonText(want))
	}
	keys := maps.Clone(g)
	maps.Copy(keys, w)
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		a, inGot := g[key]
		b, inWant := w[key]
		field := name + "." + key
		if inGot && inWant {
			if d := treeDifference(field, a, b); d != "" {
				return d
			}
			continue
		}
		if inGot {
			return fmt.Sprintf("%s is %s, want none", errtext.Name(field), jsonText(a))
		}
		return fmt.Sprintf("%s is absent, want %s", errtext.Name(field), jsonText(b))
	}
	return ""
}

// jsonText is a value in a message.
func jsonText(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	if len(text) > 80 || bytes.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' }) {
		return errtext.Quote(string(text))
	}
	return string(text)
}
