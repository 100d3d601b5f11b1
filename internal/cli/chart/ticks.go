package chart

import (
	"math"
	"strconv"

	"github.com/colt5-vulkan/colt5/internal/cli/table"
	"gonum.org/v1/plot"
)

// tokenTicks returns ticks at powers of 2.
func tokenTicks(low, high float64) []plot.Tick {
	var ticks []plot.Tick
	for n := math.Exp2(math.Ceil(math.Log2(low))); n <= high; n *= 2 {
		ticks = append(ticks, plot.Tick{Value: n, Label: shortCount(n)})
	}
	return ticks
}

// shortCount formats 131,072 as 128k.
func shortCount(n float64) string {
	switch {
	case n >= 1<<20:
		return strconv.FormatFloat(n/(1<<20), 'g', 4, 64) + "M"
	case n >= 1<<10:
		return strconv.FormatFloat(n/(1<<10), 'g', 4, 64) + "k"
	}
	return strconv.FormatFloat(n, 'g', 4, 64)
}

// decadeTicks returns labelled ticks at powers of 10, and at 2 and 5 times these if the range is below 3 decades.
func decadeTicks(low, high float64, format func(float64) string) []plot.Tick {
	var ticks []plot.Tick
	detailed := high/low < 1000
	for decade := math.Floor(math.Log10(low)); decade <= math.Log10(high); decade++ {
		for step := 1; step < 10; step++ {
			x := float64(step) * math.Pow(10, decade)
			if x < low || x > high {
				continue
			}
			t := plot.Tick{Value: x}
			if step == 1 || detailed && (step == 2 || step == 5) {
				t.Label = format(x)
			}
			ticks = append(ticks, t)
		}
	}
	return ticks
}

// linearTicks returns the ticks of the library with other labels.
func linearTicks(low, high float64, format func(float64) string) []plot.Tick {
	ticks := plot.DefaultTicks{}.Ticks(low, high)
	for i := range ticks {
		if ticks[i].Label != "" {
			ticks[i].Label = format(ticks[i].Value)
		}
	}
	return ticks
}

// tickLabel formats a number: without rounding, with commas, without an exponent from 0.0001 to 1e15.
func tickLabel(x float64) string {
	format := byte('f')
	if x != 0 && (math.Abs(x) < 1e-4 || math.Abs(x) >= 1e15) {
		format = 'e'
	}
	return table.Thousands(strconv.FormatFloat(float64(float32(x)), format, -1, 32))
}

// millisLabel formats a time in milliseconds with a unit.
func millisLabel(x float64) string {
	if x == 0 {
		return "0"
	}
	scale, unit := table.TimeUnit(x)
	return tickLabel(x*scale) + " " + unit
}
