package cases

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestKernels requires all files of every kernel under the kernel's stem: CONTRIBUTING.md, "How to add a kernel".
func TestKernels(t *testing.T) {
	root := os.DirFS("../../../..")
	stems, err := kernelStems(root)
	require.NoError(t, err)
	assert.Subset(t, stems, []string{"rmsnorm", "linear", "router_logits", "coor_descent", "select", "gather", "scatter", "peak"})
	cases := append(Names(All()), "peak") // the kernel of `vkbench peak`
	problems, err := incompleteKernels(root, cases)
	require.NoError(t, err)
	assert.Empty(t, problems)
}

// elsewhere are the packages of kernels that are not in pipelines: no layer uses them.
var elsewhere = map[string]string{"peak": "internal/peak"}

// shared are the files of pipelines that several kernels use.
var shared = []string{"doc", "attention", "attention_backward", "attention_backward_lowreg", "attention_backward_tiles", "attention_lowreg", "attention_tiles", "check", "dtype", "grid", "kernel", "kernel_choice", "norm_backward", "precision", "registers"}

// kernelStems lists the kernels: the files of pipelines that are not shared, and the shaders that belong to none of
// them. A file whose name extends the stem of a kernel belongs to that kernel: select_sort.comp to select, and
// foo_plan.go to foo, unless there is a shader of the same name.
func kernelStems(root fs.FS) ([]string, error) {
	shaders, err := fileNames(root, "shaders/src/*.comp", ".comp")
	if err != nil {
		return nil, err
	}
	files, err := fileNames(root, "pipelines/*.go", ".go")
	if err != nil {
		return nil, err
	}
	files = slices.DeleteFunc(files, func(n string) bool { return slices.Contains(shared, n) || strings.HasSuffix(n, "_test") })
	stems := map[string]bool{}
	for _, n := range files {
		if slices.Contains(shaders, n) || !partOf(n, files) {
			stems[n] = true
		}
	}
	for _, n := range shaders {
		if !stems[n] && !partOf(n, slices.Collect(maps.Keys(stems))) {
			stems[n] = true
		}
	}
	return slices.Sorted(maps.Keys(stems)), nil
}

func partOf(name string, others []string) bool {
	return slices.ContainsFunc(others, func(o string) bool { return strings.HasPrefix(name, o+"_") })
}

func fileNames(root fs.FS, pattern, suffix string) ([]string, error) {
	list, err := fs.Glob(root, pattern)
	for i, file := range list {
		list[i] = strings.TrimSuffix(path.Base(file), suffix)
	}
	return list, err
}

// incompleteKernels lists what kernels lack.
func incompleteKernels(root fs.FS, cases []string) ([]string, error) {
	stems, err := kernelStems(root)
	if err != nil {
		return nil, err
	}
	var problems []string
	for _, stem := range stems {
		dir := "pipelines"
		if d, ok := elsewhere[stem]; ok {
			dir = d
		}
		for _, wanted := range []struct{ dir, after string }{
			{"shaders/src", "*.comp"}, {"shaders/src/spv", "*.spv"}, {dir, ".go"}, {dir, "_test.go"}, {"internal/ref", ".go"},
		} {
			found, err := fs.Glob(root, path.Join(wanted.dir, stem+wanted.after))
			if err != nil {
				return nil, err
			}
			own := func(file string) bool { // not scatter_add.comp of a kernel scatter, if there is a kernel scatter_add
				rest := strings.TrimPrefix(path.Base(file), stem)
				return rest[0] == '.' || rest[0] == '_' && !slices.ContainsFunc(stems, func(other string) bool {
					return strings.HasPrefix(other, stem+"_") && strings.HasPrefix(path.Base(file), other)
				})
			}
			if !slices.ContainsFunc(found, own) {
				problems = append(problems, fmt.Sprintf("kernel %s has no %s/%s%s", stem, wanted.dir, stem, wanted.after))
			}
		}
		if !slices.Contains(cases, stem) {
			problems = append(problems, fmt.Sprintf("kernel %s has no case in vkbench bench", stem))
		}
	}
	return problems, nil
}

// TestKernelsCanFail removes each file of a kernel, and adds kernels with missing files.
func TestKernelsCanFail(t *testing.T) {
	complete := func() fstest.MapFS {
		root := fstest.MapFS{}
		for _, name := range []string{
			"shaders/src/foo.comp", "shaders/src/foo_sort.comp", "shaders/src/spv/foo_vec4.spv", "pipelines/foo.go", "pipelines/foo_test.go", "internal/ref/foo.go",
			"shaders/src/foo_backward.comp", "shaders/src/spv/foo_backward.spv", "pipelines/foo_backward.go", "pipelines/foo_backward_test.go", "internal/ref/foo_backward.go",
			"pipelines/foo_plan.go", "pipelines/foo_plan_test.go", "pipelines/doc.go", "pipelines/grid.go", "pipelines/main_test.go",
			"shaders/src/peak.comp", "shaders/src/spv/peak_f16_f32.spv", "internal/peak/peak.go", "internal/peak/peak_test.go", "internal/ref/peak.go",
		} {
			root[name] = &fstest.MapFile{}
		}
		return root
	}
	cases := []string{"foo", "foo_backward", "peak"}
	problems, err := incompleteKernels(complete(), cases)
	require.NoError(t, err)
	require.Empty(t, problems)
	for _, test := range []struct {
		without, with string
		cases         []string
		want          string
	}{
		{without: "shaders/src/spv/foo_vec4.spv", want: "kernel foo has no shaders/src/spv/foo*.spv"},
		{without: "pipelines/foo_test.go", want: "kernel foo has no pipelines/foo_test.go"},
		{without: "internal/ref/foo.go", want: "kernel foo has no internal/ref/foo.go"},
		{without: "internal/ref/foo_backward.go", want: "kernel foo_backward has no internal/ref/foo_backward.go"},
		{without: "shaders/src/spv/foo_backward.spv", want: "kernel foo_backward has no shaders/src/spv/foo_backward*.spv"},
		{without: "pipelines/foo_backward_test.go", want: "kernel foo_backward has no pipelines/foo_backward_test.go"},
		{without: "internal/peak/peak.go", want: "kernel peak has no internal/peak/peak.go"},
		{without: "internal/peak/peak_test.go", want: "kernel peak has no internal/peak/peak_test.go"},
		{cases: []string{"foo", "peak"}, want: "kernel foo_backward has no case"},
		{with: "shaders/src/bar.comp", want: "kernel bar has no pipelines/bar.go"},
		{with: "pipelines/bar.go", want: "kernel bar has no shaders/src/bar*.comp"},
		{with: "shaders/src/food.comp", want: "kernel food has no pipelines/food.go"},
	} {
		root := complete()
		if test.without != "" {
			require.Contains(t, root, test.without)
			delete(root, test.without)
		}
		if test.with != "" {
			root[test.with] = &fstest.MapFile{}
		}
		if test.cases == nil {
			test.cases = append(slices.Clone(cases), "bar", "food")
		}
		problems, err := incompleteKernels(root, test.cases)
		require.NoError(t, err)
		require.NotEmpty(t, problems, test)
		assert.Contains(t, strings.Join(problems, "\n"), test.want)
	}
}
