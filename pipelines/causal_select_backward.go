package pipelines

import (
	"fmt"
	"unsafe"

	"github.com/colt5-vulkan/colt5/vk"
)

// CausalSelectBackward is the gradient of the scores of CausalSelect's queries. The score of a query is 1. Its gradient is
// that of sigmoid(logit - threshold), where the threshold, which other tokens set, is constant.
//
//	logits [B, N] f32 in    thresholds [B, Windows] f32 in    Windows = ceil(N / Window)
//	indices [B, Windows, K] i32 in    query valid [B, Windows, K] u32 in    dscores [B, Windows, K] f32 in
//	dlogits [B, N] f32 out
//	dlogits[indices[k]] = dscores[k] * s * (1 - s)    s = sigmoid(logits[indices[k]] - threshold of the window)
//
// Logits that are not of a query have gradient 0, and so have all if windows have at most K tokens: then every token
// passes, whatever its logit. Indices, query valid and thresholds are results of CausalSelect.
//
// Shader: shaders/src/causal_select_backward.comp. CPU reference: internal/ref.CausalSelectBackward.
type CausalSelectBackward struct{ kernel *vk.Kernel }

// CausalSelectBackwardArgs names the memory and the sizes of one dispatch. It writes all of DLogits.
type CausalSelectBackwardArgs struct {
	Logits     vk.Range // [B, N]
	Thresholds vk.Range // [B, Windows]
	Indices    vk.Range // [B, Windows, K]; those of a window ascend
	QueryValid vk.Range // [B, Windows, K]
	DScores    vk.Range // [B, Windows, K]; may have anything, even NaN, in empty slots
	DLogits    vk.Range // [B, N]; may be Logits
	B, N       int
	Window, K  int
}

type causalSelectBackwardPush struct{ n, window, windows, k, tokens uint32 } // after six addresses

var _ = [1]struct{}{}[unsafe.Sizeof(causalSelectBackwardPush{})-20]

// NewCausalSelectBackward compiles the kernel.
func NewCausalSelectBackward(dev *vk.Device, _ CausalSelectConfig) (*CausalSelectBackward, error) {
	k, err := newKernel(dev, "causal_select_backward", nil)
	if err != nil {
		return nil, fmt.Errorf("pipelines: CausalSelectBackward: %w", err)
	}
	return &CausalSelectBackward{k}, nil
}

// Record appends one dispatch to a command list.
func (s *CausalSelectBackward) Record(list *vk.CommandList, a CausalSelectBackwardArgs) error {
	const op, threads = "CausalSelectBackward", 256
	b, n, k := dim{"B", a.B}, dim{"N", a.N}, dim{"K", a.K}
	m, err := causalWindows(op, b, n, dim{"Window", a.Window}, k)
	if err != nil {
		return err
	}
	if err := firstError(
		checkTensor(op, "logits", a.Logits, vec4Align, f32, b, n),
		checkTensor(op, "thresholds", a.Thresholds, vec4Align, f32, b, m),
		checkTensor(op, "indices", a.Indices, vec4Align, i32, b, m, k),
		checkTensor(op, "query valid", a.QueryValid, vec4Align, u32, b, m, k),
		checkTensor(op, "dscores", a.DScores, vec4Align, f32, b, m, k),
		checkTensor(op, "dlogits", a.DLogits, vec4Align, f32, b, n),
	); err != nil {
		return err
	}
	groups, err := workgroups(list.Device().Caps(), op, ceilDiv(uint64(b.n)*uint64(n.n), threads))
	if err != nil {
		return err
	}
	return list.Dispatch(vk.Dispatch{
		Kernel: s.kernel,
		Groups: groups,
		Args: []vk.Access{vk.Read(a.Logits), vk.Read(a.Thresholds), vk.Read(a.Indices), vk.Read(a.QueryValid), vk.Read(a.DScores),
			vk.Write(a.DLogits)},
		Push:  vk.Scalars(&causalSelectBackwardPush{uint32(a.N), uint32(a.Window), uint32(m.n), uint32(a.K), uint32(b.n * n.n)}),
		Bytes: float64(a.Logits.Size() + a.Indices.Size() + a.QueryValid.Size() + a.DScores.Size() + a.DLogits.Size()),
	})
}

// Close frees the kernel. It may be called again, and on nil.
func (s *CausalSelectBackward) Close() error {
	if s == nil {
		return nil
	}
	return s.kernel.Close()
}
