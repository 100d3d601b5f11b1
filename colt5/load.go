package colt5

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/colt5-vulkan/colt5/internal/errtext"
	"github.com/colt5-vulkan/colt5/safetensors"
	"github.com/colt5-vulkan/colt5/vk"
)

// loadFile loads all parameters from a file, or from the files of an index.
func (w *weights) loadFile(ctx context.Context, path string) error {
	f, err := safetensors.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return w.load(ctx, f, path+": ", safetensors.LoadOptions{})
}

// load loads the parameters that have a tensor. Names, shapes and dtypes are checked before any data is read. where is
// the start of errors that do not come from src.
func (w *weights) load(ctx context.Context, src safetensors.Source, where string, o safetensors.LoadOptions) error {
	if src == nil {
		return errors.New("src is nil, want a safetensors.Source")
	}
	list, err := w.match(src, o)
	if err != nil {
		return fmt.Errorf("%s%w", where, err)
	}
	return w.replace(ctx, parametersOf(list), func(i int) ([]float32, error) {
		p, tensor := w.list[list[i].parameter], list[i].tensor
		data, err := src.ReadFloat32(tensor)
		switch {
		case err != nil:
			return nil, err
		case len(data) != p.Tensor.Len():
			return nil, fmt.Errorf("%s%s has %d elements, want %d", where, errtext.Name(tensor), len(data), p.Tensor.Len())
		case o.AllowNonFinite:
			return data, nil
		}
		for at, v := range data {
			if v-v != 0 {
				return nil, fmt.Errorf("%s%s: element %v is %v, want a finite number, or LoadOptions.AllowNonFinite",
					where, errtext.Name(tensor), indexOf(at, p.Tensor.shape), v)
			}
		}
		return data, nil
	})
}

// indexOf converts the position of an element to an index for each dimension.
func indexOf(at int, shape []int) []int {
	index := make([]int, len(shape))
	for d := len(shape) - 1; d >= 0; d-- {
		index[d], at = at%shape[d], at/shape[d]
	}
	return index
}

// match is a parameter and the tensor that it is loaded from.
type match struct {
	parameter int // index in weights.list
	tensor    string
}

func parametersOf(list []match) []int {
	indices := make([]int, len(list))
	for i, m := range list {
		indices[i] = m.parameter
	}
	return indices
}

// match finds the tensors of the parameters, in the order of src.
func (w *weights) match(src safetensors.Source, o safetensors.LoadOptions) ([]match, error) {
	parameters := make(map[string]int, len(w.list))
	for i, p := range w.list {
		parameters[p.Name] = i
	}
	var list []match
	var wrong, missing, extra errtext.Problems
	var names []string // of all tensors that are not ignored
	tensors := make([]string, len(w.list))
	found := make([]bool, len(w.list))
	for _, tensor := range src.Names() {
		name, selected := o.Name(tensor)
		if !selected || w.buffers[name] {
			continue
		}
		names = append(names, name)
		i, ok := parameters[name]
		switch {
		case !ok && strings.HasSuffix("."+name, rotaryBuffer):
			extra.Addf("%s is of a module with rotary_emb, which this module has not", errtext.Name(name))
		case !ok:
			extra.Addf("%s is not a parameter of this module", errtext.Name(name))
		case found[i]:
			wrong.Addf("%s is the parameter of two tensors, want one", errtext.Name(name))
		default:
			found[i], tensors[i] = true, tensor
			list = append(list, match{i, tensor})
		}
	}
	for i, p := range w.list {
		if found[i] {
			p.compare(src, tensors[i], &wrong)
		} else {
			missing.Addf("%s is missing, want %v", errtext.Name(p.Name), p.Tensor)
		}
	}
	if missing.Count() == len(w.list) || missing.Count() > 0 && !o.AllowMissing {
		if err := w.suggestPrefix(names, o); err != nil {
			return nil, err
		}
	}
	if len(names) == 0 && o.Prefix != "" {
		return nil, fmt.Errorf("none of %d tensors begins with the prefix %s", len(src.Names()), errtext.Quote(o.Prefix))
	}
	if o.AllowMissing && len(list) > 0 {
		missing = errtext.Problems{}
	}
	if o.AllowExtra {
		extra = errtext.Problems{}
	}
	return list, errtext.Merge(wrong, missing, extra)
}

