package measure

import (
	"time"

	"github.com/colt5-vulkan/colt5/internal/cli/command"
	"github.com/urfave/cli/v3"
)

// RepsFlag is the number of timed runs of NewPace.
func RepsFlag() cli.Flag {
	return &cli.IntFlag{Name: "reps", HideDefault: true, Usage: "time `N` runs (default: as many as fit in a second)"}
}

// WarmupFlag is the number of untimed runs of NewPace.
func WarmupFlag() cli.Flag {
	return &cli.IntFlag{Name: "warmup", Value: -1, HideDefault: true, Usage: "`N` untimed runs first (default: as many as fit in half a second, none on a CPU driver)"}
}

// FullFlag selects Case.Sizes on a CPU driver too.
func FullFlag() cli.Flag {
	return &cli.BoolFlag{Name: "full", Usage: "the sizes of a GPU also on a CPU driver"}
}

// CheckPaceFlags checks RepsFlag and WarmupFlag.
func CheckPaceFlags(c *cli.Command) error {
	switch {
	case c.IsSet("reps") && c.Int("reps") < 1:
		return command.Usagef("-reps is %d, want at least 1", c.Int("reps"))
	case c.IsSet("warmup") && c.Int("warmup") < 0:
		return command.Usagef("-warmup is %d, want at least 0", c.Int("warmup"))
	}
	return nil
}

// Pace determines how often a case runs.
type Pace struct {
	minReps, maxReps int           // number of timed runs
	budget           time.Duration // no run starts later, beyond the first minReps
	warmup           int           // minimum number of untimed runs
	warmupBudget     time.Duration // untimed runs continue for so long
}

// NewPace returns the pace for a GPU or a CPU driver. reps of 0 and a negative warmup are defaults.
func NewPace(cpu bool, reps, warmup int) Pace {
	p := Pace{minReps: 10, maxReps: 200, budget: time.Second, warmup: 3, warmupBudget: 500 * time.Millisecond} // a GPU needs time to raise its clocks
	if cpu {
		p = Pace{minReps: 3, maxReps: 50, budget: time.Second}
	}
	if reps > 0 {
		p.minReps, p.maxReps = reps, reps
	}
	if warmup >= 0 {
		p.warmup, p.warmupBudget = warmup, 0
	}
	return p
}
