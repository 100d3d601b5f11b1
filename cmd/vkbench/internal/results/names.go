package results

import (
	"slices"
	"strings"
)

// Names of rows that plots and reports treat specially.
const (
	// CopyPeak and MatmulPeak are measured peaks: a large copy and a large float32 matrix product. Rows of cooperative
	// matrices are named MatrixPeak and the type of their sums.
	CopyPeak   = peakPrefix + "copy"
	MatmulPeak = peakPrefix + "matmul"
	MatrixPeak = peakPrefix + "matrix to "

	// BlockLength is a transformer block at growing sequence lengths: a fixed number of tokens is routed to its heavy
	// attention, and one token in 32 to its heavy feedforward. DenseAttention is the attention of all tokens to all tokens,
	// for comparison.
	BlockLength, DenseAttention = "block_length", "dense_attention"
)

const peakPrefix = "peak "

// IsPeak reports whether the row is a measured peak of any kind.
func (r Row) IsPeak() bool { return strings.HasPrefix(r.Name, peakPrefix) }

// IsLength reports whether the row is of a case at growing sequence lengths.
func (r Row) IsLength() bool { return r.Name == BlockLength || r.Name == DenseAttention }

// Rates returns the rates that rows of peaks have: GB/s of copies, and the highest TFLOP/s of products by the precision
// of their operands, with sums in float32.
func Rates(rows []Row) (copies float64, products map[string]float64) {
	products = map[string]float64{}
	for _, r := range rows {
		switch r.Name {
		case CopyPeak:
			copies = max(copies, r.GBs)
		case MatmulPeak, MatrixPeak + "f32":
			products[r.Precision] = max(products[r.Precision], r.TFLOPs)
		}
	}
	return copies, products
}

// HavePeaks reports whether the Rates are peaks. They are if rows have shares of them; see measure.Runner.
func HavePeaks(rows []Row) bool {
	return slices.ContainsFunc(rows, func(r Row) bool { return r.PeakShare > 0 })
}

// currentName translates names in rows that earlier versions wrote.
func currentName(name string) string {
	if name == "mark" {
		return "membership_mask"
	}
	if rest, ok := strings.CutPrefix(name, "roof "); ok {
		return peakPrefix + rest
	}
	return name
}
