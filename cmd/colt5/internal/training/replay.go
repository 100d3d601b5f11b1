package training

import (
	"errors"
	"fmt"
	"slices"

	"github.com/colt5-vulkan/colt5/cmd/colt5/internal/settings"
	"github.com/colt5-vulkan/colt5/colt5"
	"github.com/colt5-vulkan/colt5/safetensors"
)

// replay is a file of what the routers of a language model select: i32 tensors [lists, tokens] named 000000, 000001, .., in the
// order of steps, layers, and routers, of which each layer has those of queries and of keys and values.
type replay struct {
	file    *safetensors.File
	routers []replayedRouter // of a step, in order
}

// replayedRouter is a router of the model. A list of its record that starts a sequence has no tokens, and none in the file.
type replayedRouter struct {
	name          string
	items, routes int
	windows       int // of an item, with the first one
	window        int // bytes of a window
	count         int // tokens of a list
	queries       bool
}

// openReplay opens a file for the steps of a configuration.
func openReplay(path string, c settings.Config) (*replay, error) {
	r := &replay{}
	if err := r.addRouters(c); err != nil {
		return nil, err
	}
	f, err := safetensors.Open(path)
	if err != nil {
		return nil, err
	}
	r.file = f
	if err := r.check(c.Run.Steps); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return r, nil
}

func (r *replay) addRouters(c settings.Config) error {
	t := c.Transformer
	window := t.HeavyWindowSize
	if window == 0 {
		window = t.LightWindowSize
	}
	switch {
	case c.Length%window != 0 || c.Length == window:
		return fmt.Errorf("the length is %d, want a multiple of the window of routing, %d, and more than one window", c.Length, window)
	case t.NumHeavyTokensQ >= window:
		return fmt.Errorf("%d of the %d bytes of a window are queries, want fewer: nothing is selected", t.NumHeavyTokensQ, window)
	}
	for layer := range t.Depth {
		prefix := fmt.Sprintf("AutoregressiveTransformer.layers.%d.attn.", layer)
		q := replayedRouter{name: prefix + "q_router", items: c.Batch, routes: 1, windows: c.Length / window, window: window, count: t.NumHeavyTokensQ, queries: true}
		r.routers = append(r.routers, q)
		if c.Length > t.NumHeavyTokensKV {
			kv := q
			kv.name, kv.routes, kv.count, kv.queries = prefix+"kv_router", t.NumRoutedKV, t.NumHeavyTokensKV, false
			r.routers = append(r.routers, kv)
		}
	}
	return nil
}

// check checks the names, types and shapes of all tensors.
func (r *replay) check(steps int) error {
	want := steps * len(r.routers)
	if have := len(r.file.Names()); have != want {
		return fmt.Errorf("the file has %d tensors, want %d: %d steps of %d routers", have, want, steps, len(r.routers))
	}
	for i := range want {
		router, name := r.routers[i%len(r.routers)], tensorName(i)
		info, ok := r.file.Info(name)
		shape := []int64{int64(router.items * (router.windows - 1) * router.routes), int64(router.count)}
		switch {
		case !ok:
			return fmt.Errorf("the file has no tensor %s, want 000000 to %s", name, tensorName(want-1))
		case info.DType != safetensors.I32 || !slices.Equal(info.Shape, shape):
			return fmt.Errorf("%s, step %d of %s, is %s%v, want I32%v", name, i/len(r.routers), router.name, info.DType, info.Shape, shape)
		}
	}
	return nil
}

func tensorName(i int) string { return fmt.Sprintf("%06d", i) }

// step reads what the routers select in a step.
func (r *replay) step(step int64) ([]colt5.RoutingRecord, error) {
	var list []colt5.RoutingRecord
	for i, router := range r.routers {
		name := tensorName(int(step)*len(r.routers) + i)
		tokens, err := r.file.ReadInt32(name)
		if err != nil {
			return nil, err
		}
		record, err := router.record(tokens)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		list = append(list, record)
	}
	return list, nil
}

// record converts the tokens of the lists. Those of queries count from the start of their window; keys from the window on are
// empty slots, since a window has no more bytes before it.
func (r replayedRouter) record(tokens []int32) (colt5.RoutingRecord, error) {
	list := colt5.RoutingRecord{Router: r.name, Lists: r.items * r.windows * r.routes, K: r.count}
	slots := list.Lists * r.count
	list.Indices, list.Scores = make([]int32, slots), make([]float32, slots)
	to := 0
	for range r.items {
		for window := range r.windows {
			if window == 0 {
				to += r.routes * r.count
				continue
			}
			first, end := 0, window*r.window // of the tokens that may be selected
			if r.queries {
				first, end = end, end+r.window
			}
			for _, token := range tokens[:r.routes*r.count] {
				at := int(token)
				if r.queries {
					at += first
				}
				if at < first || at >= r.windows*r.window || r.queries && at >= end {
					return list, fmt.Errorf("a list of window %d has token %d, want 0 to %d", window, token, map[bool]int{true: r.window, false: r.windows * r.window}[r.queries]-1)
				}
				if at < end {
					list.Indices[to], list.Scores[to] = int32(at), 1
				}
				to++
			}
			tokens = tokens[r.routes*r.count:]
		}
	}
	if r.queries { // one list of all windows of an item
		list.Lists, list.K = r.items, r.windows*r.count
	}
	return list, nil
}

func (r *replay) close() error {
	if r == nil {
		return nil
	}
	return r.file.Close()
}
