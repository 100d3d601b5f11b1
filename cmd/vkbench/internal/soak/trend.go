package soak

import (
	"math"
	"slices"
)

// trend is the Theil-Sen slope of evenly spaced values: the median of the slopes of all pairs, and its 99 % confidence interval
// by Kendall's statistic. Outliers and steps up and down do not matter to it.
type trend struct{ low, slope, high float64 }

func theilSen(y []float64) trend {
	n := len(y)
	slopes := make([]float64, 0, n*(n-1)/2)
	for i := range y {
		for j := range i {
			slopes = append(slopes, (y[i]-y[j])/float64(i-j))
		}
	}
	slices.Sort(slopes)
	const z = 2.576 // of a normal distribution, 0.5 % beyond
	half := z * math.Sqrt(float64(n)*float64(n-1)*float64(2*n+5)/18) / 2
	at := func(position float64) float64 {
		return slopes[min(max(int(math.Round(position)), 0), len(slopes)-1)]
	}
	middle := float64(len(slopes)-1) / 2
	return trend{at(middle - half), at(middle), at(middle + half)}
}
