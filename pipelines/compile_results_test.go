package pipelines

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/colt5-vulkan/colt5/shaders"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// results are the results of earlier runs for the same kernels, device and driver. A file keeps them, one JSON object
// per line. A kernel is added as soon as it is compiled, so that a run that is interrupted continues where it was.
type results struct {
	rows map[string]result // by resultKey
	file *os.File          // nil: nothing is stored
}

// result is what the compiler reported of a kernel.
type result struct {
	Key     string             `json:"key"`
	Seconds float64            `json:"seconds"`
	Stats   map[string]float64 `json:"stats"`
}

// openResults reads a file of results, which need not exist. An incomplete line at the end, of a run that was
// interrupted, is removed. Without a name nothing is stored.
func openResults(name string) (*results, error) {
	list := &results{rows: map[string]result{}}
	if name == "" {
		return list, nil
	}
	var err error
	if list.file, err = os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o644); err != nil {
		return nil, err
	}
	for in := json.NewDecoder(list.file); ; {
		var r result
		end := in.InputOffset()
		err := in.Decode(&r)
		if err == nil {
			list.rows[r.Key] = r
			continue
		}
		if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, errors.Join(fmt.Errorf("%s: %w", name, err), list.file.Close())
		}
		if err = list.file.Truncate(end); err == nil {
			_, err = list.file.Seek(end, io.SeekStart)
		}
		return list, err
	}
}

// add stores a result. One that took too long is measured again by the next run.
func (l *results) add(r result) error {
	if l.file == nil || r.Seconds > maxCompileTime.Seconds() {
		return nil
	}
	line, err := json.Marshal(r)
	if err == nil {
		_, err = l.file.Write(append([]byte{'\n'}, line...))
	}
	return err
}

func (l *results) close() error {
	if l.file == nil {
		return nil
	}
	return l.file.Close()
}

// resultKey identifies a kernel on a device. Everything that Vulkan says about the device and its driver counts.
func resultKey(info vk.Info, config vk.KernelConfig) string {
	return fmt.Sprintf("%x", sha256.Sum256(fmt.Append(nil, info, creationKey(config))))
}

// TestResults checks that results are found again for the same kernel, device and driver only.
func TestResults(t *testing.T) {
	code, err := shaders.SPV("scatter")
	require.NoError(t, err)
	config := vk.KernelConfig{Code: code, Spec: map[uint32]uint32{shaders.ScatterAdd: 1}}
	info := vk.Info{Name: "chip", DriverInfo: "Mesa 26.1.6"}
	key := resultKey(info, config)
	for _, other := range []string{
		resultKey(vk.Info{Name: "chip 2", DriverInfo: "Mesa 26.1.6"}, config),
		resultKey(vk.Info{Name: "chip", DriverInfo: "Mesa 26.1.7"}, config),
		resultKey(vk.Info{Name: "chip", DriverInfo: "Mesa 26.1.6", Caps: vk.Caps{SubgroupMin: 8}}, config),
		resultKey(info, vk.KernelConfig{Code: code}),
		resultKey(info, vk.KernelConfig{Code: append([]byte{}, code[:len(code)-4]...), Spec: config.Spec}),
		resultKey(info, vk.KernelConfig{Code: code, Spec: config.Spec, SubgroupSize: 8}),
	} {
		assert.NotEqual(t, key, other)
	}

	name := filepath.Join(t.TempDir(), "chip.results")
	stored := result{key, 0.5, map[string]float64{"Spills": 3}}
	read := func(want ...result) {
		list, err := openResults(name)
		require.NoError(t, err)
		defer func() { assert.NoError(t, list.close()) }()
		assert.Len(t, list.rows, len(want))
		for _, r := range want {
			assert.Equal(t, r, list.rows[r.Key])
		}
		require.NoError(t, list.add(stored))
		require.NoError(t, list.add(result{Key: "slow", Seconds: maxCompileTime.Seconds() + 0.1}))
	}
	read()
	read(stored)
	whole, err := os.ReadFile(name)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(name, whole[:len(whole)-5], 0o644))
	read(stored) // the second line was incomplete
	read(stored)
	require.NoError(t, os.WriteFile(name, []byte("[]"), 0o644))
	_, err = openResults(name)
	assert.ErrorContains(t, err, name)

	list, err := openResults("")
	require.NoError(t, err)
	require.NoError(t, list.add(stored))
	require.NoError(t, list.close())
}
