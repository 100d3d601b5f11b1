package ref

import "math"

// OptimizerConfig has the settings of an optimiser.
type OptimizerConfig struct {
	Beta1, Beta2   float64
	Clip           float64                 // 0: no clipping
	Rate           func(t float64) float64 // learning rate of update t, from 1; see [ConstantRate], [CosineRate], [InverseSqrtRate]
	GrowthInterval int                     // steps without overflow that double the loss scale; 0: it is constant
}

// OptimizerState is what an optimiser knows beside parameters and moments. The first group of fields is kept from step
// to step.
type OptimizerState struct {
	Steps, Updates, Good int
	Scale                float64

	Skip                                               bool
	Factor, Rate, Correction1, Correction2, Loss, Norm float64
}

// Step computes the state of the next step. norm is that of the gradients of (sum of losses) * Scale.
func (s *OptimizerState) Step(c OptimizerConfig, norm float64, overflow bool, lossSum, labels float64) {
	inverse := 0.0
	s.Loss = 0
	if labels > 0 {
		inverse = 1 / (labels * s.Scale)
		s.Loss = lossSum / labels
	}
	s.Norm, s.Factor = norm*inverse, inverse
	if c.Clip > 0 {
		s.Factor *= min(1, c.Clip/(s.Norm+1e-6))
	}
	s.Steps++
	s.Skip = overflow
	if !overflow {
		s.Updates++
	}
	t := float64(s.Updates)
	s.Rate = c.Rate(max(t, 1))
	s.Correction1, s.Correction2 = 1-math.Pow(c.Beta1, t), 1-math.Pow(c.Beta2, t)
	switch {
	case c.GrowthInterval == 0:
	case overflow:
		s.Scale, s.Good = max(s.Scale/2, 0x1p-24), 0
	case s.Good+1 < c.GrowthInterval:
		s.Good++
	default:
		s.Scale, s.Good = min(2*s.Scale, 0x1p24), 0
	}
}

// warmUp is the linear rise to the peak at update warm.
func warmUp(peak, warm float64, after func(t float64) float64) func(t float64) float64 {
	return func(t float64) float64 {
		if t < warm {
			return peak * t / warm
		}
		return after(t)
	}
}

// ConstantRate stays at the peak.
func ConstantRate(peak, warm float64) func(t float64) float64 {
	return warmUp(peak, warm, func(float64) float64 { return peak })
}

// CosineRate falls along half a cosine from the peak at update warm, at least 1, to the floor at update total.
func CosineRate(peak, floor, warm, total float64) func(t float64) float64 {
	warm = max(warm, 1)
	return warmUp(peak, warm, func(t float64) float64 {
		if t >= total {
			return floor
		}
		return floor + (peak-floor)*(1+math.Cos(math.Pi*(t-warm)/(total-warm)))/2
	})
}

// InverseSqrtRate falls as 1/sqrt(t) from the peak at update warm, at least 1.
func InverseSqrtRate(peak, warm float64) func(t float64) float64 {
	warm = max(warm, 1)
	return warmUp(peak, warm, func(t float64) float64 { return peak * math.Sqrt(warm/t) })
}
