package bench

import (
	"context"
	"errors"

	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/cases"
	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/measure"
	"github.com/colt5-vulkan/colt5/internal/cli/command"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/urfave/cli/v3"
)

const peakDescription = `The rows are those that bench calls peak: a large copy (GB/s count what is read and written), a large float32
matrix product by the kernel of the modules, and, where the device has cooperative matrices, a row for each of
their shapes and types: products of M x N x K that stay in registers, in TFLOP/s (TOP/s for integers). The
precision is that of the operands; the name has the type of the sums. The results are compared with a CPU
reference first.`

// PeakCommand measures the device's peaks.
func PeakCommand(env *command.Env) *cli.Command {
	return &cli.Command{
		Name: "peak", Usage: "measure the peak rates of the device: copies, float32 and cooperative matrix products", Description: peakDescription,
		Flags: []cli.Flag{command.DeviceFlag(), command.OutputFlag(), measure.RepsFlag(), measure.WarmupFlag()},
		Action: func(ctx context.Context, c *cli.Command) error {
			if err := errors.Join(command.NoArgs(c), measure.CheckPaceFlags(c)); err != nil {
				return err
			}
			return env.WithDevice(c, func(dev *vk.Device) error {
				r := measure.NewRunner(dev, measure.NewPace(dev.Caps().CPU, c.Int("reps"), c.Int("warmup")))
				list, remarks := cases.AllPeaks(dev.Caps())
				return runTable(ctx, env, c, r, list, remarks)
			})
		},
	}
}
