package pipelines

import (
	"fmt"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/internal/ref"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestMembershipMask(t *testing.T) {
	for _, test := range []struct{ b, n, k, prefix int }{
		{1, 1, 1, 0}, {1, 1, 1, 1}, {2, 7, 3, 0}, {3, 31, 30, 5}, {2, 300, 255, 300}, {2, 300, 256, 257}, {1, 70001, 257, 1000}, {5, 3, 400, 2},
	} {
		t.Run(fmt.Sprintf("%+v", test), func(t *testing.T) {
			gpu := gputest.New(t)
			s := makeSlots(emptySlots{valid: true, outOfRange: true}, test.b, test.n, test.k)
			m, err := NewMembershipMask(gpu.Dev, MembershipMaskConfig{})
			require.NoError(t, err)
			defer m.Close()
			indices, _, valid := s.inputs(gpu)
			a := MembershipMaskArgs{Indices: indices, Valid: valid, Y: gpu.Out("y", 4*test.b*test.n), B: test.b, N: test.n, K: test.k, Prefix: test.prefix}
			gpu.Run(func(list *vk.CommandList) error { return m.Record(list, a) })
			assert.Equal(t, ref.MembershipMask(s.refIndices, s.refValid, test.b, test.n, test.k, test.prefix), gpu.Uint32("y"))
		})
	}
}

func TestMembershipMaskBadInput(t *testing.T) {
	gpu := gputest.New(t)
	m, err := NewMembershipMask(gpu.Dev, MembershipMaskConfig{})
	require.NoError(t, err)
	defer m.Close()
	list, y := gpu.In("list", make([]int32, 6)), gpu.Out("y", 40)
	good := MembershipMaskArgs{Indices: list, Valid: list, Y: y, B: 2, N: 5, K: 3}
	assertRejected(t, gpu, good, m.Record, []badArgs[MembershipMaskArgs]{
		{"B is 0, want 1", func(a *MembershipMaskArgs) { a.B = 0 }},
		{"N is -1, want 1", func(a *MembershipMaskArgs) { a.N = -1 }},
		{"K is 0, want 1", func(a *MembershipMaskArgs) { a.K = 0 }},
		{"Prefix is 6, want 0 to N, 5", func(a *MembershipMaskArgs) { a.Prefix = 6 }},
		{"Prefix is -1, want 0 to N, 5", func(a *MembershipMaskArgs) { a.Prefix = -1 }},
		{"indices is missing, want [B 2, K 3] i32, 24 bytes", func(a *MembershipMaskArgs) { a.Indices = vk.Range{} }},
		{"valid has 40 bytes, want [B 2, K 3] u32, 24 bytes", func(a *MembershipMaskArgs) { a.Valid = y }},
		{"y has 24 bytes, want [B 2, N 5] u32, 40 bytes", func(a *MembershipMaskArgs) { a.Y = list }},
	})
}
