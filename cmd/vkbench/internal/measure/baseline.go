package measure

import (
	"fmt"
	"strings"

	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/results"
	"github.com/colt5-vulkan/colt5/internal/cli/command"
	"github.com/colt5-vulkan/colt5/internal/cli/deviceinfo"
	"github.com/colt5-vulkan/colt5/internal/cli/table"
	"github.com/colt5-vulkan/colt5/vk"
)

// Baseline holds the rows of an earlier run. A nil Baseline is none.
type Baseline struct {
	path string
	rows map[string]results.Row // by key; the last one of each key
	keys []string               // in the order of the file
	seen map[string]bool        // keys that are in this run too

	compared []comparison // in the order of this run, without peaks
}

// comparison has the GPU times of a row in both runs, in ms.
type comparison struct {
	key         string
	before, now float64
}

// ReadBaseline reads the file of flag -baseline. Errors are usage errors.
func ReadBaseline(path string) (*Baseline, error) {
	rows, err := results.ReadFile(path)
	if err != nil {
		return nil, command.Usagef("-baseline: %w", err)
	}
	b := &Baseline{path: path, rows: map[string]results.Row{}, seen: map[string]bool{}}
	for _, r := range rows {
		if _, ok := b.rows[r.Key()]; !ok {
			b.keys = append(b.keys, r.Key())
		}
		b.rows[r.Key()] = r
	}
	return b, nil
}

// columns returns the additional columns of the table.
func (b *Baseline) columns() []table.Column {
	if b == nil {
		return nil
	}
	return []table.Column{table.Number("baseline_gpu_ms", "earlier", 8), table.Number("baseline_ratio", "ratio", 6)}
}

// cells returns the additional values of a row. The ratio is the earlier time over the present one.
func (b *Baseline) cells(key string, gpu float64) []any {
	if b == nil {
		return nil
	}
	b.seen[key] = true
	r, ok := b.rows[key]
	if !ok {
		return []any{table.Absent{}, nil}
	}
	if gpu <= 0 || r.GPU <= 0 {
		return []any{table.Millis(r.GPU), nil} // shorter than a tick of the device's clock
	}
	if !r.IsPeak() {
		b.compared = append(b.compared, comparison{key, r.GPU, gpu})
	}
	return []any{table.Millis(r.GPU), r.GPU / gpu}
}

// Check returns an error that lists the rows whose GPU time is more than so many percent above that of the baseline. If no
// row could be compared, that is an error too. Peaks do not count: they measure the device, and every run has them.
func (b *Baseline) Check(percent float64) error {
	if len(b.compared) == 0 {
		return fmt.Errorf("-fail-above: no row of this run can be compared with one of %s", b.path)
	}
	var slower []string
	for _, c := range b.compared {
		if c.now > c.before*(1+percent/100) {
			slower = append(slower, fmt.Sprintf("   %s: %s ms, before %s ms, +%s %%",
				c.key, table.Significant(c.now), table.Significant(c.before), table.Significant(100*(c.now/c.before-1))))
		}
	}
	if slower == nil {
		return nil
	}
	return fmt.Errorf("%d of %s took more than %v %% longer than in %s:\n%s",
		len(slower), command.Count(len(b.compared), "row"), percent, b.path, strings.Join(slower, "\n"))
}

// remarks describes the baseline, and how its device or driver differ.
func (b *Baseline) remarks(i vk.Info) []string {
	if b == nil {
		return nil
	}
	remarks := []string{fmt.Sprintf("Earlier: %s of %s. The ratio is how many times faster than that this run is.", command.Count(len(b.keys), "row"), b.path)}
	seen := map[string]bool{}
	for _, key := range b.keys {
		r, remark := b.rows[key], ""
		switch {
		case r.Device == "":
			remark = "The baseline has rows that do not name their device."
		case r.Device != i.Name:
			remark = fmt.Sprintf("The baseline is of another device: %s, %s.", r.Device, r.Driver)
		case r.Driver != deviceinfo.Driver(i):
			remark = fmt.Sprintf("The baseline is of another driver: %s.", r.Driver)
		}
		if remark != "" && !seen[remark] {
			seen[remark] = true
			remarks = append(remarks, remark)
		}
	}
	return remarks
}

// Missing names the rows of the baseline that this run did not have. It is "" if there are none.
func (b *Baseline) Missing() string {
	if b == nil {
		return ""
	}
	const limit = 12
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
	if n := len(missing) - limit; n > 0 {
		missing, more = missing[:limit], fmt.Sprintf(", and %d more", n)
	}
	return "Not run, but in the baseline: " + strings.Join(missing, ", ") + more + "."
}
