package vk

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"sync"
	"time"

	"github.com/colt5-vulkan/colt5/internal/atomicfile"
)

const (
	maxTuningBytes = 16 << 20        // of the file; a larger one is treated as damaged
	tuningLockTime = 5 * time.Second // longest wait for another process that stores variants
)

// tuning has the kernel variants that were measured to be the fastest on this device, by key. It is stored next to
// the pipeline cache, one file per device and driver version. Without the file kernels use their default variants.
type tuning struct {
	mu       sync.Mutex
	file     string // empty: not stored
	variants map[string]string
}

// open reads the file next to the pipeline cache. A damaged file is treated as missing.
func (t *tuning) open(d *Device) {
	t.variants = map[string]string{}
	if d.cache.file == "" {
		return
	}
	t.file = filepath.Join(filepath.Dir(d.cache.file), fmt.Sprintf("tuning-%s-%08x.json", d.info.UUID, d.info.driver))
	if stored := t.load(); stored != nil {
		t.variants = stored
	}
}

// load returns the contents of the file, nil if it is missing or damaged.
func (t *tuning) load() (variants map[string]string) {
	if t.file == "" {
		return nil
	}
	raw, err := atomicfile.Read(t.file, maxTuningBytes)
	if err != nil || json.Unmarshal(raw, &variants) != nil {
		return nil
	}
	return variants
}

// StoredTuning returns the kernel variant that StoreTuning has stored for a key, or "". Package pipelines defines keys
// and variants.
func (d *Device) StoredTuning(key string) string {
	d.tuning.mu.Lock()
	defer d.tuning.mu.Unlock()
	return d.tuning.variants[key]
}

// StoreTuning stores kernel variants by key, also on disk unless Options.CacheDir is "-". It keeps the variants of other
// keys, also those that other devices and processes have stored meanwhile; an empty variant deletes an entry. Command
// lists that were already recorded do not change. After an error the variants apply to this device all the same, until it
// is closed.
func (d *Device) StoreTuning(variants map[string]string) error {
	d.tuning.mu.Lock()
	defer d.tuning.mu.Unlock()
	if err := d.tuning.store(variants); err != nil {
		return fmt.Errorf("vk: StoreTuning: the variants are not stored, and apply until the device is closed: %w", err)
	}
	return nil
}

func (t *tuning) store(variants map[string]string) (err error) {
	if t.file != "" {
		unlock, e := t.lock()
		defer unlock()
		err = e
	}
	next := maps.Clone(t.variants)
	if stored := t.load(); stored != nil { // another process may have changed the file
		next = stored
	}
	for key, variant := range variants {
		if next[key] = variant; variant == "" {
			delete(next, key)
		}
	}
	t.variants = next
	if t.file == "" || err != nil {
		return err
	}
	raw, err := json.MarshalIndent(next, "", "\t")
	if err != nil {
		return err
	}
	return writeFile(t.file, append(raw, '\n'))
}

// lock excludes the other devices and processes that store variants. On systems without locks it does nothing.
func (t *tuning) lock() (unlock func(), err error) {
	if err := makeDir(t.file); err != nil {
		return func() {}, err
	}
	for end := time.Now().Add(tuningLockTime); ; time.Sleep(time.Millisecond) {
		unlock, err := atomicfile.Lock(t.file + ".lock")
		switch {
		case err == nil:
			return unlock, nil
		case errors.Is(err, errors.ErrUnsupported):
			return func() {}, nil
		case !errors.Is(err, atomicfile.ErrLocked) || time.Now().After(end):
			return func() {}, fmt.Errorf("%s.lock: %w", t.file, err)
		}
	}
}
