package colt5

import (
	"time"

	"github.com/colt5-vulkan/colt5/vk"
)

// CallStats is what a call cost on the device. A call fills the one that its options point to.
type CallStats struct {
	// Profile is set by the caller: time every step. The steps then run one after the other, so that the call as a
	// whole takes longer.
	Profile bool

	Time      time.Duration // GPU time, from the first step to the last
	Flops     float64       // floating-point operations of the matrix products and reductions
	Bytes     float64       // bytes of memory traffic that the steps need at least
	Workspace uint64        // bytes of device memory between the steps
	Barriers  int           // pipeline barriers between steps
	Steps     []string      // names of the kernels, in the order of recording; shared between calls, do not modify
	StepTimes []vk.StepTime // of kernels, fills and copies, in order; nil without Profile
}

// fillStats fills the statistics of the plan's last run.
func (p *plan) fillStats(s *CallStats) error {
	profile := s.Profile
	*s = p.stats
	s.Profile = profile
	var err error
	if s.Time, err = p.list.Elapsed(); err == nil && profile {
		s.StepTimes, err = p.list.Steps()
	}
	return err
}
