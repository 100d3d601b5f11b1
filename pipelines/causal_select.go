package pipelines

import (
	"fmt"
	"unsafe"

	"github.com/colt5-vulkan/colt5/vk"
)

// CausalSelect chooses tokens of windows without looking ahead: by a threshold that the window before sets, first come first served.
//
//	logits [B, N] f32 in    values [B, M, K] f32 in    filled [B, M, K] u32 in    M = ceil(N / Window)
//	indices [B, M, K] i32 out    chosen [B, M, K] u32 out, 1 or 0    thresholds [B, M] f32 out, optional
//
// Values and filled are what Select chooses in each window with the same K. The threshold of a window is the smallest of them in the window
// before, its K-th largest logit; where that window has no more than K tokens, every token passes, and the threshold is -3.4e38. A token
// is chosen if its logit is at least the threshold, and fewer than K tokens before it in its window are. Indices count from the start
// of the item and rise; the slots left over have index 0. Window 0, which has none before it, stays empty. -0 equals +0; a NaN passes
// only where every token does.
//
// Whether a token is chosen depends on the tokens up to it alone.
//
// Shader: shaders/causal_select.comp. Reference: internal/ref.CausalSelect.
type CausalSelect struct{ kernel *vk.Kernel }

// CausalSelectConfig is empty: one kernel does for all.
type CausalSelectConfig struct{}

// CausalSelectArgs is one dispatch.
type CausalSelectArgs struct {
	Logits        vk.Range // [B, N]
	Values, Valid vk.Range // [B, M, K]
	Indices       vk.Range // [B, M, K]
	QueryValid    vk.Range // [B, M, K]
	Thresholds    vk.Range // [B, M]; absent: not wanted
	B, N          int
	Window, K     int
}

type causalSelectPush struct{ n, window, windows, k, groups uint32 }

const (
	_ = uint(20 - unsafe.Sizeof(causalSelectPush{}))
	_ = uint(unsafe.Sizeof(causalSelectPush{}) - 20)
)

// NewCausalSelect compiles the kernel.
func NewCausalSelect(dev *vk.Device, _ CausalSelectConfig) (*CausalSelect, error) {
	k, err := newKernel(dev, "causal_select", nil)
	if err != nil {
		return nil, fmt.Errorf("pipelines: CausalSelect: %w", err)
	}
	return &CausalSelect{k}, nil
}

// Record adds the dispatch to a tape.
func (s *CausalSelect) Record(t *vk.CommandList, a CausalSelectArgs) error {
	const op = "CausalSelect"
	b, n, w, k := dim{"B", a.B}, dim{"N", a.N}, dim{"Window", a.Window}, dim{"K", a.K}
	if err := checkPositive(op, b, n, w, k, dim{"B*N", b.n * n.n}); err != nil {
		return err
	}
	if a.N >= 1<<30 || a.K >= 1<<30 {
		return fmt.Errorf("pipelines: %s: N is %d and K %d, want less than %d", op, a.N, a.K, 1<<30)
	}
	m := dim{"M", (a.N + a.Window - 1) / a.Window}
	if err := checkPositive(op, dim{"B*M*K", b.n * m.n * k.n}); err != nil {
		return err
	}
	// 256 tokens a turn, in each of which a scan turns 8 times; and the slots, once to read and once to write.
	around := 9*(min(a.Window, a.N)/256+1) + 2*(a.K/256+1)
	if err := checkIterations(t.Device().Caps(), op, fmt.Sprintf("a window of %d with K %d", a.Window, a.K), around); err != nil {
		return err
	}
	slots := 4 * uint64(b.n) * uint64(m.n) * uint64(k.n)
	if err := firstError(
		checkTensor(op, "logits", a.Logits, vec4Align, f32, b, n),
		checkTensor(op, "values", a.Values, vec4Align, f32, b, m, k),
		checkTensor(op, "filled", a.Valid, vec4Align, u32, b, m, k),
		checkTensor(op, "indices", a.Indices, vec4Align, i32, b, m, k),
		checkTensor(op, "chosen", a.QueryValid, vec4Align, u32, b, m, k),
		checkOptional(op, "thresholds", a.Thresholds, vec4Align, f32, b, m),
	); err != nil {
		return err
	}
	windows := uint64(b.n) * uint64(m.n)
	groups, err := workgroups(t.Device().Caps(), op, windows)
	if err != nil {
		return err
	}
	push := causalSelectPush{uint32(a.N), uint32(a.Window), uint32(m.n), uint32(a.K), uint32(windows)}
	return t.Dispatch(vk.Dispatch{
		Kernel: s.kernel,
		Groups: groups,
		Args: []vk.Access{vk.Read(a.Logits), vk.Read(a.Values), vk.Read(a.Valid), vk.Write(a.Indices), vk.Write(a.QueryValid),
			vk.Write(a.Thresholds)},
		Push:  vk.Scalars(&push),
		Bytes: float64(a.Logits.Size() + 4*slots),
	})
}

// Close frees the kernel.
func (s *CausalSelect) Close() error {
	if s == nil {
		return nil
	}
	return s.kernel.Close()
}
