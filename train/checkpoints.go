package train

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"time"

	"github.com/colt5-vulkan/colt5/internal/atomicfile"
	"github.com/colt5-vulkan/colt5/internal/errtext"
)

// Checkpoints is a directory of checkpoints that one process writes. Its methods must not be called at the same time.
type Checkpoints struct {
	dir    string
	keep   int
	config json.RawMessage
	unlock func()
}

// CheckpointOptions say how checkpoints are kept.
type CheckpointOptions struct {
	// Config is what a run must not change when it resumes: of the model, the optimiser, and the data. It is stored as
	// JSON, and compared when a checkpoint is opened.
	Config any
	Keep   int // the last ones are kept; 0: 3; below 0: all are
}

const (
	lockName     = ".lock"
	abandonedAge = 24 * time.Hour // of temporary directories, where there are no locks
)

var (
	checkpointPattern = regexp.MustCompile(`^step-([0-9]{12})$`)
	temporaryPattern  = regexp.MustCompile(`^\.checkpoint-[0-9a-f]{16}\.tmp$`)
)

func checkpointName(step int64) string { return fmt.Sprintf("step-%012d", step) }

const maxStep = 999_999_999_999 // 12 digits

// OpenCheckpoints opens a directory, and makes it if there is none. It locks it against other processes until Close,
// and removes what processes have left behind that were killed while they wrote or removed a checkpoint.
func OpenCheckpoints(dir string, o CheckpointOptions) (*Checkpoints, error) {
	config, err := canonical(o.Config)
	if err != nil {
		return nil, err
	}
	c := &Checkpoints{dir: dir, keep: o.Keep, config: config}
	if c.keep == 0 {
		c.keep = 3
	}
	if err := c.open(); err != nil {
		return nil, fmt.Errorf("train: OpenCheckpoints: %w", err)
	}
	return c, nil
}

func (c *Checkpoints) open() error {
	if err := os.MkdirAll(c.dir, 0o777); err != nil {
		return err
	}
	age := time.Duration(0)
	unlock, err := atomicfile.Lock(filepath.Join(c.dir, lockName))
	switch {
	case errors.Is(err, atomicfile.ErrLocked):
		return fmt.Errorf("%s: another run writes checkpoints there: %w", errtext.Name(c.dir), err)
	case errors.Is(err, errors.ErrUnsupported):
		unlock, age = func() {}, abandonedAge
	case err != nil:
		return err
	}
	c.unlock = unlock
	if err := c.removeAbandoned(age); err != nil {
		return errors.Join(err, c.Close())
	}
	return nil
}

