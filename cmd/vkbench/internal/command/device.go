package command

import (
	"errors"
	"fmt"

	"github.com/colt5-vulkan/colt5/vk"
	"github.com/urfave/cli/v3"
)

// DeviceFlag selects the device of WithDevice.
func DeviceFlag() cli.Flag {
	return &cli.StringFlag{Name: "device", Usage: "`INDEX`, UUID or part of the name; default: COLT5_DEVICE, else the best device"}
}

// WithDevice runs f on the device that the flags name. Messages of the validation layer, and objects that f leaves
// open, are errors.
func (env *Env) WithDevice(c *cli.Command, f func(*vk.Device) error) error {
	dev, err := vk.Open(vk.Options{Device: c.String("device")})
	if err != nil {
		return NoDevice(err)
	}
	err = f(dev)
	if n, text := dev.DrainMessages(); n > 0 {
		err = errors.Join(err, fmt.Errorf("%d validation messages:\n%s", n, text))
	}
	return errors.Join(err, dev.Close())
}
