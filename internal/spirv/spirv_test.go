package spirv

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func file(t testing.TB, name string) []byte {
	code, err := os.ReadFile(filepath.Join("testdata", name+".spv"))
	require.NoError(t, err)
	return code
}

// TestReflectCompiled reflects the shaders in testdata, compiled by glslc.
func TestReflectCompiled(t *testing.T) {
	for _, c := range []struct {
		name, file string
		spec       Spec
		want       Module
	}{
		{"plain", "plain", nil, Module{
			LocalSize: [3]uint32{8, 4, 2},
			// 12 + 80 + 64 + 4 + 48 bytes; in the worst order row and flag each precede a variable with alignment 16.
			SharedBytes: 208 + 2*12, PushBytes: 24,
			PushMembers:  []Member{{"x", 0, 8}, {"y", 8, 8}, {"n", 16, 4}, {"eps", 20, 4}},
			Capabilities: []string{"Shader"},
		}},
		{"defaults", "specialised", nil, Module{
			LocalSize: [3]uint32{1, 1, 1}, SharedBytes: 2*2*4*16 + 4 + 12, PushBytes: 12,
			PushMembers:  []Member{{"", 0, 8}, {"", 8, 4}},
			Capabilities: []string{"Shader", "PhysicalStorageBufferAddresses"}, SpecIDs: []uint32{0, 1, 7, 8, 9},
		}},
		{"specialised", "specialised", Spec{0: 32, 1: 4, 7: 5, 8: 9, 9: 0x40000000}, Module{
			LocalSize: [3]uint32{32, 4, 1}, SharedBytes: 2*(5*3+1)*5*16 + 4*128, PushBytes: 12,
			PushMembers:  []Member{{"", 0, 8}, {"", 8, 4}},
			Capabilities: []string{"Shader", "PhysicalStorageBufferAddresses"}, SpecIDs: []uint32{0, 1, 7, 8, 9},
		}},
		{"layout", "layout", nil, Module{
			LocalSize: [3]uint32{1, 1, 1}, PushBytes: 164,
			PushMembers: []Member{
				{"head", 0, 8}, {"c", 16, 12}, {"rows", 32, 24}, {"columns", 56, 48}, {"inner", 104, 44}, {"last", 160, 4},
			},
			Capabilities: []string{"Shader", "PhysicalStorageBufferAddresses"},
		}},
		{"blocks", "blocks", nil, Module{
			LocalSize: [3]uint32{32, 1, 1}, SharedBytes: 484,
			Capabilities: []string{"Shader", "WorkgroupMemoryExplicitLayoutKHR"},
			Extensions:   []string{"SPV_KHR_workgroup_memory_explicit_layout"},
		}},
		{"matrix", "matrix", Spec{3: 64}, Module{
			LocalSize: [3]uint32{64, 1, 1}, SharedBytes: 512,
			Capabilities: []string{"Shader", "Float16", "VulkanMemoryModel", "CooperativeMatrixKHR"},
			Extensions:   []string{"SPV_KHR_cooperative_matrix"}, SpecIDs: []uint32{3},
		}},
		{"product", "product", Spec{0: 8, 1: 4}, Module{
			LocalSize: [3]uint32{32, 1, 1}, SharedBytes: 256,
			Capabilities: []string{"Shader", "Float16", "Int8", "VulkanMemoryModel", "CooperativeMatrixKHR"},
			Extensions:   []string{"SPV_KHR_cooperative_matrix"}, SpecIDs: []uint32{0, 1},
			MatrixProducts: []MatrixProduct{{M: 8, N: 16, K: 8, A: 0, B: 0, C: 1, Result: 1, Scope: 3}, {M: 16, N: 16, K: 32, A: 3, B: 3, C: 5, Result: 5, Saturating: true, Scope: 3}},
		}},
		{"empty", "empty", nil, Module{LocalSize: [3]uint32{1, 1, 1}, Capabilities: []string{"Shader"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.want.EntryPoint = "main"
			got, err := Reflect(file(t, c.file), c.spec)
			require.NoError(t, err)
			assert.Equal(t, c.want, got)
		})
	}
}

func TestReflectCompiledErrors(t *testing.T) {
	for _, c := range []struct {
		file string
		spec Spec
		want string
	}{
		{"paint", nil, `entry point "main" has execution model 4, want GLCompute`},
		{"specialised", Spec{2: 1}, "specialisation constant 2 does not exist, the module has [0 1 7 8 9]"},
		{"matrix", Spec{3: 0}, "the local size is [0 1 1]"},
		{"specialised", Spec{0: 0}, "is not a positive number"},
		{"specialised", Spec{7: 0}, "is not a positive number"},
		{"specialised", Spec{7: 1 << 30}, "too large"},
	} {
		_, err := Reflect(file(t, c.file), c.spec)
		if assert.ErrorContains(t, err, c.want) {
			assert.True(t, strings.HasPrefix(err.Error(), "spirv: "), err)
		}
	}
}

// Ids that module declares; free is the first unused id.
const (
	void, entry, u32, f32, boolean, three, free = 1, 2, 3, 4, 5, 6, 7
)

// module assembles a small compute module that contains the given instructions, each an opcode and its operands.
func module(list ...[]uint32) []byte {
	head := [][]uint32{
		{opCapability, 1}, {opEntryPoint, modelGLCompute, entry, 'm' | 'a'<<8 | 'i'<<16 | 'n'<<24, 0},
		{opExecutionMode, entry, modeLocalSize, 2, 3, 4},
		{19, void}, {opTypeInt, u32, 32, 0}, {opTypeFloat, f32, 32}, {opTypeBool, boolean}, {opConstant, u32, three, 3},
	}
	return assemble(append(head, list...)...)
}

func assemble(list ...[]uint32) []byte {
	words := []uint32{0x07230203, 0x10500, 0, 1000, 0}
	for _, in := range list {
		words = append(words, uint32(len(in))<<16|in[0])
		words = append(words, in[1:]...)
	}
	var code []byte
	for _, w := range words {
		code = binary.LittleEndian.AppendUint32(code, w)
	}
	return code
}

// sharedArray declares a Workgroup array of floats whose length is the constant id.
func sharedArray(length uint32) [][]uint32 {
	return [][]uint32{
		{opTypeArray, 900, f32, length}, {opTypePointer, 901, classWorkgroup, 900}, {opVariable, 901, 902, classWorkgroup},
	}
}

func TestReflectMalformed(t *testing.T) {
	good := module()
	_, err := Reflect(good, nil)
	require.NoError(t, err)
	changed := func(word int, value uint32) []byte {
		code := append([]byte(nil), good...)
		binary.LittleEndian.PutUint32(code[4*word:], value)
		return code
	}
	entryPoint := []uint32{opEntryPoint, modelGLCompute, entry, 'a'}
	size := []uint32{opExecutionMode, entry, modeLocalSize, 1, 1, 1}
	for _, c := range []struct {
		name string
		code []byte
		want string
	}{
		{"empty", nil, "0 bytes, want a multiple of 4 and a header of 20"},
		{"odd length", good[:len(good)-1], "want a multiple of 4"},
		{"big-endian", changed(0, 0x03022307), "big-endian"},
		{"magic", changed(0, 1), "magic number 0x00000001"},
		{"version", changed(1, 0x20000), "version word 0x20000"},
		{"bound 0", changed(3, 0), "id bound 0"},
		{"id out of bound", changed(3, 2), ", want 1 to 1"},
		{"schema", changed(4, 1), "schema 1"},
		{"zero words", changed(5, opCapability), "has 0 words"},
		{"past the end", changed(5, 1000<<16|opCapability), "has 1000 words"},
		{"too few operands", module([]uint32{opTypeInt, 10, 32}), "2 operands, want at least 3"},
		{"too many operands", module([]uint32{opTypeBool, 10, 32}), "1 extra operands"},
		{"unterminated string", module([]uint32{opName, 10, 0x61616161}), "string is not terminated"},
		{"no entry point", assemble([]uint32{opCapability, 1}), "no GLCompute entry point"},
		{"two entry points", module(entryPoint), `several entry points, "main" and "a"`},
		{"no local size", assemble(entryPoint), `"a" has no local size`},
		{"two local sizes", module(size), "a second local size"},
		{"short local size", assemble(entryPoint, size[:5]), "has 2 components, want 3"},
		{"local size of another function", assemble(entryPoint, []uint32{opExecutionMode, 9, modeLocalSize, 1, 1, 1}), "not of the entry point"},
		{"local size 0", assemble(entryPoint, []uint32{opExecutionMode, entry, modeLocalSize, 1, 0, 1}), "local size is [1 0 1]"},
		{"type twice", module([]uint32{opTypeBool, u32}), "%3 is defined twice"},
		{"constant over type", module([]uint32{opConstant, u32, u32, 1}), "%3 is defined twice"},
		{"type over constant", module([]uint32{opTypeBool, three}), "%6 is defined twice"},
		{"width", module([]uint32{opTypeInt, 10, 65, 0}), "has 65 bits"},
		{"long constant", module([]uint32{opConstant, u32, 10, 1, 1}), "does not fit its type"},
		{"bool constant of int", module([]uint32{opConstantTrue, u32, 10}), "does not fit its type"},
		{"decoration group", module([]uint32{opDecorationGroup, 10}), "decoration groups"},
		{"decoration operand", module([]uint32{opDecorate, 10, decSpecID}), "has 0 operands, want 1"},
		{"two values", module([]uint32{opDecorate, 10, decOffset, 1}, []uint32{opDecorate, 10, decOffset, 2}), "both 1 and 2"},
		{"spec id of a type", module([]uint32{opDecorate, u32, decSpecID, 1}), "does not decorate a scalar specialisation"},
		{"two sizes", module([]uint32{opDecorate, 10, decBuiltIn, 25}, []uint32{opDecorate, 11, decBuiltIn, 25}), "both WorkgroupSize"},
		{"size is no constant", module([]uint32{opDecorate, 10, decBuiltIn, 25}), "WorkgroupSize: %10 is not a constant"},
		{"size is a scalar", module([]uint32{opDecorate, three, decBuiltIn, 25}), "the local size has 1 components"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, err := Reflect(c.code, nil)
			require.ErrorContains(t, err, c.want)
			assert.Equal(t, Module{}, m)
		})
	}
}

