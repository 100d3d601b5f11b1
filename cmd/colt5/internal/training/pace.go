package training

import (
	"math"
	"time"
)

// pace measures the steps in a second, between readings of their records.
type pace struct {
	at       time.Time // of the last reading
	step     int64     // steps that were done then
	compiled bool      // the first step, which compiles kernels, is done
	rate     float64   // steps in a second, a mean of the last readings; 0: unknown
}

// Records are read so often: they wait for the device.
const (
	readInterval = time.Second
	readSteps    = 256 // the device keeps 1,024 records
)

// restart begins to measure after something else than steps.
func (p *pace) restart(step int64) { p.at, p.step = time.Now(), step }

// due reports whether records are to be read after a step. The first step is measured alone.
func (p *pace) due(step int64) bool {
	return !p.compiled || step-p.step >= readSteps || time.Since(p.at) >= readInterval
}

// add notes that so many steps are done.
func (p *pace) add(step int64) {
	now := time.Now()
	if p.compiled && step > p.step {
		rate := float64(step-p.step) / now.Sub(p.at).Seconds()
		const weight = 0.2 // of the newest reading
		if p.rate == 0 {
			p.rate = rate
		}
		p.rate = math.Pow(p.rate, 1-weight) * math.Pow(rate, weight)
	}
	p.at, p.step = now, step
	p.compiled = true
}
