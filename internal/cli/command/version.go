package command

import (
	"fmt"

	"github.com/colt5-vulkan/colt5/internal/cli/deviceinfo"
	"github.com/colt5-vulkan/colt5/internal/cli/hostinfo"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/urfave/cli/v3"
)

// versionFlag is that of the root command, which calls writeVersion.
func versionFlag() cli.Flag {
	return &cli.BoolFlag{Name: "version", Aliases: []string{"v"}, Local: true, Usage: "print version, commit, compiler, and the driver of the default device"}
}

// writeVersion describes the program with this name, the machine and the default device. A machine without one is no error.
func (env *Env) writeVersion(program string) error {
	h := hostinfo.Read()
	_, err := fmt.Fprintf(env.Stdout, "%s %s\ncommit: %s\nGo: %s\nOS: %s\nCPU: %s\n", program, h.Version, h.Commit, h.Go, h.OS, h.CPU)
	if err != nil {
		return err
	}
	dev, err := vk.Open(vk.Options{CacheDir: "-"})
	if err != nil {
		_, err = fmt.Fprintf(env.Stdout, "device: %v\n", NoDevice(err))
		return err
	}
	if _, err = fmt.Fprintf(env.Stdout, "device: %s\ndriver: %s\n", dev.Info().Name, deviceinfo.Driver(dev.Info())); err != nil {
		dev.Close()
		return err
	}
	return dev.Close()
}
