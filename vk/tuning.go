package vk

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"sync"
)

// tuning is which variant of a kernel was measured to be the fastest on a device, by what it is for. It lies beside the pipeline cache, for a
// device and driver version, and may be deleted like that: kernels then take what they take elsewhere.
type tuning struct {
	mu      sync.Mutex
	file    string // empty: not kept
	choices map[string]string
}

// open reads what is kept beside a pipeline cache. What is damaged is as good as missing.
func (t *tuning) open(d *Device) {
	t.choices = map[string]string{}
	if d.cache.file == "" {
		return
	}
	t.file = filepath.Join(filepath.Dir(d.cache.file), fmt.Sprintf("tuning-%s-%08x.json", d.info.UUID, d.info.driver))
	if kept := t.kept(); kept != nil {
		t.choices = kept
	}
}

// kept is what the file holds; nil if it is missing or damaged.
func (t *tuning) kept() (choices map[string]string) {
	if t.file == "" {
		return nil
	}
	raw, err := os.ReadFile(t.file)
	if err != nil || json.Unmarshal(raw, &choices) != nil {
		return nil
	}
	return choices
}

// Tuned is the variant that was measured to be the fastest for a purpose, "" if none was. Package pipelines knows the names.
func (d *Device) Tuned(purpose string) string {
	d.tuning.mu.Lock()
	defer d.tuning.mu.Unlock()
	return d.tuning.choices[purpose]
}

// Tune keeps choices, besides those that are known for other purposes, on disk too where Options.CacheDir does not forbid it. An empty choice is
// forgotten. Plans that exist stay as they are.
func (d *Device) Tune(choices map[string]string) error {
	d.tuning.mu.Lock()
	defer d.tuning.mu.Unlock()
	next := maps.Clone(d.tuning.choices)
	if kept := d.tuning.kept(); kept != nil { // another process may have measured something meanwhile, or forgotten it
		next = kept
	}
	for purpose, choice := range choices {
		if next[purpose] = choice; choice == "" {
			delete(next, purpose)
		}
	}
	if d.tuning.file != "" {
		raw, err := json.MarshalIndent(next, "", "\t")
		if err == nil {
			err = writeKept(d.tuning.file, append(raw, '\n'))
		}
		if err != nil {
			return fmt.Errorf("vk: Tune: %w", err)
		}
	}
	d.tuning.choices = next
	return nil
}
