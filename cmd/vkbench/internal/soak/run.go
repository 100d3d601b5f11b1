package soak

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/colt5-vulkan/colt5/internal/cli/command"
	"github.com/colt5-vulkan/colt5/internal/cli/progress"
	"github.com/colt5-vulkan/colt5/internal/cli/table"
	"github.com/colt5-vulkan/colt5/pipelines"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/urfave/cli/v3"
)

// soak runs jobs in cycles.
type soak struct {
	jobs       []job
	precisions []pipelines.DType
	cycles     int           // 0: no limit
	limit      time.Duration // 0: none
	open       func() (*vk.Device, error)
	drain      func(*vk.Device) (count int, text string) // messages of the validation layer

	random   *rand.Rand
	deck     []visit           // that are left of the present round
	first    map[string]digest // results of the first run of a job at a size, by title
	runs     int
	compared int       // of the runs, with the first
	readings []reading // by cycle
}

// visit is a job at a size.
type visit struct {
	*job
	size int
}

// runsPerCycle is how many runs a device lives for.
const runsPerCycle = 12

// next returns the next run: every job in every size once, in a random order, and again in another.
func (s *soak) next() visit {
	if len(s.deck) == 0 {
		for i := range s.jobs {
			for size := range sizes {
				s.deck = append(s.deck, visit{&s.jobs[i], size})
			}
		}
		s.random.Shuffle(len(s.deck), func(i, j int) { s.deck[i], s.deck[j] = s.deck[j], s.deck[i] })
	}
	v := s.deck[0]
	s.deck = s.deck[1:]
	return v
}

func (s *soak) seed(seed uint64) { s.random = rand.New(rand.NewPCG(seed, 0)) }

// run runs cycles until a limit, a failure or an interruption, and writes a row for each and a summary.
func (s *soak) run(ctx context.Context, env *command.Env, c *cli.Command) error {
	columns := []table.Column{table.Number("cycle", "cycle", 5), table.Number("seconds", "seconds", 8), table.Number("runs", "runs", 6)}
	for _, q := range quantities {
		columns = append(columns, table.Number(q.key, q.title, 10))
	}
	t, err := env.Table(c, columns...)
	if err != nil {
		return err
	}
	remarks, err := s.keepSupported()
	if err != nil {
		return err
	}
	for _, r := range remarks {
		t.Remark("%s", r)
	}
	const steps = 1000 // of the bar
	bar := env.Progress(steps)
	defer bar.Finish()
	t.BeforeWrite = bar.Clear
	start := time.Now()
	var failed error
	for failed == nil && !s.done(time.Since(start)) {
		before := len(s.readings)
		failed = s.cycle(ctx, bar)
		n := len(s.readings)
		if n == before {
			break
		}
		row := []any{n, table.InMillis(time.Since(start).Round(time.Millisecond)) / 1000, s.runs}
		for i, q := range quantities {
			row = append(row, q.cell(s.readings[n-1][i]))
		}
		t.Row(row...)
		bar.Set(int(steps * s.progress(time.Since(start))))
	}
	err = t.Close()
	failed = errors.Join(failed, s.growth(t.Remark))
	t.Remark("%s, %s of %s in %d sizes each; %s were compared with an earlier one.", command.Count(len(s.readings), "cycle"),
		command.Count(s.runs, "run"), command.Count(len(s.jobs), "case"), sizes, command.Count(s.compared, "result"))
	return errors.Join(failed, err)
}

// done reports whether a limit is reached. There is at least one cycle.
func (s *soak) done(elapsed time.Duration) bool {
	return len(s.readings) > 0 && s.progress(elapsed) >= 1
}

// progress returns the part of the limits that is done.
func (s *soak) progress(elapsed time.Duration) (part float64) {
	if s.cycles > 0 {
		part = float64(len(s.readings)) / float64(s.cycles)
	}
	if s.limit > 0 {
		part = max(part, float64(elapsed)/float64(s.limit))
	}
	return min(part, 1)
}

// keepSupported makes jobs of the precisions that the device supports.
func (s *soak) keepSupported() (remarks []string, err error) {
	dev, err := s.open()
	if err != nil {
		return nil, command.NoDevice(err)
	}
	caps := dev.Caps()
	if err := dev.Close(); err != nil {
		return nil, err
	}
	supported, remarks := command.SupportedPrecisions(caps, s.precisions)
	var list []job
	for _, j := range s.jobs {
		if !j.halves {
			list = append(list, j)
			continue
		}
		for _, p := range supported {
			j := j
			j.precision = p
			list = append(list, j)
		}
	}
	if s.jobs = list; len(list) == 0 {
		return nil, errors.New(strings.Join(remarks, " "))
	}
	return remarks, nil
}

// cycle opens the device, runs the next jobs, closes the device, and reads how much memory there is. A cycle that is
// interrupted has no reading.
func (s *soak) cycle(ctx context.Context, bar *progress.Bar) error {
	dev, err := s.open()
	if err != nil {
		return err
	}
	var r reading
	r.opened(dev)
	var failed error
	for range runsPerCycle {
		if failed = command.Interrupted(ctx); failed != nil {
			break
		}
		v := s.next()
		bar.Describe(v.title(v.size))
		if failed = s.visit(ctx, dev, v); failed != nil {
			break
		}
	}
	r.finished(dev)
	failed = errors.Join(failed, dev.Close())
	if errors.Is(failed, command.ErrInterrupted) {
		return failed
	}
	r.closed()
	s.readings = append(s.readings, r)
	if failed != nil {
		failed = fmt.Errorf("cycle %d: %w", len(s.readings), failed)
	}
	return failed
}

// visit runs a job and compares its result with that of its first run.
func (s *soak) visit(ctx context.Context, dev *vk.Device, v visit) error {
	title := v.title(v.size)
	got, err := v.run(ctx, dev, v.precision, v.size)
	if err = command.InterruptedBy(ctx, err); errors.Is(err, command.ErrInterrupted) {
		return err
	}
	if err != nil {
		return fmt.Errorf("%s: %w", title, err)
	}
	s.runs++
	if n, text := s.drain(dev); n > 0 {
		return fmt.Errorf("%s: %s:\n%s", title, command.Count(n, "validation message"), text)
	}
	if d := dev.Stats(); d.Buffers != 0 || d.Kernels != 0 || d.CommandLists != 0 {
		return fmt.Errorf("%s leaves open: %s, %s, %s", title, command.Count(int(d.Buffers), "buffer"), command.Count(int(d.Kernels), "kernel"),
			command.Count(int(d.CommandLists), "command list"))
	}
	want, ok := s.first[title]
	if !ok {
		s.first[title] = got
		return nil
	}
	s.compared++
	if got != want {
		return fmt.Errorf("%s: the result has other bits than in an earlier run", title)
	}
	return nil
}