// TestReflectDamaged truncates compiled modules at every word and overwrites every word. Reflect must not panic, and
// must reject a module truncated within the instruction list or return a valid result.
func TestReflectDamaged(t *testing.T) {
	for _, name := range []string{"plain", "specialised", "layout", "blocks", "matrix"} {
		code := file(t, name)
		for end := 0; end < len(code); end++ {
			_, err := Reflect(code[:end], nil)
			if end < 20 || end%4 != 0 {
				require.Error(t, err, "%s cut to %d bytes", name, end)
			}
		}
		for at := 0; at < len(code); at += 4 {
			for _, value := range []uint32{0, 1, 2, 0xffff, 0x10000, 0x7fffffff, 0x80000000, 0xffffffff} {
				damaged := append([]byte(nil), code...)
				binary.LittleEndian.PutUint32(damaged[at:], value)
				m, err := Reflect(damaged, Spec{7: value})
				if err != nil {
					require.Equal(t, Module{}, m)
				}
			}
		}
	}
}

func FuzzReflect(f *testing.F) {
	for _, name := range []string{"plain", "specialised", "layout", "blocks", "matrix", "empty", "paint"} {
		f.Add(file(f, name), uint32(7), uint32(3))
	}
	f.Fuzz(func(t *testing.T, code []byte, id, value uint32) {
		for _, spec := range []Spec{nil, {id: value}} {
			m, err := Reflect(code, spec)
			if err != nil {
				continue
			}
			if len(code) < 20 || m.LocalSize[0] == 0 || m.LocalSize[1] == 0 || m.LocalSize[2] == 0 {
				t.Fatalf("accepted without what a module needs: %+v", m)
			}
			for _, p := range m.PushMembers {
				if uint64(p.Offset)+uint64(p.Size) > uint64(m.PushBytes) {
					t.Fatalf("push member %+v ends after %d bytes", p, m.PushBytes)
				}
			}
		}
	})
}
