package results

import "strings"

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
