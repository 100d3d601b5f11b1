package colt5

import (
	"context"
	"fmt"

	"github.com/colt5-vulkan/colt5/vk"
)

// RouterDecision is what one router decided in a call: which tokens, and how.
//
// A list has K slots. There is a list for every item and route, and in the autoregressive module one for every heavy window as well; lists
// count items first, then windows, then routes. The lists of the first window are empty.
type RoutingRecord struct {
	Router     string    // its name in the module: q_router, layers.0.conditional_ff.router
	Lists, K   int       // number of lists, and slots of each
	N          int       // tokens that a list is chosen from
	Routes     int       // R
	Windows    int       // lists of a route and item for as many windows; 0: one for the whole sequence
	Prefix     int       // tokens of a window: the list of window m is chosen from the first m * Prefix tokens
	Block      int       // tokens of a block that routes on its own
	Indices    []int32   // [Lists, K] tokens; 0 in an empty slot
	Scores     []float32 // [Lists, K] what a token's output is multiplied by; 0 in an empty slot
	Logits     []float32 // [Lists / max(Windows, 1), N]
	SoftScores []float32 // [Lists, N] result of coordinate descent, 0 where masked
	Statistics RouterStatistics
}

// RouterStatistics says how a router is doing. Means are over its coordinate descents (one for every list and block), those without a
// token to choose from left out.
type RouterStatistics struct {
	K         float64 // what the soft scores of a descent should sum to
	ScoreSum  float64 // what they sum to, on the average
	Saturated float64 // share of the chosen tokens whose soft score is 1: these pass no gradient to the router
	Ties      int     // descents in which a token was left out whose logit equals that of the last one chosen
	Empty     float64 // share of slots that are empty, for want of real tokens
}

// inspectedRouter is a router whose state a plan keeps for its routing record.
type inspectedRouter struct {
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

func (d inspectedRouter) record(ctx context.Context, dev *vk.Device) (RoutingRecord, error) {
	lists := d.lists()
	r := RoutingRecord{
		Router: d.name, Lists: lists, K: d.k, N: d.n, Routes: d.r, Windows: d.windows, Prefix: d.prefix, Block: d.block,
		Indices: make([]int32, lists*d.k), Scores: make([]float32, lists*d.k),
		Logits: make([]float32, d.b*d.r*d.n), SoftScores: make([]float32, lists*d.n),
	}
	filled := make([]uint32, lists*d.k)
	list := []vk.Transfer{
		{Range: d.indices.Range, Data: vk.Bytes(r.Indices)}, {Range: d.valid.Range, Data: vk.Bytes(filled)},
		{Range: d.logits.Range, Data: vk.Bytes(r.Logits)}, {Range: d.softScores, Data: vk.Bytes(r.SoftScores)},
	}
	if d.soft {
		list = append(list, vk.Transfer{Range: d.scores.Range, Data: vk.Bytes(r.Scores)})
	}
	if err := dev.Download(ctx, list...); err != nil {
		return r, err
	}
	for i, f := range filled {
		switch {
		case f == 0:
			r.Indices[i], r.Scores[i] = 0, 0
		case !d.soft:
			r.Scores[i] = 1
		}
	}
	r.Statistics = d.statistics(r)
	return r, nil
}

// statistics goes through the descents: blocks of lists.
func (d inspectedRouter) statistics(r RoutingRecord) RouterStatistics {
	s := RouterStatistics{K: min(d.kEff, float64(d.block))}
	descents, chosen, saturated, slots := 0, 0, 0, 0
	for list := range r.Lists {
		for block := range d.blocks() {
			from, to := d.segment(list, block)
			if from == to || block < d.skipBlocks {
				continue
			}
			soft, sum := r.SoftScores[list*d.n:][from:to], 0.0
			for _, v := range soft {
				sum += float64(v)
			}
			at := list*d.k + block*d.count
			n, full, tie := d.cut(r, list, at, from, to)
			slots += d.count
			chosen += n
			if n == 0 {
				continue
			}
			descents++
			s.ScoreSum += sum
			saturated += full
			if tie {
				s.Ties++
			}
		}
	}
	s.ScoreSum /= float64(max(descents, 1))
	s.Saturated = float64(saturated) / float64(max(chosen, 1))
	s.Empty = float64(slots-chosen) / float64(max(slots, 1))
	return s
}

// segment is the tokens of a descent.
func (d inspectedRouter) segment(list, block int) (from, to int) {
	if d.windows > 0 {
		return 0, min(list/d.r%d.windows*d.prefix, d.n)
	}
	return block * d.block, min((block+1)*d.block, d.n)
}

// cut looks at the slots of a descent, from the one at on: how many are filled, how many of these saturated, and whether the last one chosen
// has an equal among those left out.
func (d inspectedRouter) cut(r RoutingRecord, list, at, from, to int) (filled, saturated int, tie bool) {
	row := list
	if d.windows > 0 {
		row = list/(d.r*d.windows)*d.r + list%d.r
	}
	logits, soft := r.Logits[row*d.n:][:d.n], r.SoftScores[list*d.n:][:d.n]
	least, taken := -1, map[int32]bool{}
	for slot := at; slot < at+d.count; slot++ {
		if r.Scores[slot] == 0 {
			continue
		}
		i := r.Indices[slot]
		filled++
		taken[i] = true
		if soft[i] == 1 {
			saturated++
		}
		if least < 0 || logits[i] < logits[least] {
			least = int(i)
		}
	}
	for i := from; i < to && least >= 0 && !tie; i++ {
		// A masked token scores 0, an equal one the same.
		tie = logits[i] == logits[least] && soft[i] == soft[least] && !taken[int32(i)]
	}
	return filled, saturated, tie
}
