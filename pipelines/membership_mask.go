package pipelines

import (
	"fmt"
	"unsafe"

	"github.com/colt5-vulkan/colt5/vk"
)

// MembershipMask converts a list of row indices to a mask of the rows that it contains. Linear takes the mask as
// SkipBias: selected rows do not get the null token.
//
//	indices [B, K] i32 in    valid [B, K] u32 in    y [B, N] u32 out
//	y[b, i] = 1 where a valid slot of item b names row i, or i < Prefix; else 0
//
// A slot is ignored if its valid word is 0, or its index is not in 0..N-1.
//
// Shader: shaders/src/membership_mask.comp. CPU reference: internal/ref.MembershipMask.
type MembershipMask struct{ kernel *vk.Kernel }

// MembershipMaskConfig has no fields: all uses share one kernel.
type MembershipMaskConfig struct{}

// MembershipMaskArgs names the memory and the sizes of one mask. Record writes all of Y.
type MembershipMaskArgs struct {
	Indices, Valid vk.Range // [B, K]
	Y              vk.Range // [B, N]
	B, N, K        int
	Prefix         int // rows at the start of every item that are always in the mask, 0 to N
}

type membershipMaskPush struct{ n, k, prefix, items, span uint32 }

var _ = [1]struct{}{}[unsafe.Sizeof(membershipMaskPush{})-20]

// NewMembershipMask compiles the kernel.
func NewMembershipMask(dev *vk.Device, _ MembershipMaskConfig) (*MembershipMask, error) {
	k, err := newKernel(dev, "membership_mask", nil)
	if err != nil {
		return nil, fmt.Errorf("pipelines: MembershipMask: %w", err)
	}
	return &MembershipMask{k}, nil
}

// Record appends a fill of Y with zeros and one dispatch to a command list.
func (m *MembershipMask) Record(list *vk.CommandList, a MembershipMaskArgs) error {
	const op = "MembershipMask"
	b, n, k := dim{"B", a.B}, dim{"N", a.N}, dim{"K", a.K}
	if err := checkPositive(op, b, n, k, dim{"B*N", b.n * n.n}, dim{"B*K", b.n * k.n}); err != nil {
		return err
	}
	if a.Prefix < 0 || a.Prefix > a.N {
		return fmt.Errorf("pipelines: %s: Prefix is %d, want 0 to N, %d", op, a.Prefix, a.N)
	}
	if a.N > maxRowLength {
		return fmt.Errorf("pipelines: %s: N is %d, want at most %d", op, a.N, maxRowLength)
	}
	if err := firstError(
		checkTensor(op, "indices", a.Indices, vec4Align, i32, b, k),
		checkTensor(op, "valid", a.Valid, vec4Align, u32, b, k),
		checkTensor(op, "y", a.Y, vec4Align, u32, b, n),
	); err != nil {
		return err
	}
	const threads = 256
	span := max(a.K, a.Prefix) // an invocation writes for one slot and one row of the prefix
	groups, err := workgroups(list.Device().Caps(), op, ceilDiv(uint64(a.B)*uint64(span), threads))
	if err != nil {
		return err
	}
	if err := list.Fill(a.Y, 0); err != nil {
		return err
	}
	return list.Dispatch(vk.Dispatch{
		Kernel: m.kernel,
		Groups: groups,
		Args:   []vk.Access{vk.Read(a.Indices), vk.Read(a.Valid), vk.ReadWrite(a.Y)},
		Push:   vk.Scalars(&membershipMaskPush{uint32(a.N), uint32(a.K), uint32(a.Prefix), uint32(a.B), uint32(span)}),
		Bytes:  float64(a.Indices.Size() + a.Valid.Size() + 4*uint64(a.B)*uint64(span)),
	})
}

// Close frees the kernel. It may be called again, and on nil.
func (m *MembershipMask) Close() error {
	if m == nil {
		return nil
	}
	return m.kernel.Close()
}