// compare checks dtype and shape of a tensor.
func (p Parameter) compare(src safetensors.Source, tensor string, wrong *errtext.Problems) {
	info, ok := src.Info(tensor)
	name := errtext.Name(tensor)
	switch {
	case !ok:
		wrong.Addf("%s has no Info, although it is in Names", name)
	case !sameShape(info.Shape, p.Tensor.shape):
		wrong.Addf("%s is %s%s, want %v", name, errtext.Name(string(info.DType)), errtext.Shape(info.Shape), p.Tensor)
	case info.DType != safetensors.F64 && info.DType != safetensors.F32 && info.DType != safetensors.F16 && info.DType != safetensors.BF16:
		wrong.Addf("%s is %s, want F64, F32, F16 or BF16", name, errtext.Name(string(info.DType)))
	}
}

// suggestPrefix returns an error if one prefix, removed or added, gives every parameter a tensor or every tensor a
// parameter.
func (w *weights) suggestPrefix(names []string, o safetensors.LoadOptions) error {
	if len(names) == 0 || len(w.list) == 0 || o.AddPrefix != "" || o.Rename != nil {
		return nil
	}
	own := make([]string, len(w.list))
	for i, p := range w.list {
		own[i] = p.Name
	}
	if prefix := commonPrefix(names, own); prefix != "" {
		return fmt.Errorf("all parameters have the prefix %s, want %s: LoadFrom removes it with LoadOptions.Prefix",
			errtext.Quote(o.Prefix+prefix), errtext.Quote(o.Prefix))
	}
	if prefix := commonPrefix(slices.AppendSeq(own, maps.Keys(w.buffers)), names); prefix != "" {
		return fmt.Errorf("all tensors lack the prefix %s: LoadFrom adds it with LoadOptions.AddPrefix", errtext.Quote(prefix))
	}
	return nil
}

// commonPrefix returns a prefix with which every part is in whole, or "" if there is none.
func commonPrefix(whole, parts []string) string {
	all := make(map[string]bool, len(whole))
	for _, name := range whole {
		all[name] = true
	}
candidates:
	for _, name := range whole {
		prefix, ok := strings.CutSuffix(name, parts[0])
		if !ok || !strings.HasSuffix(prefix, ".") {
			continue
		}
		for _, part := range parts {
			if !all[prefix+part] {
				continue candidates
			}
		}
		return prefix
	}
	return ""
}

// replace gives parameters new elements: the i-th of the list those that data(i) returns. If it fails, the parameters
// keep their elements: everything is uploaded beside them first, and then copied in one submit, which no context ends.
//
// Where the device has no memory for that, the parameters are written one by one, after data was called once for each
// without an error. If that fails midway, the weights are incomplete until a later replace of all succeeds, also for
// modules that share them.
func (w *weights) replace(ctx context.Context, list []int, data func(i int) ([]float32, error)) (err error) {
	if err := w.incomplete(); err != nil && len(list) < len(w.list) {
		return fmt.Errorf("%d of %d parameters, want all: %w", len(list), len(w.list), err)
	}
	staged, err := w.stage(list)
	defer func() {
		for _, t := range staged {
			err = errors.Join(err, t.Close())
		}
	}()
	if errors.Is(err, vk.ErrOutOfMemory) {
		for i := range list {
			if _, err := data(i); err != nil {
				return err
			}
		}
		return w.replaceInPlace(ctx, list, data)
	}
	for i, t := range staged {
		if err == nil {
			err = ctx.Err()
		}
		var values []float32
		if err == nil {
			values, err = data(i)
		}
		if err == nil {
			err = t.Write(ctx, values)
		}
	}
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return err
	}
	return w.copyStaged(context.WithoutCancel(ctx), list, staged)
}

