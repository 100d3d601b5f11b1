package main

import "fmt"

// reportTables sorts rows into the tables of a report; those without rows are left out.
func reportTables(rows []benchRow) []reportTable {
	measured := []string{"GPU ms", "p10", "p90", "wall ms", "GB/s", "TFLOP/s", "of roof", "workspace", "peak memory", "runs"}
	columns := append([]string{"name", "shape", "precision"}, measured...)
	roofs := reportTable{ID: "roofs", Title: "Roofs", Columns: []string{"name", "shape", "precision", "GPU ms", "GB/s", "TFLOP/s"}, Words: 3,
		Note: "What the device reaches at best: a large copy, a large float32 product, and products of cooperative matrices in registers."}
	cases := reportTable{ID: "cases", Title: "Modules", Columns: columns, Words: 3,
		Note: "Medians, and 10th and 90th percentiles. GB/s and TFLOP/s count what has to be moved and computed at least; the share of the roof is the larger of the two."}
	lengths := reportTable{ID: "lengths", Title: "Lengths", Columns: []string{"name", "shape", "precision", "GPU ms", "ns a token", "TFLOP/s", "peak memory", "runs"}, Words: 3,
		Note: "block_length: batch x tokens x dim x heavy tokens of the attention; a token in 32 is in the heavy feedforward. dense_attention: batch x tokens x heads x dim head."}
	for _, r := range rows {
		head := []string{r.Name, r.Shape, r.Precision, number4(r.GPU)}
		switch {
		case isRoof(r):
			roofs.Rows = append(roofs.Rows, append(head, number4(r.GBs), number4(r.TFLOPs)))
		case r.Name == blockLength || r.Name == denseAttention:
			token := ""
			if size, err := parseSize(r.Shape); err == nil && len(size) > 1 && size[0]*size[1] > 0 {
				token = number4(r.GPU * 1e6 / float64(size[0]*size[1]))
			}
			lengths.Rows = append(lengths.Rows, append(head, token, number4(r.TFLOPs), size(r.Peak).String(), fmt.Sprint(r.Runs)))
		default:
			share := markdown(share(r.RoofShare))
			if r.RoofShare == 0 {
				share = ""
			}
			cases.Rows = append(cases.Rows, append(head, number4(r.P10), number4(r.P90), number4(r.Wall), number4(r.GBs), number4(r.TFLOPs), share,
				size(r.Workspace).String(), size(r.Peak).String(), fmt.Sprint(r.Runs)))
		}
	}
	var list []reportTable
	for _, t := range []reportTable{roofs, cases, lengths} {
		if len(t.Rows) > 0 {
			list = append(list, t)
		}
	}
	return list
}

// number4 is a number for people; 0, which no measurement is, is empty.
func number4(x float64) string {
	if x == 0 {
		return ""
	}
	return significant(x)
}
