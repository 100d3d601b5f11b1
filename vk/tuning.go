package vk

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"sync"
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
	raw, err := os.ReadFile(t.file)
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
// keys; an empty variant deletes an entry. Command lists that were already recorded do not change.
func (d *Device) StoreTuning(variants map[string]string) error {
	d.tuning.mu.Lock()
	defer d.tuning.mu.Unlock()
	next := maps.Clone(d.tuning.variants)
	if stored := d.tuning.load(); stored != nil { // another process may have changed the file
		next = stored
	}
	for key, variant := range variants {
		if next[key] = variant; variant == "" {
			delete(next, key)
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
