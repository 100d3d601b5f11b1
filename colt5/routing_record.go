package colt5

import (
	"context"
	"fmt"

	"github.com/colt5-vulkan/colt5/vk"
)

// RoutingRecord is what one router selected in a call.
//
// A list has K slots. There is a list for every batch item and route, and in the autoregressive module for every heavy
// window as well. Lists are ordered by item, then window, then route. The lists of the first window are empty.
type RoutingRecord struct {
	Router     string    // its name in the module: q_router, layers.0.conditional_ff.router
	Lists, K   int       // number of lists, and slots of each
	N          int       // tokens that a list is selected from
	Routes     int       // R
	Windows    int       // lists of a route and item, one for each window; 0: one for the whole sequence
	WindowSize int       // tokens of a window; the list of window m is selected from the first m * WindowSize tokens
	Block      int       // tokens of a block; every block selects its own
	Indices    []int32   // [Lists, K] tokens; 0 in an empty slot
	Scores     []float32 // [Lists, K] factor of a token's output; 0 in an empty slot
	Logits     []float32 // [Lists / max(Windows, 1), N]
	SoftScores []float32 // [Lists, N] of coordinate descent; 0 where masked

	// Statistics over the coordinate descents, one for every list and block. Descents without a token to select from
	// are left out.
	KEff      float64 // what the soft scores of a descent should sum to
	ScoreSum  float64 // their mean sum
	Saturated float64 // share of the selected tokens whose soft score is 1; these pass no gradient to the router
	Ties      int     // descents in which an unselected token has the same logit as the last selected one
	Empty     float64 // share of the slots that are empty for lack of real tokens
}

// recordedRouter is a router whose state a plan keeps for its routing record.
type recordedRouter struct {
	*routerState
	softScores vk.Range
}

// routingRecords downloads the records of the plan's routers.
func (p *plan) routingRecords(ctx context.Context) ([]RoutingRecord, error) {
	list := make([]RoutingRecord, len(p.routing))
	for i, r := range p.routing {
		var err error
		if list[i], err = r.record(ctx, p.list.Device()); err != nil {
			return nil, fmt.Errorf("routing record of %s: %w", r.name, err)
		}
	}
	return list, nil
}

func (d recordedRouter) record(ctx context.Context, dev *vk.Device) (RoutingRecord, error) {
	lists := d.lists()
	r := RoutingRecord{
		Router: d.name, Lists: lists, K: d.k, N: d.n, Routes: d.r, Windows: d.windows, WindowSize: d.windowSize, Block: d.block,
		Indices: make([]int32, lists*d.k), Scores: make([]float32, lists*d.k),
		Logits: make([]float32, d.b*d.r*d.n), SoftScores: make([]float32, lists*d.n),
	}
	valid := make([]uint32, lists*d.k)
	list := []vk.Transfer{
		{Range: d.indices.Range, Data: vk.Bytes(r.Indices)}, {Range: d.valid.Range, Data: vk.Bytes(valid)},
		{Range: d.logits.Range, Data: vk.Bytes(r.Logits)}, {Range: d.softScores, Data: vk.Bytes(r.SoftScores)},
	}
	if d.usesSoftScores {
		list = append(list, vk.Transfer{Range: d.scores.Range, Data: vk.Bytes(r.Scores)})
	}
	if err := dev.Download(ctx, list...); err != nil {
		return r, err
	}
	for i, v := range valid {
		switch {
		case v == 0:
			r.Indices[i], r.Scores[i] = 0, 0
		case !d.usesSoftScores:
			r.Scores[i] = 1
		}
	}
	d.addStatistics(&r)
	return r, nil
}

// addStatistics computes the statistics of a record.
func (d recordedRouter) addStatistics(r *RoutingRecord) {
	descents, selected, saturated, slots := 0, 0, 0, 0
	r.KEff = min(d.kEff, float64(d.block))
	for list := range r.Lists {
		for block := range d.blocks() {
			from, to := d.segment(list, block)
			if from == to || block < d.skipBlocks {
				continue
			}
			sum := 0.0
			for _, v := range r.SoftScores[list*d.n:][from:to] {
				sum += float64(v)
			}
			n, full, tie := d.countSlots(r, list, list*d.k+block*d.perBlock, from, to)
			slots += d.perBlock
			selected += n
			if n == 0 {
				continue
			}
			descents++
			r.ScoreSum += sum
			saturated += full
			if tie {
				r.Ties++
			}
		}
	}
	r.ScoreSum /= float64(max(descents, 1))
	r.Saturated = float64(saturated) / float64(max(selected, 1))
	r.Empty = float64(slots-selected) / float64(max(slots, 1))
}

// segment is the tokens of a descent.
func (d recordedRouter) segment(list, block int) (from, to int) {
	if d.windows > 0 {
		return 0, min(list/d.r%d.windows*d.windowSize, d.n)
	}
	return block * d.block, min((block+1)*d.block, d.n)
}

// countSlots counts the valid slots of a descent, which start at slot first, and those of them that saturate. tie tells
// whether an unselected token has the same logit as the last selected one.
func (d recordedRouter) countSlots(r *RoutingRecord, list, first, from, to int) (valid, saturated int, tie bool) {
	row := list
	if d.windows > 0 {
		row = list/(d.r*d.windows)*d.r + list%d.r
	}
	logits, soft := r.Logits[row*d.n:][:d.n], r.SoftScores[list*d.n:][:d.n]
	least, selected := -1, map[int32]bool{}
	for slot := first; slot < first+d.perBlock; slot++ {
		if r.Scores[slot] == 0 {
			continue
		}
		i := r.Indices[slot]
		valid++
		selected[i] = true
		if soft[i] == 1 {
			saturated++
		}
		if least < 0 || logits[i] < logits[least] {
			least = int(i)
		}
	}
	for i := from; i < to && least >= 0 && !tie; i++ {
		// Equal logits have equal soft scores. A masked token scores 0.
		tie = logits[i] == logits[least] && soft[i] == soft[least] && !selected[int32(i)]
	}
	return valid, saturated, tie
}
