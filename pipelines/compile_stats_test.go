package pipelines

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"

	"github.com/stretchr/testify/assert"
)

// driverStats are the statistics of a driver's compiler that TestCompiles reads, under the driver's names. Several
// names separated by | are those of different versions of the driver.
type driverStats struct {
	columns []string // of the table, the first one for registers
	spills  []string // have to be reported, and zero
}

// compilers are the drivers that have to report spills, by vk.Info.Driver. Every statistic of spills below counts
// accesses to memory or bytes of it, except RADV's "Spilled SGPRs", which go to lanes of VGPRs: no kernel has any, and
// none should get some unnoticed. NVK's "Spills to reg" go from uniform registers to others, and are allowed. "Subgroup
// size" is a property in Vulkan, not a statistic.
var compilers = map[string]driverStats{
	"radv": { // AMD
		columns: []string{"VGPRs", "SGPRs", "Subgroup size", "LDS size", "Subgroups per SIMD", "Code size"},
		spills:  []string{"Spilled VGPRs", "Spilled SGPRs", "Scratch size"},
	},
	"Intel open-source Mesa driver": { // ANV. Its "Scratch Memory Size" is 0 where 1,000 registers spill; "GRF registers" is 0 before Xe3.
		columns: []string{"Max live registers", "GRF registers", "Subgroup size", "Workgroup Memory Size", "Code size"},
		spills:  []string{"Spills|Spill Count", "Fills|Fill Count"},
	},
	"turnip Mesa driver": { // Qualcomm Adreno. A register has four words. STP and LDP store to private memory and load from it.
		columns: []string{"Registers used", "Subgroup size", "Max Waves Per Core", "Code size"},
		spills:  []string{"STP Count", "LDP Count"},
	},
	"Honeykrisp": { // Apple. A register has 16 bits.
		columns: []string{"GPRs", "Subgroup size", "Threads", "Code size"},
		spills:  []string{"Spills", "Fills", "Scratch"},
	},
	"NVK": { // NVIDIA
		columns: []string{"Number of GPRs", "Subgroup size", "Max warps/SM", "Code size", "Spills to reg"},
		spills:  []string{"Spills to memory", "Fills from memory", "SLM size"},
	},
	"NVIDIA": {columns: []string{"Register Count", "Subgroup size", "Stack Size", "Binary Size"}},
}

// statValue returns a statistic under any of its names.
func statValue(stats map[string]float64, names string) (float64, bool) {
	for name := range strings.SplitSeq(names, "|") {
		if v, ok := stats[name]; ok {
			return v, true
		}
	}
	return 0, false
}

// unreported lists the statistics of spills that are missing.
func (d driverStats) unreported(stats map[string]float64) (list []string) {
	for _, name := range d.spills {
		if _, ok := statValue(stats, name); !ok {
			list = append(list, name)
		}
	}
	return list
}

// nonzeroSpills lists the statistics of spills that are not zero. Those of a driver that is not in compilers are
// recognised by their names.
func (d driverStats) nonzeroSpills(stats map[string]float64) (list []string) {
	for name, value := range stats {
		lower := strings.ToLower(name)
		known := slices.ContainsFunc(d.spills, func(names string) bool { return slices.Contains(strings.Split(names, "|"), name) })
		guessed := d.spills == nil && (strings.Contains(lower, "spill") || strings.Contains(lower, "scratch") || lower == "fill count")
		if value != 0 && (known || guessed) {
			list = append(list, fmt.Sprintf("%s: %g", name, value))
		}
	}
	slices.Sort(list)
	return list
}

// compiled is the result for one kernel.
type compiled struct {
	name, config string             // of the kernel
	seconds      float64            // of CPU time to compile it
	reused       bool               // an earlier run has compiled it
	stats        map[string]float64 // empty where the driver has none
}

// table formats a row for each kernel name, or a few names: the number of kernels, the range of each statistic and of
// the compile time, and the config with the largest value of the first statistic.
func (d driverStats) table(made []compiled) string {
	columns := slices.DeleteFunc(slices.Concat(d.columns, d.spills), func(names string) bool {
		return !slices.ContainsFunc(made, func(k compiled) bool { _, ok := statValue(k.stats, names); return ok })
	})
	byName := map[string][]compiled{}
	for _, k := range made {
		name := tableNames.Replace(k.name)
		byName[name] = append(byName[name], k)
	}
	var out bytes.Buffer
	w := tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)
	fmt.Fprint(w, "kernel\tnumber")
	for _, names := range columns {
		fmt.Fprintf(w, "\t%s", strings.Split(names, "|")[0])
	}
	fmt.Fprintln(w, "\tcompile s\tconfig of the first maximum")
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		list := byName[name]
		fmt.Fprintf(w, "%s\t%d", name, len(list))
		for _, names := range columns {
			fmt.Fprint(w, "\t"+valueRange(list, "%g", func(k compiled) float64 { v, _ := statValue(k.stats, names); return v }))
		}
		most := func(k compiled) float64 { return k.seconds }
		fmt.Fprint(w, "\t"+valueRange(list, "%.2f", most))
		if len(columns) > 0 {
			most = func(k compiled) float64 { v, _ := statValue(k.stats, columns[0]); return v }
		}
		slices.SortFunc(list, func(a, b compiled) int { return cmp.Or(cmp.Compare(most(b), most(a)), cmp.Compare(a.config, b.config)) })
		fmt.Fprintf(w, "\t%s\n", list[0].config)
	}
	w.Flush()
	return out.String()
}

