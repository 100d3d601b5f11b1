package command

import (
	"errors"
	"fmt"
	"strings"

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
		err = errors.Join(err, fmt.Errorf("%s:\n%s", Count(n, "validation message"), text))
	}
	return errors.Join(err, dev.Close())
}

// deviceError says that no device could be opened: exit code ExitNoDevice.
type deviceError struct{ error }

// NoDevice wraps err, a failure to list or open devices, as an error with exit code ExitNoDevice.
func NoDevice(err error) error { return deviceError{err} }

func (e deviceError) Unwrap() error { return e.error }

// Error has the words of the command line in place of those of package vk.
func (e deviceError) Error() string {
	text := strings.TrimPrefix(e.error.Error(), "vk: ")
	if strings.Contains(text, "Options.Device") {
		text = strings.ReplaceAll(text, "Options.Device", "-device") + "; see vkbench devices"
	}
	return text
}
