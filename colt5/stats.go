package colt5

import (
	"slices"
	"time"

	"github.com/colt5-vulkan/colt5/vk"
)

// CallStats is what a call cost on the device. A call fills the one that its options point to.
type CallStats struct {
	// Profile is set by the caller: time every step. The steps then run one after the other, so that the call as a
	// whole takes longer.
	Profile bool

	// Time is the GPU time, from the start of the first step to the end of the last. It is 0 on a device without
	// timestamps, where vk.Caps.TimestampNanoseconds is 0.
	Time time.Duration

	Flops     float64       // floating-point operations of the matrix products and reductions
	Bytes     float64       // bytes of memory traffic that the steps need at least
	Workspace uint64        // bytes of device memory between the steps
	Barriers  int           // pipeline barriers between steps
	StepNames []string      // the kernel of each step, "fill" or "copy", in the order of recording; shared between calls, do not modify
	StepTimes []vk.StepTime // of every step, in the same order; nil without Profile, and on a device without timestamps

	Nodes []NodeStats // the nodes of a graph, in the order of recording; nil for a module's own call
}

// NodeStats is the part of a node in the cost of a graph's run.
type NodeStats struct {
	Name      string        // of the value that the node computes
	FirstStep int           // index of its first step in StepNames and StepTimes
	Steps     int           // number of its steps
	Flops     float64       // as in CallStats
	Bytes     float64       // as in CallStats
	Time      time.Duration // sum of its steps' times; 0 without Profile
}

// fillStats fills the statistics of the plan's last run.
func (p *plan) fillStats(s *CallStats) error {
	profile := s.Profile
	*s = p.stats
	s.Profile = profile
	if p.list.Device().Caps().TimestampNanoseconds == 0 {
		return nil
	}
	var err error
	if s.Time, err = p.list.Elapsed(); err == nil && profile {
		s.StepTimes, err = p.list.StepTimes()
	}
	if s.StepTimes == nil {
		return err
	}
	s.Nodes = slices.Clone(s.Nodes)
	for i := range s.Nodes {
		n := &s.Nodes[i]
		for _, t := range s.StepTimes[n.FirstStep:][:n.Steps] {
			n.Time += t.Time
		}
	}
	return err
}
