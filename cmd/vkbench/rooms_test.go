package main

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

// TestRooms wants every room complete: CONTRIBUTING.md, "A new kernel room".
func TestRooms(t *testing.T) {
	root := os.DirFS("../..")
	stems, err := roomStems(root)
	require.NoError(t, err)
	assert.Subset(t, stems, []string{"rmsnorm", "linear", "router_logits", "coor_descent", "select", "gather", "scatter"})
	cases := append(caseNames(benchCases()), "peak") // whose cases are the roofs
	problems, err := incompleteRooms(root, cases)
	require.NoError(t, err)
	assert.Empty(t, problems)
}

// roomStems lists the rooms: the files of pipelines, and the shaders that belong to none. What only adds to another name is a part of
// that room: select_sort.comp of select, and foo_plan.go of foo, unless it has a shader of its own name.
func roomStems(root fs.FS) ([]string, error) {
	shaders, err := names(root, "shaders/*.comp", ".comp")
	if err != nil {
		return nil, err
	}
	files, err := names(root, "pipelines/*.go", ".go")
	if err != nil {
		return nil, err
	}
	files = slices.DeleteFunc(files, func(n string) bool {
		return n == "doc" || n == "pipelines" || n == "attention" || n == "precision" || strings.HasSuffix(n, "_test")
	})
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

func names(root fs.FS, pattern, suffix string) ([]string, error) {
	list, err := fs.Glob(root, pattern)
	for i, file := range list {
		list[i] = strings.TrimSuffix(path.Base(file), suffix)
	}
	return list, err
}

// incompleteRooms says what rooms lack.
func incompleteRooms(root fs.FS, cases []string) ([]string, error) {
	stems, err := roomStems(root)
	if err != nil {
		return nil, err
	}
	var problems []string
	for _, stem := range stems {
		for _, wanted := range []struct{ dir, after string }{
			{"shaders", "*.comp"}, {"shaders/spv", "*.spv"}, {"pipelines", ".go"}, {"pipelines", "_test.go"}, {"internal/ref", ".go"},
		} {
			found, err := fs.Glob(root, path.Join(wanted.dir, stem+wanted.after))
			if err != nil {
				return nil, err
			}
			own := func(file string) bool { // not scatter_add.comp of a room scatter, if there is a room scatter_add
				rest := strings.TrimPrefix(path.Base(file), stem)
				return rest[0] == '.' || rest[0] == '_' && !slices.ContainsFunc(stems, func(other string) bool {
					return strings.HasPrefix(other, stem+"_") && strings.HasPrefix(path.Base(file), other)
				})
			}
			if !slices.ContainsFunc(found, own) {
				problems = append(problems, fmt.Sprintf("room %s has no %s/%s%s", stem, wanted.dir, stem, wanted.after))
			}
		}
		if !slices.Contains(cases, stem) {
			problems = append(problems, fmt.Sprintf("room %s has no case in vkbench bench", stem))
		}
	}
	return problems, nil
}

// TestRoomsCanFail takes every part of a room away, and adds rooms that are half there.
func TestRoomsCanFail(t *testing.T) {
	complete := func() fstest.MapFS {
		root := fstest.MapFS{}
		for _, name := range []string{
			"shaders/foo.comp", "shaders/foo_sort.comp", "shaders/spv/foo_vec4.spv", "pipelines/foo.go", "pipelines/foo_test.go", "internal/ref/foo.go",
			"shaders/foo_backward.comp", "shaders/spv/foo_backward.spv", "pipelines/foo_backward.go", "pipelines/foo_backward_test.go", "internal/ref/foo_backward.go",
			"pipelines/foo_plan.go", "pipelines/foo_plan_test.go", "pipelines/doc.go", "pipelines/pipelines.go", "pipelines/main_test.go",
		} {
			root[name] = &fstest.MapFile{}
		}
		return root
	}
	cases := []string{"foo", "foo_backward"}
	problems, err := incompleteRooms(complete(), cases)
	require.NoError(t, err)
	require.Empty(t, problems)
	for _, test := range []struct {
		without, with string
		cases         []string
		want          string
	}{
		{without: "shaders/spv/foo_vec4.spv", want: "room foo has no shaders/spv/foo*.spv"},
		{without: "pipelines/foo_test.go", want: "room foo has no pipelines/foo_test.go"},
		{without: "internal/ref/foo.go", want: "room foo has no internal/ref/foo.go"},
		{without: "internal/ref/foo_backward.go", want: "room foo_backward has no internal/ref/foo_backward.go"},
		{without: "shaders/spv/foo_backward.spv", want: "room foo_backward has no shaders/spv/foo_backward*.spv"},
		{without: "pipelines/foo_backward_test.go", want: "room foo_backward has no pipelines/foo_backward_test.go"},
		{cases: []string{"foo"}, want: "room foo_backward has no case"},
		{with: "shaders/bar.comp", want: "room bar has no pipelines/bar.go"},
		{with: "pipelines/bar.go", want: "room bar has no shaders/bar*.comp"},
		{with: "shaders/food.comp", want: "room food has no pipelines/food.go"},
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
		problems, err := incompleteRooms(root, test.cases)
		require.NoError(t, err)
		require.NotEmpty(t, problems, test)
		assert.Contains(t, strings.Join(problems, "\n"), test.want)
	}
}
