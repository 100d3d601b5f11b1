package report

import (
	"fmt"
	"slices"

	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/dims"
	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/results"
	"github.com/colt5-vulkan/colt5/internal/cli/table"
)

// tableOfRows is a table of a page.
type tableOfRows struct {
	ID, Title, Note string
	Columns         []string
	TextColumns     int // the number of columns that hold text; they come first
	Rows            [][]string
}

// tablesOf sorts rows into the tables of a page. Tables without rows are left out.
func tablesOf(rows []results.Row) []tableOfRows {
	measured := []string{"GPU ms", "p10", "p90", "wall ms", "GB/s", "TFLOP/s", "of peak", "workspace", "peak memory", "runs"}
	columns := append([]string{"name", "shape", "precision"}, measured...)
	peaks := tableOfRows{ID: "peaks", Title: "Rates of copies and products", TextColumns: 3,
		Columns: []string{"name", "shape", "precision", "GPU ms", "GB/s", "TFLOP/s"},
		Note:    "What other rows are compared with: a large copy, a large float32 product, and products of cooperative matrices in registers."}
	cases := tableOfRows{ID: "cases", Title: "Modules and kernels", Columns: columns, TextColumns: 3,
		Note: "Medians, and 10th and 90th percentiles. GB/s and TFLOP/s count the minimum that has to be moved and computed; " +
			"the share of the peak is the larger of the two."}
	lengths := tableOfRows{ID: "lengths", Title: "Lengths", TextColumns: 3,
		Columns: []string{"name", "shape", "precision", "tokens", "GPU time", "per token", "TFLOP/s", "peak memory", "runs"},
		Note: "block_length: batch x tokens x dim x heavy tokens of the attention; one token in 32 is routed to the heavy feedforward. " +
			"dense_attention: batch x tokens x heads x dim head."}
	for _, r := range rows {
		names := []string{r.Name, r.Shape, r.Precision}
		head := append(slices.Clone(names), cell(r.GPU))
		switch {
		case r.IsPeak():
			peaks.Rows = append(peaks.Rows, append(head, cell(r.GBs), cell(r.TFLOPs)))
		case r.IsLength():
			tokens, token := "", ""
			if size, err := dims.Parse(r.Shape); err == nil && len(size) > 1 && size[0]*size[1] > 0 {
				tokens = table.Thousands(fmt.Sprint(size[0] * size[1]))
				token = timeCell(r.GPU / float64(size[0]*size[1]))
			}
			lengths.Rows = append(lengths.Rows, append(names, tokens, timeCell(r.GPU), token, cell(r.TFLOPs),
				table.Size(r.Peak).String(), fmt.Sprint(r.Runs)))
		default:
			share := table.Markdown(table.Share(r.PeakShare))
			if r.PeakShare == 0 {
				share = ""
			}
			cases.Rows = append(cases.Rows, append(head, cell(r.P10), cell(r.P90), cell(r.Wall), cell(r.GBs), cell(r.TFLOPs), share,
				table.Size(r.Workspace).String(), table.Size(r.Peak).String(), fmt.Sprint(r.Runs)))
		}
	}
	var list []tableOfRows
	for _, t := range []tableOfRows{peaks, cases, lengths} {
		if len(t.Rows) > 0 {
			list = append(list, t)
		}
	}
	return list
}

// cell formats a measurement. 0 is a missing one, and empty.
func cell(x float64) string {
	if x == 0 {
		return ""
	}
	return table.Significant(x)
}

// timeCell formats a time in milliseconds. 0 is a missing one, and empty.
func timeCell(ms float64) string {
	if ms == 0 {
		return ""
	}
	return table.Time(ms)
}
