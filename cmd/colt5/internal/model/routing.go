package model

import (
	"bytes"
	"context"
	"strings"

	"github.com/colt5-vulkan/colt5/colt5"
	"github.com/colt5-vulkan/colt5/internal/cli/scope"
)

// Router is what a router selected in a text.
type Router struct {
	Name      string  `json:"name"`      // without the name of the node
	KEff      float64 `json:"k_eff"`     // as in colt5.RoutingRecord
	ScoreSum  float64 `json:"score_sum"` // as in colt5.RoutingRecord
	Saturated float64 `json:"saturated"` // share
	Empty     float64 `json:"empty"`     // share
	Ties      int     `json:"ties"`
	Chosen    []int   `json:"chosen"` // lengths of runs of bytes: not selected, selected, not selected, ..
}

// Route records what the routers select in a text. Keys and values are those that the last window of a language model
// selects; a router selects a byte if one of its routes does.
func (m *Model) Route(ctx context.Context, text []byte) ([]Router, error) {
	if len(text) == 0 {
		return nil, nil
	}
	var records []colt5.RoutingRecord
	err := scope.Run(ctx, m.dev, func(s *scope.Scope) error {
		tensors := map[string]*colt5.Tensor{"ids": s.Uint8(text, 1, len(text))}
		if m.Transformer != nil {
			tensors["logits"] = s.Tensor(colt5.F32, 1, len(text), 256)
		} else {
			tensors["mask"] = s.Uint8(bytes.Repeat([]byte{1}, len(text)), 1, len(text))
			tensors["logits"] = s.Tensor(colt5.F32, 1, len(m.Config.Classes))
		}
		if s.Err() != nil {
			return s.Err()
		}
		return m.Graph.Run(ctx, tensors, colt5.GraphOptions{Routing: &records})
	})
	if err != nil {
		return nil, err
	}
	var list []Router
	for _, r := range records {
		name := r.Router
		if i := strings.Index(name, "layers."); i >= 0 {
			name = name[i:]
		}
		list = append(list, Router{
			Name: name, KEff: r.KEff, ScoreSum: r.ScoreSum, Saturated: r.Saturated, Empty: r.Empty, Ties: r.Ties,
			Chosen: runs(chosen(r)),
		})
	}
	return list, nil
}

// chosen reports for each byte of the first item whether one of the routes selects it, of lists per window the last.
func chosen(r colt5.RoutingRecord) []bool {
	selected := make([]bool, r.N)
	first := max(r.Windows-1, 0) * r.Routes
	for i := first * r.K; i < (first+r.Routes)*r.K; i++ {
		if r.Scores[i] != 0 {
			selected[r.Indices[i]] = true
		}
	}
	return selected
}

// runs returns the lengths of runs of equal values, from one of false on.
func runs(list []bool) []int {
	lengths, value := []int{0}, false
	for _, x := range list {
		if x != value {
			lengths, value = append(lengths, 0), x
		}
		lengths[len(lengths)-1]++
	}
	return lengths
}
