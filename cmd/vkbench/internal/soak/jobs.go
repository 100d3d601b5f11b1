package soak

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/cases"
	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/dims"
	"github.com/colt5-vulkan/colt5/internal/cli/command"
	"github.com/colt5-vulkan/colt5/internal/cli/scope"
	"github.com/colt5-vulkan/colt5/internal/suggest"
	"github.com/colt5-vulkan/colt5/pipelines"
	"github.com/colt5-vulkan/colt5/vk"
)

const sizes = 3 // of each job

// digest is a SHA-256 of results.
type digest = [32]byte

// job is what a cycle runs. run leaves nothing open, and its result depends on the precision and the size alone.
type job struct {
	name      string
	sizes     [sizes][]int
	precision pipelines.DType
	halves    bool // 16-bit variants exist
	run       func(ctx context.Context, dev *vk.Device, p pipelines.DType, size int) (digest, error)
}

func (j *job) title(size int) string {
	return fmt.Sprintf("%s %s %v", j.name, dims.Format(j.sizes[size]), j.precision)
}

// allJobs returns a job for each module and its backward pass, for training steps, and for what is no module of its own.
func allJobs() []job {
	small := map[string][]int{} // the smallest sizes that have a meaning are those of backward passes on CPU drivers
	backward := cases.ModulesBackward()
	for _, c := range backward {
		small[strings.TrimSuffix(c.Name, cases.BackwardSuffix)] = c.SmallSizes[0]
	}
	var list []job
	for _, c := range slices.Concat(cases.Modules(), backward) {
		list = append(list, caseJob(c, small[strings.TrimSuffix(c.Name, cases.BackwardSuffix)]))
	}
	return append(list, generateJob(), saveLoadJob())
}

// caseJob runs a case at a size, at a size with more batch items or rows, and at one with more tokens or entries.
func caseJob(c cases.Case, size []int) job {
	more, longer := slices.Clone(size), slices.Clone(size)
	more[0]++
	if d := c.Dims[1]; d == "tokens" || d == "entries" {
		longer[1] += 9
	} else { // images
		longer[0] += 2
	}
	j := job{name: c.Name, sizes: [sizes][]int{size, more, longer}, halves: c.Has16Bit()}
	j.run = func(ctx context.Context, dev *vk.Device, p pipelines.DType, i int) (sum digest, err error) {
		err = scope.Run(ctx, dev, func(s *scope.Scope) error {
			w, err := c.Setup(&cases.Builder{Scope: s, Precision: p}, j.sizes[i])
			if s.Err() != nil { // usually it is err, or the cause of err
				err = s.Err()
			}
			if err != nil {
				return err
			}
			if err := w.Validate(ctx); err != nil {
				return err
			}
			first, err := w.Digest(ctx)
			if err != nil {
				return err
			}
			if err := w.Run(ctx); err != nil {
				return err
			}
			if sum, err = w.Digest(ctx); err == nil && sum != first && !c.Changes() {
				err = fmt.Errorf("the same call with the same tensors gives other bits")
			}
			return err
		})
		return sum, err
	}
	return j
}

func names(list []job) (all []string) {
	for _, j := range list {
		all = append(all, j.name)
	}
	return all
}

// selectJobs returns the jobs with these names; none: all.
func selectJobs(list []job, only []string) (selected []job, err error) {
	if len(only) == 0 {
		return list, nil
	}
	for _, name := range only {
		i := slices.Index(names(list), name)
		if i < 0 {
			return nil, command.Usagef("-only: there is no case %q%s", name, suggest.Phrase(name, names(list)))
		}
		selected = append(selected, list[i])
	}
	return selected, nil
}
