package report

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/dims"
	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/results"
	"github.com/colt5-vulkan/colt5/internal/cli/command"
	"github.com/colt5-vulkan/colt5/internal/cli/deviceinfo"
	"github.com/colt5-vulkan/colt5/internal/cli/table"
	"github.com/colt5-vulkan/colt5/vk"
)

// fact is one of the few numbers at the top of a page.
type fact struct{ Label, Value, Note string }

var precisions = []string{"f32", "f16", "bf16"}

// lead says what was measured, on what, when, and by which commit.
func lead(i vk.Info, date string, rows []results.Row) string {
	var peaks, lengths int
	cases, formats := map[string]bool{}, map[string]bool{}
	for _, r := range rows {
		switch {
		case r.IsPeak():
			peaks++
		case r.IsLength():
			lengths++
		default:
			cases[r.Name] = true
		}
		if !r.IsPeak() {
			formats[r.Precision] = true
		}
	}
	var parts []string
	if peaks > 0 {
		parts = append(parts, command.Count(peaks, "rate")+" of copies and matrix products")
	}
	if len(cases) > 0 {
		parts = append(parts, command.Count(len(cases), "module and kernel case"))
	}
	if lengths > 0 {
		parts = append(parts, command.Count(lengths, "row")+" of growing sequence lengths")
	}
	what := "Nothing"
	if len(parts) > 0 {
		what = enumerate(parts)
		if f := slices.DeleteFunc(slices.Clone(precisions), func(f string) bool { return !formats[f] }); len(f) > 0 {
			what += " in " + enumerate(f)
		}
	}
	text := fmt.Sprintf("%s, measured on %s with vkbench", what, date)
	origin := results.Row{}
	if len(rows) > 0 {
		origin = rows[0]
	}
	if origin.Commit != "" {
		text += fmt.Sprintf(" %s, commit %s", origin.Version, origin.Commit)
	}
	text += fmt.Sprintf("; driver %s, Vulkan %s. GPU times are medians.", deviceinfo.Driver(i), i.API)
	if origin.OS != "" {
		text += fmt.Sprintf(" Host: %s; %s.", origin.OS, origin.CPU)
	}
	return text
}

// enumerate joins words as in "a, b and c".
func enumerate(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:len(words)-1], ", ") + " and " + words[len(words)-1]
}

// facts returns the numbers that matter most, those that the rows suffice for.
func facts(rows []results.Row) []fact {
	rows = results.Latest(rows)
	return slices.Concat(rateFacts(rows), speedupFacts(rows), lengthFacts(rows))
}

// rateFacts are the best measured rates.
func rateFacts(rows []results.Row) []fact {
	copies, products := results.Rates(rows)
	label := "measured "
	if results.HavePeaks(rows) {
		label = "peak "
	}
	var list []fact
	if copies > 0 {
		list = append(list, fact{label + "bandwidth", rate(copies, "GB/s", "MB/s", "kB/s"), "of a large copy, reads and writes"})
	}
	for _, p := range precisions {
		if products[p] > 0 {
			list = append(list, fact{label + "rate of " + p, rate(products[p], "TFLOP/s", "GFLOP/s", "MFLOP/s"), "of matrix products"})
		}
	}
	return list
}

// rate formats a rate in the first of these units, each a thousandth of the one before, in which it is 1 or more.
func rate(x float64, units ...string) string {
	for ; x < 1 && len(units) > 1; units = units[1:] {
		x *= 1000
	}
	return table.Significant(x) + " " + units[0]
}

// speedupFacts compare the 16-bit precisions with float32, over the cases that were measured in both.
func speedupFacts(rows []results.Row) []fact {
	times := map[string]map[string]float64{} // GPU ms by case and shape, then by precision
	for _, r := range rows {
		if r.GPU > 0 && !r.IsPeak() && !r.IsLength() {
			key := r.Name + " " + r.Shape
			if times[key] == nil {
				times[key] = map[string]float64{}
			}
			times[key][r.Precision] = r.GPU
		}
	}
	var list []fact
	for _, p := range precisions[1:] {
		var ratios []float64
		for _, t := range times {
			if t[p] > 0 && t["f32"] > 0 {
				ratios = append(ratios, t["f32"]/t[p])
			}
		}
		if len(ratios) > 0 {
			slices.Sort(ratios)
			median := (ratios[(len(ratios)-1)/2] + ratios[len(ratios)/2]) / 2
			list = append(list, fact{"f32 time / " + p + " time", fmt.Sprintf("%.2f", median), "median of " + command.Count(len(ratios), "case")})
		}
	}
	return list
}

// lengthFacts are about the longest sequence of the block, and about the longest one that dense attention was measured
// with too, each in the precision that is fastest there.
func lengthFacts(rows []results.Row) []fact {
	times := map[string]map[int]results.Row{} // the fastest row by case and tokens
	for _, r := range rows {
		size, err := dims.Parse(r.Shape)
		if !r.IsLength() || err != nil || len(size) < 2 || size[0] != 1 || r.GPU <= 0 {
			continue
		}
		if times[r.Name] == nil {
			times[r.Name] = map[int]results.Row{}
		}
		if old, ok := times[r.Name][size[1]]; !ok || r.GPU < old.GPU {
			times[r.Name][size[1]] = r
		}
	}
	block, dense := times[results.BlockLength], times[results.DenseAttention]
	if len(block) == 0 {
		return nil
	}
	longest := slices.Max(slices.Collect(maps.Keys(block)))
	r := block[longest]
	list := []fact{{"transformer block, " + table.Thousands(fmt.Sprint(longest)) + " tokens", table.Time(r.GPU),
		r.Precision + ", " + table.Time(r.GPU/float64(longest)) + " per token"}}
	common := 0
	for n := range dense {
		if _, ok := block[n]; ok {
			common = max(common, n)
		}
	}
	if common > 0 {
		b, d := block[common], dense[common]
		list = append(list, fact{
			"dense attention / block, " + table.Thousands(fmt.Sprint(common)) + " tokens", table.Significant(d.GPU / b.GPU),
			fmt.Sprintf("%s in %s, %s in %s", table.Time(d.GPU), d.Precision, table.Time(b.GPU), b.Precision)})
	}
	return list
}