// stage makes tensors for the new elements of parameters. After an error it returns none.
func (w *weights) stage(list []int) ([]*Tensor, error) {
	alloc := w.allocStaged
	if alloc == nil {
		alloc = func(shape []int) (*Tensor, error) { return NewTensor(w.dev, F32, shape...) }
	}
	var staged []*Tensor
	for _, i := range list {
		t, err := alloc(w.list[i].Tensor.shape)
		if err != nil {
			for _, t := range staged {
				err = errors.Join(err, t.Close())
			}
			return nil, err
		}
		staged = append(staged, t)
	}
	return staged, nil
}

// copyStaged copies the new elements in one submit.
func (w *weights) copyStaged(ctx context.Context, list []int, staged []*Tensor) (err error) {
	if len(list) == 0 {
		return nil
	}
	commands, err := w.dev.NewCommandList(vk.CommandListConfig{Name: "new weights"})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, commands.Close()) }()
	for n, i := range list {
		if err := commands.Copy(w.list[i].Tensor.memory, staged[n].memory); err != nil {
			return err
		}
	}
	err = commands.Run(ctx)
	for _, i := range list {
		w.list[i].Tensor.version.Add(1) // even after an error: a device that was too slow still copies
	}
	if err == nil {
		w.complete(list)
	}
	return err
}

// replaceInPlace writes the parameters one by one. If that fails midway, the weights are incomplete.
func (w *weights) replaceInPlace(ctx context.Context, list []int, data func(i int) ([]float32, error)) error {
	for n, i := range list {
		values, err := data(n)
		wrote := n > 0
		if err == nil {
			err = w.list[i].Tensor.Write(ctx, values)
			wrote = true
		}
		if err != nil {
			if wrote {
				for _, i := range list {
					t := w.list[i].Tensor
					t.storage.setIncomplete(t.memory, err)
				}
			}
			return err
		}
	}
	w.complete(list)
	return nil
}

// incomplete is a range of a storage whose elements belong to weights that were replaced in part. Modules that share
// the storage see it, too.
type incomplete struct {
	memory vk.Range
	err    error // of the call that failed
}

func (s *storage) setIncomplete(memory vk.Range, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.incomplete = append(s.incomplete, incomplete{memory, err})
}

// complete notes that all of some memory has new elements.
func (s *storage) complete(memory vk.Range) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.incomplete = slices.DeleteFunc(s.incomplete, func(p incomplete) bool {
		return p.memory.Offset() >= memory.Offset() && p.memory.Offset()+p.memory.Size() <= memory.Offset()+memory.Size()
	})
}

// incompleteError returns the error of a call that replaced elements of some memory in part; nil if there is none.
func (s *storage) incompleteError(memory vk.Range) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.incomplete {
		if memory.Offset() < p.memory.Offset()+p.memory.Size() && p.memory.Offset() < memory.Offset()+memory.Size() {
			return p.err
		}
	}
	return nil
}

// incomplete returns an error if some of the weights have new elements and some old, because a call of this module, or
// of one that shares its weights, failed midway.
func (w *weights) incomplete() error {
	for _, p := range w.list {
		if err := p.Tensor.storage.incompleteError(p.Tensor.memory); err != nil {
			return fmt.Errorf("the weights are incomplete since an earlier call failed; Load or Init must succeed first (%w)", err)
		}
	}
	return nil
}

// complete notes that the parameters of a list have new elements.
func (w *weights) complete(list []int) {
	for _, i := range list {
		t := w.list[i].Tensor
		t.storage.complete(t.memory)
	}
}

// save writes a state dict and replaces the file atomically.
func (w *weights) save(ctx context.Context, path string) error {
	if err := w.incomplete(); err != nil {
		return err
	}
	var list []safetensors.Tensor
	for _, p := range w.list {
		shape := make([]int64, len(p.Tensor.shape))
		for i, n := range p.Tensor.shape {
			shape[i] = int64(n)
		}
		list = append(list, safetensors.Tensor{Name: p.Name, DType: safetensors.F32, Shape: shape, Data: func(to io.Writer) error {
			data, err := p.Tensor.Float32(ctx)
			if err != nil {
				return err
			}
			return safetensors.Float32s(data)(to)
		}})
	}
	return safetensors.Write(path, nil, list)
}
