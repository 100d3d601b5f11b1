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

	// Time is the GPU time, from the start of the first step to the end of the last. It is 0 on a device without
	// timestamps, where vk.Caps.TimestampNanoseconds is 0.
	Time time.Duration

	Flops     float64       // floating-point operations of the matrix products and reductions
	Bytes     float64       // bytes of memory traffic that the steps need at least
	Workspace uint64        // bytes of device memory between the steps
	Barriers  int           // pipeline barriers between steps
	StepNames []string      // the kernel of each step, "fill" or "copy", in the order of recording; shared between calls, do not modify
	StepTimes []vk.StepTime // of every step, in the same order; nil without Profile, and on a device without timestamps
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
	return err
}
