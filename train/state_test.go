package train

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/colt5-vulkan/colt5/safetensors"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A run that resumes has the bits of one that was not interrupted.
func TestOptimizerResume(t *testing.T) {
	config := OptimizerConfig{
		Clip: 1, AdamW: AdamW{Rate: 0.1}, Schedule: Schedule{Kind: InverseSquareRoot, WarmUp: 4}, LossScale: LossScale{Dynamic: true, Initial: 1, GrowthInterval: 3},
	}
	whole := newProblem(t, config)
	whole.run(20)

	first := newProblem(t, config)
	first.run(11)
	path := filepath.Join(t.TempDir(), "optimizer.safetensors")
	require.NoError(t, first.optimizer.Save(t.Context(), path))
	state, err := first.optimizer.State(t.Context())
	require.NoError(t, err)
	assert.Equal(t, State{Steps: 11, Updates: 11, LossScale: 8, GoodSteps: 2}, state)

	second := newProblem(t, config)
	for i, q := range first.parameters {
		second.upload(second.parameters[i].Data, first.download(q.Data))
	}
	require.NoError(t, second.optimizer.Load(t.Context(), path))
	records, err := second.optimizer.Records(t.Context(), 0)
	require.NoError(t, err)
	assert.Empty(t, records, "those of the first run are not there")
	second.run(9)
	assert.Equal(t, whole.values(), second.values())
	records, err = second.optimizer.Records(t.Context(), 0)
	require.NoError(t, err)
	want, err := whole.optimizer.Records(t.Context(), 11)
	require.NoError(t, err)
	assert.Equal(t, want, records)

	file, err := safetensors.Open(path)
	require.NoError(t, err)
	defer file.Close()
	assert.Len(t, file.Names(), 8)
	info, ok := file.Info("exp_avg_sq.a.weight")
	assert.True(t, ok)
	assert.Equal(t, []int64{3, 5}, info.Shape)
}

func TestOptimizerLoadErrors(t *testing.T) {
	p := newProblem(t, OptimizerConfig{})
	p.run(1)
	path := filepath.Join(t.TempDir(), "optimizer.safetensors")
	require.NoError(t, p.optimizer.Save(t.Context(), path))
	file, err := safetensors.Open(path)
	require.NoError(t, err)
	defer file.Close()
	tensors := func() (list []safetensors.Tensor) {
		for _, name := range file.Names() {
			info, _ := file.Info(name)
			data, err := file.ReadFloat32(name)
			require.NoError(t, err)
			list = append(list, safetensors.Tensor{Name: name, DType: info.DType, Shape: info.Shape, Data: safetensors.Float32s(data)})
		}
		return list
	}
	before := p.values()
	for want, change := range map[string]func(metadata map[string]string, list []safetensors.Tensor) []safetensors.Tensor{
		"exp_avg.x is no moment of a parameter": func(_ map[string]string, list []safetensors.Tensor) []safetensors.Tensor {
			list[0].Name = "exp_avg.x"
			return list
		},
		"exp_avg.a.weight is missing, want F32[3 5]": func(_ map[string]string, list []safetensors.Tensor) []safetensors.Tensor {
			return list[1:]
		},
		"exp_avg.a.weight is F32[5 3], want F32[3 5]": func(_ map[string]string, list []safetensors.Tensor) []safetensors.Tensor {
			list[0].Shape = []int64{5, 3}
			return list
		},
		`metadata updates is "", want a number of steps`: func(m map[string]string, list []safetensors.Tensor) []safetensors.Tensor {
			delete(m, "updates")
			return list
		},
		`metadata loss_scale is "0", want 5.9`: func(m map[string]string, list []safetensors.Tensor) []safetensors.Tensor {
			m["loss_scale"] = "0"
			return list
		},
	} {
		bad, metadata := filepath.Join(t.TempDir(), "bad.safetensors"), map[string]string{}
		for key, value := range file.Metadata() {
			metadata[key] = value
		}
		list := change(metadata, tensors())
		require.NoError(t, safetensors.Write(bad, metadata, list))
		assert.ErrorContains(t, p.optimizer.Load(t.Context(), bad), want)
		assert.Equal(t, before, p.values())
	}
	assert.ErrorIs(t, p.optimizer.Load(t.Context(), path+"x"), os.ErrNotExist)
}