// removeAbandoned removes temporary directories that have not changed for some time.
func (c *Checkpoints) removeAbandoned(age time.Duration) error {
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !e.IsDir() || !temporaryPattern.MatchString(e.Name()) {
			continue
		}
		stat, err := e.Info()
		if err != nil {
			return err
		}
		if time.Since(stat.ModTime()) < age {
			continue
		}
		if err := os.RemoveAll(filepath.Join(c.dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// listCheckpoints returns the steps of the checkpoints of a directory, in order.
func listCheckpoints(dir string) ([]int64, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var steps []int64
	for _, e := range entries {
		parts := checkpointPattern.FindStringSubmatch(e.Name())
		if parts == nil {
			continue
		}
		step, err := strconv.ParseInt(parts[1], 10, 64)
		if err != nil {
			return nil, err
		}
		steps = append(steps, step)
	}
	slices.Sort(steps)
	return steps, nil
}

// Latest opens the newest checkpoint, as OpenCheckpoint does, and compares its config. The error is ErrNoCheckpoint if
// there is none. A checkpoint that is damaged, or of another config, is an error, even if there are older ones: whoever
// wants one of those removes what is newer.
func (c *Checkpoints) Latest() (*Checkpoint, error) {
	steps, err := listCheckpoints(c.dir)
	if err != nil {
		return nil, fmt.Errorf("train: %w", err)
	}
	if len(steps) == 0 {
		return nil, fmt.Errorf("train: %s: %w", errtext.Name(c.dir), ErrNoCheckpoint)
	}
	step := steps[len(steps)-1]
	checkpoint, err := readCheckpoint(filepath.Join(c.dir, checkpointName(step)))
	if err != nil {
		return nil, err
	}
	if checkpoint.Step != step {
		return nil, fmt.Errorf("train: checkpoint %s is of step %d, want %d", errtext.Name(checkpoint.Path), checkpoint.Step, step)
	}
	if err := checkpoint.CheckConfig(c.config); err != nil {
		return nil, err
	}
	return checkpoint, nil
}

// Save writes the checkpoint of a run that has done some steps, and returns when it would survive a power failure.
// write creates its files in a directory, without subdirectories; data is stored as JSON. If Save fails, or the process
// is killed, the earlier checkpoints are intact. Only then are those removed that are not to be kept; if that fails,
// the checkpoint is in place although Save returns an error.
//
// The step must be after that of the newest checkpoint. If there is a checkpoint of the step, the error wraps
// [fs.ErrExist].
func (c *Checkpoints) Save(step int64, data any, write func(dir string) error) error {
	if step < 0 || step > maxStep {
		return fmt.Errorf("train: Save: step is %d, want 0 to %d", step, int64(maxStep))
	}
	if err := c.save(step, data, write); err != nil {
		return fmt.Errorf("train: Save of step %d: %w", step, err)
	}
	if err := c.removeOld(); err != nil {
		return fmt.Errorf("train: Save of step %d: the checkpoint is in place, but an old one was not removed: %w", step, err)
	}
	return nil
}

func (c *Checkpoints) save(step int64, data any, write func(dir string) error) (err error) {
	path := filepath.Join(c.dir, checkpointName(step))
	steps, err := listCheckpoints(c.dir)
	if err != nil {
		return err
	}
	if slices.Contains(steps, step) {
		return fmt.Errorf("%s: %w", errtext.Name(path), fs.ErrExist)
	}
	if len(steps) > 0 && step < steps[len(steps)-1] {
		return fmt.Errorf("the newest checkpoint is of step %d, want a step after it", steps[len(steps)-1])
	}
	position, err := json.Marshal(data)
	if err != nil {
		return fmt.Errorf("data: %w", err)
	}
	temporary := c.temporary()
	if err := os.Mkdir(temporary, 0o777); err != nil {
		return err
	}
	renamed := false
	defer func() { // runs also if write panics
		if !renamed {
			err = errors.Join(err, os.RemoveAll(temporary))
		}
	}()
	if err := write(temporary); err != nil {
		return err
	}
	m := manifest{
		Format: manifestFormat, Version: manifestVersion, Step: step, Config: c.config, ConfigSHA256: hashOf(c.config), Data: position,
	}
	if m.Files, err = describeFiles(temporary); err != nil {
		return err
	}
	for name := range m.Files {
		if err := syncFile(filepath.Join(temporary, name)); err != nil {
			return err
		}
	}
	text, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	if err := atomicfile.Write(filepath.Join(temporary, manifestName), text, []byte("\n")); err != nil { // syncs the directory too
		return err
	}
	if err := os.Rename(temporary, path); err != nil {
		return err
	}
	renamed = true
	return atomicfile.SyncDir(c.dir)
}

// temporary returns the path of a new temporary directory.
func (c *Checkpoints) temporary() string {
	return filepath.Join(c.dir, fmt.Sprintf(".checkpoint-%016x.tmp", rand.Uint64()))
}

func syncFile(path string) error {
	file, err := os.OpenFile(path, os.O_RDWR, 0) // Windows syncs only files that are open for writing
	if err != nil {
		return err
	}
	return errors.Join(file.Sync(), file.Close())
}

// removeOld removes all checkpoints but the last ones. A checkpoint is renamed first: one that is removed in part has
// no name of a checkpoint.
func (c *Checkpoints) removeOld() error {
	if c.keep < 0 {
		return nil
	}
	steps, err := listCheckpoints(c.dir)
	if err != nil {
		return err
	}
	for _, step := range steps[:max(len(steps)-c.keep, 0)] {
		temporary := c.temporary()
		if err := os.Rename(filepath.Join(c.dir, checkpointName(step)), temporary); err != nil {
			return err
		}
		if err := os.RemoveAll(temporary); err != nil {
			return err
		}
	}
	return nil
}

// Close unlocks the directory. Closing it again does nothing.
func (c *Checkpoints) Close() error {
	if c == nil || c.unlock == nil {
		return nil
	}
	c.unlock()
	c.unlock = nil
	return nil
}
