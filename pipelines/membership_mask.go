package pipelines

import (
	"fmt"
	"unsafe"

	"github.com/colt5-vulkan/colt5/vk"
)

// Mark marks the rows that slots name, and the first rows of every item. It tells Linear which rows get no null token.
//
//	indices [B, K] i32 in    filled [B, K] u32 in    y [B, N] u32 out
//	y[b, i] = 1 where a filled slot of item b names row i, or i < First; else 0
//
// A slot is empty if its filled word is 0, or if its index is not one of 0..N-1.
//
// Shader: shaders/membership_mask.comp. Reference: internal/ref.Mark.
type MembershipMask struct{ kernel *vk.Kernel }

// MarkConfig is empty: one kernel does for all.
type MembershipMaskConfig struct{}

// MarkArgs is one run. It writes Y whole.
type MembershipMaskArgs struct {
	Indices, Valid vk.Range // [B, K]
	Y              vk.Range // [B, N]
	B, N, K        int
	Prefix         int // rows at the start of every item that are marked in any case, 0 to N
}

type membershipMaskPush struct{ n, k, first, items, span uint32 }

const (
	_ = uint(20 - unsafe.Sizeof(membershipMaskPush{}))
	_ = uint(unsafe.Sizeof(membershipMaskPush{}) - 20)
)

// NewMark compiles the kernel.
func NewMembershipMask(dev *vk.Device, _ MembershipMaskConfig) (*MembershipMask, error) {
	k, err := newKernel(dev, "membership_mask", nil)
	if err != nil {
		return nil, fmt.Errorf("pipelines: Mark: %w", err)
	}
	return &MembershipMask{k}, nil
}

// Record adds the steps to a tape: zeros, then marks.
func (m *MembershipMask) Record(t *vk.CommandList, a MembershipMaskArgs) error {
	const op = "Mark"
	b, n, k := dim{"B", a.B}, dim{"N", a.N}, dim{"K", a.K}
	if err := checkPositive(op, b, n, k, dim{"B*N", b.n * n.n}, dim{"B*K", b.n * k.n}); err != nil {
		return err
	}
	if a.Prefix < 0 || a.Prefix > a.N {
		return fmt.Errorf("pipelines: %s: First is %d, want 0 to N, %d", op, a.Prefix, a.N)
	}
	if a.N >= 1<<30 {
		return fmt.Errorf("pipelines: %s: N is %d, want less than %d", op, a.N, 1<<30)
	}
	slots := 4 * uint64(a.B) * uint64(a.K)
	if err := firstError(
		checkTensor(op, "indices", a.Indices, vec4Align, i32, b, k),
		checkTensor(op, "filled", a.Valid, vec4Align, u32, b, k),
		checkTensor(op, "y", a.Y, vec4Align, u32, b, n),
	); err != nil {
		return err
	}
	span := max(a.K, a.Prefix)
	groups, err := workgroups(t.Device().Caps(), op, (uint64(a.B)*uint64(span)+255)/256)
	if err != nil {
		return err
	}
	if err := t.Fill(a.Y, 0); err != nil {
		return err
	}
	push := membershipMaskPush{uint32(a.N), uint32(a.K), uint32(a.Prefix), uint32(a.B), uint32(span)}
	return t.Dispatch(vk.Dispatch{
		Kernel: m.kernel,
		Groups: groups,
		Args:   []vk.Access{vk.Read(a.Indices), vk.Read(a.Valid), vk.ReadWrite(a.Y)},
		Push:   vk.Scalars(&push),
		Bytes:  float64(2*slots + 4*uint64(a.B)*uint64(span)),
	})
}

// Close frees the kernel.
func (m *MembershipMask) Close() error {
	if m == nil {
		return nil
	}
	return m.kernel.Close()
}
