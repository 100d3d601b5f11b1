package safetensors

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"unicode"

	"github.com/colt5-vulkan/colt5/internal/errtext"
)

// Limits of a sharded checkpoint; see the package comment.
const (
	maxIndex        = 32 << 20 // bytes of the index
	maxShards       = 1000
	maxShardHeaders = 64 << 20 // bytes of the headers of all shards
)

// index is a parsed index: the shard of each tensor, and the shards by name.
type index struct {
	shardOf map[string]int
	shards  []string
}

// readIndex reads a file of size bytes as an index.
func (s *shard) readIndex(size int64) (index, error) {
	if size > maxIndex {
		return index{}, fmt.Errorf("it is JSON of %d bytes, want at most %d for an index", size, maxIndex)
	}
	raw := make([]byte, size)
	if err := s.readAt(raw, 0); err != nil {
		return index{}, fmt.Errorf("read index: %w", err)
	}
	return parseIndex(raw)
}

// parseIndex parses and validates an index. Only its weight_map counts.
func parseIndex(raw []byte) (index, error) {
	if err := checkJSON("index", raw); err != nil {
		return index{}, err
	}
	x := index{shardOf: map[string]int{}}
	found := false
	numbers := map[string]int{}
	p := parser{text: raw}
	err := p.object("index", func(key []byte) error {
		if string(key) != "weight_map" {
			p.skip()
			return nil
		}
		if found {
			return errors.New("index has duplicate key weight_map")
		}
		found = true
		return p.object("weight_map", func(key []byte) error {
			name := string(key)
			if _, twice := x.shardOf[name]; twice {
				return fmt.Errorf("weight_map has duplicate key %s", errtext.Quote(name))
			}
			file, err := p.string("weight_map " + errtext.Quote(name))
			if err != nil {
				return err
			}
			n, known := numbers[string(file)]
			if !known {
				if n = len(x.shards); n == maxShards {
					return fmt.Errorf("weight_map has more than %d files", maxShards)
				}
				shard := string(file)
				if !validShard(shard) {
					return fmt.Errorf("weight_map %s is %s, want a file in the directory of the index", errtext.Quote(name), errtext.Quote(shard))
				}
				numbers[shard] = n
				x.shards = append(x.shards, shard)
			}
			x.shardOf[name] = n
			return nil
		})
	})
	switch {
	case err != nil:
		return index{}, err
	case !found:
		return index{}, errors.New("it is a JSON document without a weight_map, want a safetensors file or the index of a sharded checkpoint")
	case len(x.shards) == 0:
		return index{}, errors.New("weight_map is empty, want at least one tensor")
	}
	return x, nil
}

// validShard reports whether the name of a shard may be opened and printed: it must not lead out of the directory of the
// index.
func validShard(name string) bool {
	return fs.ValidPath(name) && name != "." && filepath.IsLocal(filepath.FromSlash(name)) && len(name) <= 255 &&
		!strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) })
}

// open opens the shards of the index called name. Each shard must have the tensors that the index says, and no others.
func (x index) open(name string, from files) (_ *File, err error) {
	f := &File{name: name, index: map[string]int{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	var problems errtext.Problems
	left := int64(maxShardHeaders)
	for _, shardName := range slices.Sorted(slices.Values(x.shards)) {
		o, err := from.open(from.beside(name, shardName))
		if err != nil {
			return nil, wrap(name, fmt.Errorf("shard %s: %w", errtext.Quote(shardName), cause(err)))
		}
		s := &shard{name: name + ": shard " + errtext.Quote(shardName), r: o.r, closer: o.closer}
		f.shards = append(f.shards, s)
		h, _, err := s.readHeader(o.size, min(left, maxHeader))
		if err != nil {
			return nil, s.wrap(err)
		}
		left -= s.data - lengthSize
		f.add(h, &problems, func(tensor string) bool {
			n, listed := x.shardOf[tensor]
			return listed && x.shards[n] == shardName
		})
	}
	for _, tensor := range slices.Sorted(maps.Keys(x.shardOf)) {
		if _, ok := f.index[tensor]; !ok {
			problems.Addf("tensor %s is missing in shard %s", errtext.Quote(tensor), errtext.Quote(x.shards[x.shardOf[tensor]]))
		}
	}
	if err := problems.Err(); err != nil {
		return nil, wrap(name, err)
	}
	return f, nil
}

// add adds the tensors of the last shard. One that the index does not list there is a problem.
func (f *File) add(h header, problems *errtext.Problems, listed func(tensor string) bool) {
	for _, t := range h.tensors {
		t.shard = len(f.shards) - 1
		if !listed(t.Name) {
			shard := strings.TrimPrefix(f.shards[t.shard].name, f.name+": ") // the error that has the problems names the index
			problems.Addf("%s has tensor %s, which the index does not list there", shard, errtext.Quote(t.Name))
			continue
		}
		f.index[t.Name] = len(f.tensors)
		f.tensors = append(f.tensors, t)
	}
	for key, value := range h.metadata {
		if f.metadata == nil {
			f.metadata = map[string]string{}
		}
		if _, known := f.metadata[key]; !known {
			f.metadata[key] = value
		}
	}
}