// families returns a line for each shader: its stem, the number of kernels, how many spill, the most registers, and the longest
// time to compile, separated by tabs.
func (d driverStats) families(made []compiled, stems []string) string {
	byStem := map[string][]compiled{}
	for _, k := range made {
		stem := variant(k.name, stems)
		byStem[stem] = append(byStem[stem], k)
	}
	var out strings.Builder
	for _, stem := range slices.Sorted(maps.Keys(byStem)) {
		var spill int
		var registers, seconds float64
		for _, k := range byStem[stem] {
			if len(d.nonzeroSpills(k.stats)) > 0 {
				spill++
			}
			seconds = max(seconds, k.seconds)
			if len(d.columns) > 0 {
				v, _ := statValue(k.stats, d.columns[0])
				registers = max(registers, v)
			}
		}
		fmt.Fprintf(&out, "%s\t%d\t%d\t%g\t%.1f\n", stem, len(byStem[stem]), spill, registers, seconds)
	}
	return out.String()
}

// tableNames removes from the name of a kernel what hardly changes its registers.
var tableNames = strings.NewReplacer(" partial", "", " gathered", "", " scattered", "")

// valueRange formats the smallest and the largest value of a list.
func valueRange(list []compiled, format string, value func(compiled) float64) string {
	least, most := math.Inf(1), math.Inf(-1)
	for _, k := range list {
		least, most = min(least, value(k)), max(most, value(k))
	}
	from, to := fmt.Sprintf(format, least), fmt.Sprintf(format, most)
	if from == to {
		return to
	}
	return from + "-" + to
}

// summary is one line about all kernels.
func (d driverStats) summary(made []compiled) string {
	var spill, reused int
	var total float64
	var slowest compiled
	for _, k := range made {
		if len(d.nonzeroSpills(k.stats)) > 0 {
			spill++
		}
		if k.reused {
			reused++
		}
		total += k.seconds
		if k.seconds >= slowest.seconds {
			slowest = k
		}
	}
	spilled := fmt.Sprintf("%d spill", spill)
	if d.spills == nil {
		spilled = "the driver does not report spills"
	} else if missing := d.unreported(made[0].stats); missing != nil {
		spilled = "the driver does not report " + strings.Join(missing, ", ")
	}
	return fmt.Sprintf("%d kernels, %d of them compiled by an earlier run, %s, %.1f s of CPU time, at most %.2f s: %s with %s",
		len(made), reused, spilled, total, slowest.seconds, slowest.name, slowest.config)
}

// TestCompileStats checks that spills and missing statistics are found.
func TestCompileStats(t *testing.T) {
	amd, intel, other := compilers["radv"], compilers["Intel open-source Mesa driver"], driverStats{}
	none := map[string]float64{"VGPRs": 256, "Spilled SGPRs": 0, "Spilled VGPRs": 0, "Scratch size": 0, "Fill Count": 0}
	assert.Empty(t, amd.nonzeroSpills(none))
	assert.Empty(t, amd.unreported(none))
	assert.Equal(t, []string{"Spills|Spill Count"}, intel.unreported(none))
	some := map[string]float64{"Spilled VGPRs": 1, "Scratch size": 16, "Fill Count": 3, "VGPRs": 9}
	assert.Equal(t, []string{"Scratch size: 16", "Spilled VGPRs: 1"}, amd.nonzeroSpills(some))
	assert.Equal(t, []string{"Fill Count: 3"}, intel.nonzeroSpills(some))
	assert.Equal(t, []string{"Fill Count: 3", "Scratch size: 16", "Spilled VGPRs: 1"}, other.nonzeroSpills(some))
	assert.Empty(t, compilers["NVK"].nonzeroSpills(map[string]float64{"Spills to reg": 7, "Spills to memory": 0}))

	made := []compiled{{"a", "big", 0.5, true, map[string]float64{"Spill Count": 2, "Max live registers": 9}}, {"a", "small", 2, false, map[string]float64{"Max live registers": 3}}}
	assert.Equal(t, `kernel  number  Max live registers  Spills  compile s  config of the first maximum
a       2       3-9                 0-2     0.50-2.00  big
`, intel.table(made))
	made = append(made, compiled{"a_b_c 32x32", "", 0.25, false, map[string]float64{"Spill Count": 0, "Max live registers": 70}})
	assert.Equal(t, "a\t2\t1\t9\t2.0\na_b\t1\t0\t70\t0.2\n", intel.families(made, []string{"a", "a_b"}))
	made = made[:2]
	assert.Equal(t, "2 kernels, 1 of them compiled by an earlier run, the driver does not report Fills|Fill Count, 2.5 s of CPU time, at most 2.00 s: a with small", intel.summary(made))
	assert.Equal(t, "2 kernels, 1 of them compiled by an earlier run, the driver does not report spills, 2.5 s of CPU time, at most 2.00 s: a with small", other.summary(made))
}
