package vk

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"sync"
)

// tuning maps a purpose to the kernel variant that was measured to be the fastest on this device. It is stored next to
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
	raw, err := os.ReadFile(t.file)
	if err != nil || json.Unmarshal(raw, &variants) != nil {
		return nil
	}
	return variants
}

// StoredTuning returns the variant that was measured to be the fastest for a purpose, or "". Package pipelines defines the
// names.
func (d *Device) StoredTuning(purpose string) string {
	d.tuning.mu.Lock()
	defer d.tuning.mu.Unlock()
	return d.tuning.variants[purpose]
}

// StoreTuning stores variants by purpose, also on disk unless Options.CacheDir is "-". It keeps the variants of other
// purposes; an empty variant deletes an entry. Existing plans do not change.
func (d *Device) StoreTuning(variants map[string]string) error {
	d.tuning.mu.Lock()
	defer d.tuning.mu.Unlock()
	next := maps.Clone(d.tuning.variants)
	if stored := d.tuning.load(); stored != nil { // another process may have changed the file
		next = stored
	}
	for purpose, variant := range variants {
		if next[purpose] = variant; variant == "" {
			delete(next, purpose)
		}
	}
	if d.tuning.file != "" {
		raw, err := json.MarshalIndent(next, "", "\t")
		if err == nil {
			err = writeFile(d.tuning.file, append(raw, '\n'))
		}
		if err != nil {
			return fmt.Errorf("vk: StoreTuning: %w", err)
		}
	}
	d.tuning.variants = next
	return nil
}
