package pipelines

import (
	"fmt"
	"unsafe"

	"github.com/colt5-vulkan/colt5/vk"
)

// RMSNorm scales rows to length sqrt(C), then by gamma; and writes the factors of the rows for kernels that normalise on their way.
//
//	x [Rows, C] f32 in    gamma [C] f32 in    y [Rows, C] f32 out, or in the config's precision    factors [Rows] f32 out
//	y[r, i] = x[r, i] * factors[r] * gamma[i]    factors[r] = sqrt(C) / max(|x[r]|, 1e-12)
//
// Shader: shaders/rmsnorm.comp. Reference: internal/ref.RMSNorm. Source: arXiv 1910.07467.
type RMSNorm struct {
	config  RMSNormConfig
	lanes   uint32 // that share a row
	rows    uint32 // of a workgroup
	kernels kernels
}

// RMSNormConfig is baked into the kernel.
type RMSNormConfig struct {
	C int       // model dim, >= 1
	Y Precision // of y; with 16 bits C is a multiple of 4
}

// RMSNormArgs names memory and sizes of one dispatch. Y or Factors may be absent, not both; without Y there is no Gamma.
type RMSNormArgs struct {
	X, Gamma, Y, Factors vk.Range
	Rows                 int
}

type rmsNormPush struct{ rows uint32 }

var _ [4 - unsafe.Sizeof(rmsNormPush{})]byte
var _ [unsafe.Sizeof(rmsNormPush{}) - 4]byte

// NewRMSNorm makes a norm for a device. Its kernel is compiled when it is first recorded.
func NewRMSNorm(dev *vk.Device, c RMSNormConfig) (*RMSNorm, error) {
	if err := rowLength("RMSNorm", c.C); err != nil {
		return nil, err
	}
	if err := c.Y.normed("RMSNorm", c.C); err != nil {
		return nil, err
	}
	const invocations = 256
	lanes := uint32(4)
	for lanes < 64 && 8*int(lanes) < c.C {
		lanes *= 2
	}
	around := 2 * (c.C/int(lanes) + 1)
	if c.C%4 == 0 {
		around /= 4
	}
	if err := turns(dev.Caps(), "RMSNorm", fmt.Sprintf("a row of %d floats", c.C), around); err != nil {
		return nil, err
	}
	return &RMSNorm{config: c, lanes: lanes, rows: invocations / lanes, kernels: kernels{dev: dev}}, nil
}

func (n *RMSNorm) kernel() (*vk.Kernel, error) {
	c := n.config.C
	return n.kernels.get("rmsnorm", "rmsnorm", false, map[uint32]uint32{0: n.lanes, 1: n.rows, 2: uint32(c), 3: flag(c%4 == 0), 4: uint32(n.config.Y)})
}

// Record adds a dispatch to a tape.
func (n *RMSNorm) Record(t *vk.Tape, a RMSNormArgs) error {
	const op = "RMSNorm"
	if err := positive(op, dim{"Rows", a.Rows}); err != nil {
		return err
	}
	c, rows, y := dim{"C", n.config.C}, dim{"Rows", a.Rows}, n.config.Y
	matrix := 4 * uint64(a.Rows) * uint64(c.n)
	if a.Y.IsZero() && a.Factors.IsZero() {
		return fmt.Errorf("pipelines: RMSNorm: y and factors are both missing, want one of them or both")
	}
	if a.Y.IsZero() != a.Gamma.IsZero() {
		return fmt.Errorf("pipelines: RMSNorm: gamma and y go together, want both or neither")
	}
	for _, err := range []error{
		needAt(rowsOf(c.n), op, "x", a.X, matrix, shape(rows, c)+" f32"),
		optionalAt(rowsOf(c.n), op, "gamma", a.Gamma, 4*uint64(c.n), shape(c)+" f32"),
		optionalAt(y.rowsOf(c.n), op, "y", a.Y, matrix/4*uint64(y.Bytes()), shape(rows, c)+" "+y.kind()),
		optionalAt(words, op, "factors", a.Factors, 4*uint64(a.Rows), shape(rows)+" f32"),
	} {
		if err != nil {
			return err
		}
	}
	groups, err := vk.Grid(t.Device().Caps(), tiles(uint64(a.Rows), uint64(n.rows)))
	if err != nil {
		return fmt.Errorf("pipelines: RMSNorm: %w", err)
	}
	kernel, err := n.kernel()
	if err != nil {
		return fmt.Errorf("pipelines: RMSNorm: %w", err)
	}
	return t.Dispatch(vk.Dispatch{
		Kernel: kernel,
		Groups: groups,
		Args:   []vk.Access{vk.Read(a.X), vk.Read(a.Gamma), vk.Write(a.Y), vk.Write(a.Factors)},
		Push:   vk.Scalars(&rmsNormPush{uint32(a.Rows)}),
		Flops:  4 * float64(a.Rows) * float64(c.n),
		Bytes:  float64(a.X.Size() + a.Y.Size() + a.Factors.Size() + a.Gamma.Size()),
	})
}

// Close frees the kernel.
func (n *RMSNorm) Close() error {
	if n == nil {
		return nil
	}
	return n.kernels.close()
}
