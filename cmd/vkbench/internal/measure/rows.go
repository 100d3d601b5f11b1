package measure

import (
	"fmt"
	"time"

	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/cases"
	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/results"
	"github.com/colt5-vulkan/colt5/internal/cli/deviceinfo"
	"github.com/colt5-vulkan/colt5/internal/cli/table"
)

// Columns returns the columns of a table of these cases.
func (r *Runner) Columns(list []cases.SizedCase) []table.Column {
	var name, shape int
	for _, x := range list {
		name, shape = max(name, len(x.Name)), max(shape, len(x.Shape()))
	}
	columns := []table.Column{table.Text("name", "name", name), table.Text("shape", "shape", shape), table.Text("precision", "precision", 0)}
	if r.Steps {
		columns = append(columns, table.Number("step", "step", 0), table.Text("kernel", "kernel", 20), table.Number("gpu_ms", "GPU ms", 8),
			table.Number("time_share", "of all", 5), table.Number("gb_per_s", "GB/s", 6), table.Number("tflop_per_s", "TFLOP/s", 8))
	} else {
		columns = append(columns, table.Number("gpu_ms", "GPU ms", 8), table.Number("gpu_p10_ms", "p10", 8), table.Number("gpu_p90_ms", "p90", 8),
			table.Number("wall_ms", "wall ms", 8), table.Number("gb_per_s", "GB/s", 6), table.Number("tflop_per_s", "TFLOP/s", 8),
			table.Number("peak_share", "of peak", 5), table.Number("workspace_bytes", "workspace", 10),
			table.Number("peak_bytes", "peak memory", 10), table.Number("runs", "runs", 0))
		columns = append(columns, r.Baseline.columns()...)
	}
	for _, key := range []string{"device", "driver", "time", "version", "commit", "os", "cpu"} {
		columns = append(columns, table.Hidden(key))
	}
	return columns
}

// origin returns the values of the hidden columns: where and when a row was measured, and by what.
func (r *Runner) origin() []any {
	return []any{r.Info.Name, deviceinfo.Driver(r.Info), time.Now().UTC().Format(time.RFC3339), r.host.Version, r.host.Commit, r.host.OS, r.host.CPU}
}

// Remarks returns what a reader should know before the rows.
func (r *Runner) Remarks() []string {
	remarks := []string{fmt.Sprintf("%s, %s, Vulkan %s", r.Info.Name, deviceinfo.Driver(r.Info), r.Info.API)}
	if r.Info.Caps.CPU {
		remarks = append(remarks, CPUDriverRemark)
	}
	return append(remarks, r.Baseline.remarks(r.Info)...)
}

// CPUDriverRemark is the remark on a device that is no GPU.
const CPUDriverRemark = "This driver runs on the CPU: the times are no GPU figures, and the rows have no shares of peaks."

// writeRow writes the row of a case. Rows of peaks become the peaks of later rows.
func (r *Runner) writeRow(x cases.SizedCase, t timing) {
	gpu := quantile(t.gpu, 0.5)
	bytes, flops := rate(t.stats.Bytes, gpu), rate(t.stats.Flops, gpu)
	switch x.Name {
	case results.CopyPeak:
		r.copyRate = bytes
	case results.MatmulPeak, results.MatrixPeak + "f32":
		r.flopRate[x.Precision] = max(r.flopRate[x.Precision], flops)
	}
	r.gpu = gpu
	values := []any{x.Name, x.Shape(), x.PrecisionName(), table.Millis(gpu), table.Millis(quantile(t.gpu, 0.1)), table.Millis(quantile(t.gpu, 0.9)),
		table.Millis(quantile(t.wall, 0.5)), scaled(bytes, 1e9), scaled(flops, 1e12), r.peakShare(x, bytes, flops),
		table.Size(t.stats.Workspace), table.Size(t.peak), len(t.gpu)}
	values = append(values, r.Baseline.cells(x.Title(), gpu)...)
	r.Table.Row(append(values, r.origin()...)...)
}

// rate is work per second.
func rate(work, ms float64) float64 {
	if ms <= 0 {
		return 0 // shorter than a tick of the device's clock
	}
	return work / ms * 1e3
}

// scaled converts a rate to a unit. It is nil if the rate is unknown.
func scaled(rate, unit float64) any {
	if rate == 0 {
		return nil
	}
	return rate / unit
}

// peakShare is the larger of the shares of peak bandwidth and peak arithmetic. It is nil before these are known, and on
// CPU drivers, where the measured rates are no peaks: data that fits into the caches moves faster than the large copy,
// and larger products are faster than the measured one.
func (r *Runner) peakShare(x cases.SizedCase, bytes, flops float64) any {
	if r.Info.Caps.CPU {
		return nil
	}
	peak := r.flopRate[x.Precision]
	if r.copyRate == 0 || peak == 0 || x.Matrix.M > 0 {
		return nil
	}
	return table.Share(max(bytes/r.copyRate, flops/peak))
}

// writeSteps writes a row for each step of a case.
func (r *Runner) writeSteps(x cases.SizedCase, t timing) {
	var total float64
	for _, s := range t.steps {
		total += quantile(s, 0.5)
	}
	for i, s := range t.stats.StepTimes {
		ms := quantile(t.steps[i], 0.5)
		var share any
		if total > 0 {
			share = table.Share(ms / total)
		}
		values := []any{x.Name, x.Shape(), x.PrecisionName(), i + 1, s.Name, table.Millis(ms), share, scaled(rate(s.Bytes, ms), 1e9), scaled(rate(s.Flops, ms), 1e12)}
		r.Table.Row(append(values, r.origin()...)...)
	}
}
