package verify

import (
	"encoding/binary"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/cli/command"
	"github.com/colt5-vulkan/colt5/internal/cli/commandtest"
	"github.com/colt5-vulkan/colt5/safetensors"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// damaged copies a golden case with changed metadata or tensors. data has the bytes of the tensors by name.
func damaged(t *testing.T, name string, change func(metadata map[string]string, data map[string][]byte)) string {
	t.Helper()
	return damagedFile(t, goldenDir+name+".safetensors", change)
}

func damagedFile(t *testing.T, from string, change func(metadata map[string]string, data map[string][]byte)) string {
	t.Helper()
	f, err := safetensors.Open(from)
	require.NoError(t, err)
	defer f.Close()
	data := map[string][]byte{}
	for _, n := range f.Names() {
		info, _ := f.Info(n)
		data[n] = make([]byte, info.Size())
		require.NoError(t, f.ReadInto(n, data[n]))
	}
	metadata := f.Metadata()
	change(metadata, data)
	var list []safetensors.Tensor
	for _, n := range f.Names() {
		info, _ := f.Info(n)
		list = append(list, safetensors.Tensor{Name: n, DType: info.DType, Shape: info.Shape, Data: safetensors.Bytes(data[n])})
	}
	path := filepath.Join(t.TempDir(), filepath.Base(from))
	require.NoError(t, safetensors.Write(path, metadata, list))
	return path
}

// add adds to an element of a float32 tensor.
func add(data []byte, at int, x float32) {
	old := math.Float32frombits(binary.LittleEndian.Uint32(data[4*at:]))
	binary.LittleEndian.PutUint32(data[4*at:], math.Float32bits(old+x))
}

func TestVerifyFailures(t *testing.T) {
	tested := map[string]bool{} // golden cases
	for _, test := range []struct {
		name, from, want string
		change           func(metadata map[string]string, data map[string][]byte)
	}{
		{"scores", "coor_descent_00", "y: error ", func(_ map[string]string, d map[string][]byte) { add(d["out.y"], 3, 0.001) }},
		{"values", "topk_11", "values: error ", func(_ map[string]string, d map[string][]byte) { add(d["out.values"], 3, 0.001) }},
		{"gates", "topk_11", "gates: error ", func(_ map[string]string, d map[string][]byte) { add(d["out.gates"], 0, 1) }},
		{"soft values", "topk_11", "coor_descent_values: error ", func(_ map[string]string, d map[string][]byte) { add(d["out.coor_descent_values"], 0, 0.01) }},
		{"order", "topk_11", "indices: element ", func(_ map[string]string, d map[string][]byte) {
			i := d["out.indices"]
			copy(i, append(append([]byte{}, i[4:8]...), i[:4]...))
		}},
		{"logits", "router_10", "logits: error ", func(_ map[string]string, d map[string][]byte) { add(d["route..logits"], 0, 0.01) }},
		{"all scores", "router_10", "scores_all: error ", func(_ map[string]string, d map[string][]byte) { add(d["route..scores_all"], 0, 0.01) }},
		{"slots", "router_10", "indices of row 0: ", func(_ map[string]string, d map[string][]byte) { d["route..indices"][0] ^= 1 }},
		{"slot scores", "router_10", "scores: error ", func(_ map[string]string, d map[string][]byte) { add(d["route..scores"], 0, 0.01) }},
		{"tokens", "router_10", "y: error ", func(_ map[string]string, d map[string][]byte) { add(d["out.y"], 0, 0.01) }},
		{"y", "feedforward_1", "y: error ", func(_ map[string]string, d map[string][]byte) { add(d["out.y"], 100, 0.01) }},
		{"route", "feedforward_1", "indices of row 0: ", func(_ map[string]string, d map[string][]byte) { d["route.router.indices"][0] ^= 1 }},
		{"route of a block", "block_1", "conditional_ff.router indices of row 0: ", func(_ map[string]string, d map[string][]byte) {
			d["route.conditional_ff.router.indices"][0] ^= 1
		}},
		{"logits of a second route", "attention_2", "kv_router logits: error ", func(_ map[string]string, d map[string][]byte) {
			add(d["route.kv_router.logits"], 96, 1)
		}},
		{"a later block's slots", "cross_2", "kv_router indices of row 2: ", func(_ map[string]string, d map[string][]byte) {
			d["route.kv_router.indices"][8*4] ^= 1
		}},
		{"queries of a window", "autoregressive_1", "q_router indices of row 1: ", func(_ map[string]string, d map[string][]byte) {
			d["route.q_router.indices"][8*4] ^= 1
		}},
		{"keys of a window", "autoregressive_1", "kv_router scores_all: error ", func(_ map[string]string, d map[string][]byte) {
			add(d["route.kv_router.scores_all"], 159, 0.01)
		}},
		{"scores of a patch", "image_1", "q_router scores_all: error ", func(_ map[string]string, d map[string][]byte) {
			add(d["route.q_router.scores_all"], 64*11, 0.01)
		}},
		{"classes", "vit_1", "y: error ", func(_ map[string]string, d map[string][]byte) { add(d["out.y"], 3, 0.01) }},
		{"name of a router", "attention_2", "kv_router: has no routing record", func(m map[string]string, d map[string][]byte) {
			m["config"] = strings.Replace(m["config"], `"num_heavy_tokens_kv": 20`, `"num_heavy_tokens_kv": 200`, 1)
		}},
		{"weight", "feedforward_1", "y: error ", func(_ map[string]string, d map[string][]byte) { add(d["param.light_ff.1.bias"], 0, 1) }},
		{"option", "coor_descent_00", `unknown key "nonsense"`, func(m map[string]string, _ map[string][]byte) { m["config"] = `{"k": 3, "nonsense": 1}` }},
		{"value of an option", "coor_descent_00", "Eps is -1", func(m map[string]string, _ map[string][]byte) { m["config"] = `{"k": 3, "eps": -1}` }},
		{"call", "router_10", "num_tokens is 0", func(m map[string]string, _ map[string][]byte) { m["call"] = "{}" }},
		{"shape of a weight", "router_10", "param.routing_token has shape", func(m map[string]string, _ map[string][]byte) {
			m["config"] = strings.Replace(m["config"], `"dim": `, `"dim": 1`, 1)
		}},
	} {
		if testing.Short() && (tested[test.from] || !slices.Contains([]string{"coor_descent_00", "topk_11", "router_10", "feedforward_1"}, test.from)) {
			continue // the kernels of other modules take seconds to compile
		}
		tested[test.from] = true
		t.Run(test.name, func(t *testing.T) {
			path := damaged(t, test.from, test.change)
			code, out, remarks := program.RunOnDevice(t, "verify", path, goldenDir+"topk_10.safetensors", "-o", "json")
			assert.Equal(t, command.ExitFailed, code)
			assert.Contains(t, remarks, "1 passed, 1 failed")
			assert.Contains(t, remarks, "1 of 2 cases failed")
			r := commandtest.Objects(t, out)
			assert.Equal(t, "FAILED", r[0]["result"])
			assert.Contains(t, r[0]["remark"], test.want)
			assert.Equal(t, "passed", r[1]["result"])
		})
	}
}

func TestVerifyUnreadable(t *testing.T) {
	whole, err := os.ReadFile(goldenDir + "topk_10.safetensors")
	require.NoError(t, err)
	path := commandtest.File(t, "cut.safetensors", string(whole[:len(whole)/2]))
	code, out, remarks := program.RunOnDevice(t, "verify", path)
	assert.Equal(t, command.ExitFailed, code)
	assert.Contains(t, out, "| cut")
	assert.Contains(t, out, "FAILED")
	assert.Contains(t, out, "0 passed, 1 failed")
	assert.Contains(t, remarks, "1 of 1 cases failed")
}

func TestVerifyUnknown(t *testing.T) {
	path := damaged(t, "topk_10", func(m map[string]string, _ map[string][]byte) { m["module"] = "Sorcery" })
	code, out, remarks := program.RunOnDevice(t, "verify", path)
	assert.Equal(t, command.ExitFailed, code, "nothing ran")
	assert.Contains(t, out, "0 passed, 0 failed, of unknown modules: Sorcery 1")
	assert.Contains(t, remarks, "there are cases of unknown modules, which did not run: Sorcery 1")

	code, out, remarks = program.RunOnDevice(t, "verify", path, goldenDir+"coor_descent_00.safetensors")
	assert.Equal(t, command.ExitFailed, code, "not all ran")
	assert.Contains(t, out, "1 passed, 0 failed, of unknown modules: Sorcery 1")
	assert.Equal(t, 1, strings.Count(remarks, "\n"), remarks)
}
