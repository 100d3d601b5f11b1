package main

import (
	"fmt"
	"strings"

	"github.com/colt5-vulkan/colt5/vk"
)

// baseline is an earlier run of bench; nil: there is none.
type baseline struct {
	path string
	rows map[string]benchRow // by key; of rows for the same, the last one
	keys []string            // in the order of the file
	seen map[string]bool     // that are rows of this run too
}

// readBaseline reads the file that -baseline names.
func readBaseline(path string) (*baseline, error) {
	rows, err := readRows(path)
	if err != nil {
		return nil, usage("-baseline: %w", err)
	}
	b := &baseline{path: path, rows: map[string]benchRow{}, seen: map[string]bool{}}
	for _, r := range rows {
		if _, twice := b.rows[r.key()]; !twice {
			b.keys = append(b.keys, r.key())
		}
		b.rows[r.key()] = r
	}
	return b, nil
}

// columns are those that the table has more.
func (b *baseline) columns() []column {
	if b == nil {
		return nil
	}
	return []column{numbers("baseline_gpu_ms", "earlier", 8), numbers("baseline_ratio", "ratio", 6)}
}

// absent is shown to people where something is missing.
type absent struct{}

func (absent) String() string               { return "absent" }
func (absent) MarshalJSON() ([]byte, error) { return []byte("null"), nil }

// cells are the values of a row with a time; the ratio says how many times faster than the baseline it is.
func (b *baseline) cells(key string, gpu float64) []any {
	if b == nil {
		return nil
	}
	b.seen[key] = true
	r, ok := b.rows[key]
	if !ok {
		return []any{absent{}, nil}
	}
	if gpu <= 0 || r.GPU <= 0 {
		return []any{millis(r.GPU), nil} // shorter than the device's clock can tell
	}
	return []any{millis(r.GPU), r.GPU / gpu}
}

// about says, before the run, what the baseline is of.
func (b *baseline) about(i vk.Info) []string {
	if b == nil {
		return nil
	}
	remarks := []string{fmt.Sprintf("Earlier: %d rows of %s. The ratio is how many times faster than that this run is.", len(b.keys), b.path)}
	told := map[string]bool{}
	for _, key := range b.keys {
		r, remark := b.rows[key], ""
		switch {
		case r.Device == "":
			remark = "The baseline has rows that do not say of what device they are."
		case r.Device != i.Name:
			remark = fmt.Sprintf("The baseline is of another device: %s, %s.", r.Device, r.Driver)
		case r.Driver != driverOf(i):
			remark = fmt.Sprintf("The baseline is of another driver: %s.", r.Driver)
		}
		if remark != "" && !told[remark] {
			told[remark] = true
			remarks = append(remarks, remark)
		}
	}
	return remarks
}

// rest says, after the run, what rows of the baseline it did not have; "" if it had all.
func (b *baseline) rest() string {
	if b == nil {
		return ""
	}
	const most = 12
	var missing []string
	for _, key := range b.keys {
		if !b.seen[key] {
			missing = append(missing, key)
		}
	}
	if len(missing) == 0 {
		return ""
	}
	more := ""
	if n := len(missing) - most; n > 0 {
		missing, more = missing[:most], fmt.Sprintf(", and %d more", n)
	}
	return "Not run, but in the baseline: " + strings.Join(missing, ", ") + more + "."
}

// driverOf names a device's driver.
func driverOf(i vk.Info) string { return strings.TrimSpace(i.Driver + " " + i.DriverInfo) }
