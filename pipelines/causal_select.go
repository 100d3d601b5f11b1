package pipelines

import (
	"fmt"
	"unsafe"

	"github.com/colt5-vulkan/colt5/vk"
)

// CausalSelect selects tokens of windows in order of position, by a threshold that the previous window sets. Whether a
// token is selected depends on no later token.
//
//	logits [B, N] f32 in    values [B, Windows, K] f32 in    valid [B, Windows, K] u32 in    Windows = ceil(N / Window)
//	indices [B, Windows, K] i32 out    query valid [B, Windows, K] u32 out, 1 or 0
//	thresholds [B, Windows] f32 out, optional
//
// Values and valid are the result of Select in each window with the same K. The threshold of a window is the smallest
// valid value of the previous window, its K-th largest logit. If the previous window has no more than K tokens, every
// token passes, and the threshold is -3.4e38. A token is selected if its logit is at least the threshold and fewer than
// K earlier tokens of its window are selected.
//
// Indices count from the start of the item and ascend. Slots that stay empty have index 0 and query valid 0. All slots
// of window 0 are empty, because it has no previous window. -0 equals +0; a NaN passes only where every token does.
//
// Shader: shaders/src/causal_select.comp. CPU reference: internal/ref.CausalSelect.
type CausalSelect struct{ kernel *vk.Kernel }

// CausalSelectConfig has no fields: all uses share one kernel.
type CausalSelectConfig struct{}

// CausalSelectArgs names the memory and the sizes of one dispatch.
type CausalSelectArgs struct {
	Logits        vk.Range // [B, N]
	Values, Valid vk.Range // [B, Windows, K]
	Indices       vk.Range // [B, Windows, K]
	QueryValid    vk.Range // [B, Windows, K]
	Thresholds    vk.Range // [B, Windows]; absent: not wanted
	B, N          int
	Window, K     int
}

type causalSelectPush struct{ n, window, windows, k, groups uint32 }

var _ = [1]struct{}{}[unsafe.Sizeof(causalSelectPush{})-20]

// NewCausalSelect compiles the kernel.
func NewCausalSelect(dev *vk.Device, _ CausalSelectConfig) (*CausalSelect, error) {
	k, err := newKernel(dev, "causal_select", nil)
	if err != nil {
		return nil, fmt.Errorf("pipelines: CausalSelect: %w", err)
	}
	return &CausalSelect{k}, nil
}

// Record appends one dispatch to a command list. A workgroup selects in one window of one item.
func (s *CausalSelect) Record(list *vk.CommandList, a CausalSelectArgs) error {
	const op = "CausalSelect"
	b, n, k := dim{"B", a.B}, dim{"N", a.N}, dim{"K", a.K}
	m, err := causalWindows(op, b, n, dim{"Window", a.Window}, k)
	if err != nil {
		return err
	}
	// For every 256 tokens the shader makes one iteration and the 8 iterations of a scan. It passes twice over the
	// slots.
	iterations := 9*(min(a.Window, a.N)/256+1) + 2*(a.K/256+1)
	if err := checkIterations(list.Device().Caps(), op, fmt.Sprintf("a window of %d with K %d", a.Window, a.K), iterations); err != nil {
		return err
	}
	if err := firstError(
		checkTensor(op, "logits", a.Logits, vec4Align, f32, b, n),
		checkTensor(op, "values", a.Values, vec4Align, f32, b, m, k),
		checkTensor(op, "valid", a.Valid, vec4Align, u32, b, m, k),
		checkTensor(op, "indices", a.Indices, vec4Align, i32, b, m, k),
		checkTensor(op, "query valid", a.QueryValid, vec4Align, u32, b, m, k),
		checkOptional(op, "thresholds", a.Thresholds, vec4Align, f32, b, m),
	); err != nil {
		return err
	}
	windows := uint64(b.n) * uint64(m.n)
	groups, err := workgroups(list.Device().Caps(), op, windows)
	if err != nil {
		return err
	}
	return list.Dispatch(vk.Dispatch{
		Kernel: s.kernel,
		Groups: groups,
		Args: []vk.Access{vk.Read(a.Logits), vk.Read(a.Values), vk.Read(a.Valid), vk.Write(a.Indices), vk.Write(a.QueryValid),
			vk.Write(a.Thresholds)},
		Push:  vk.Scalars(&causalSelectPush{uint32(a.N), uint32(a.Window), uint32(m.n), uint32(a.K), uint32(windows)}),
		Bytes: float64(a.Logits.Size() + a.Values.Size() + a.Valid.Size() + a.Indices.Size() + a.QueryValid.Size()),
	})
}

// causalWindows checks the sizes of a causal selection and of its gradient, and returns the number of windows.
func causalWindows(op string, b, n, window, k dim) (m dim, err error) {
	if err := checkPositive(op, b, n, window, k, dim{"B*N", b.n * n.n}); err != nil {
		return m, err
	}
	if n.n > maxRowLength || k.n > maxRowLength {
		return m, fmt.Errorf("pipelines: %s: N is %d and K %d, want at most %d", op, n.n, k.n, maxRowLength)
	}
	m = dim{"M", (n.n-1)/window.n + 1}
	return m, checkPositive(op, dim{"B*M*K", b.n * m.n * k.n})
}

// Close frees the kernel. It may be called again, and on nil.
func (s *CausalSelect) Close() error {
	if s == nil {
		return nil
	}
	return s.kernel.Close()
}
