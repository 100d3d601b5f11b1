package colt5

import (
	"context"

	"github.com/colt5-vulkan/colt5/pipelines"
	"github.com/colt5-vulkan/colt5/vk"
)

// tables are the constant tensors that the plans of a module read, such as the angles of rotary embeddings. Plans share
// equal tables; a table is closed with the last plan that reads it.
type tables map[tableKey]*sharedTable

// tableKey is what determines the contents of a table: what it is, and its sizes.
type tableKey struct {
	name  string
	sizes [3]int
}

type sharedTable struct {
	in     tables
	key    tableKey
	buffer *vk.Buffer
	plans  int // that read it
}

// share returns the table of a key for one more plan. newTable computes it if no plan has it.
func (t tables) share(ctx context.Context, dev *vk.Device, key tableKey, newTable func() []float32) (*sharedTable, error) {
	if have := t[key]; have != nil {
		have.plans++
		return have, nil
	}
	data := vk.Bytes(newTable())
	buffer, err := dev.NewBuffer(key.name, uint64(len(data)))
	if err != nil {
		return nil, err
	}
	if err := dev.Upload(ctx, vk.Transfer{Range: buffer.Range(), Data: data}); err != nil {
		buffer.Close()
		return nil, err
	}
	t[key] = &sharedTable{t, key, buffer, 1}
	return t[key], nil
}

// release ends the use of the table by one plan.
func (s *sharedTable) release() error {
	if s.plans--; s.plans > 0 {
		return nil
	}
	delete(s.in, s.key)
	return s.buffer.Close()
}

// rotaryTable is the table of rotary position embeddings. It is the same for up to 256 numbers of positions.
func (b *builder) rotaryTable(positions, dimHead int) vk.Range {
	count := pipelines.RotaryTableLen(positions, dimHead)
	return b.table(tableKey{"rotary table", [3]int{count, dimHead}}, count, func() []float32 { return pipelines.RotaryTable(positions, dimHead) })
}

// inverseRotaryTable is the table of the opposite rotation, which the gradients of rotated queries and keys need.
func (b *builder) inverseRotaryTable(positions, dimHead int) vk.Range {
	count := pipelines.RotaryTableLen(positions, dimHead)
	return b.table(tableKey{"inverse rotary table", [3]int{count, dimHead}}, count, func() []float32 {
		table, half := pipelines.RotaryTable(positions, dimHead), dimHead/2
		for i := range table {
			if i%dimHead >= half {
				table[i] = -table[i]
			}
		}
		return table
	})
}
