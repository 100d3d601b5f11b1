// Command comparelosses compares the losses of training runs, step by step: of colt5 train (losses.csv), and of other programs
// (a .jsonl file with objects that have the keys step and loss).
//
//	comparelosses -out docs/results/losses PyTorch=torch.jsonl 'this library=run/losses.csv'
//
// The first run is the reference. It writes OUT.csv with the losses, and OUT.svg and OUT.png with a chart of them, and prints
// the largest relative differences up to some steps.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"

	"github.com/colt5-vulkan/colt5/internal/atomicfile"
)

func main() {
	out := flag.String("out", "losses", "path of the results, without extension")
	upTo := flag.String("up-to", "50,200", "numbers of steps, for each of which the largest difference is printed")
	title := flag.String("title", "Loss of each step, nats per byte", "title of the chart")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: comparelosses [flags] NAME=FILE NAME=FILE..")
		flag.PrintDefaults()
	}
	flag.Parse()
	if err := compare(*out, *upTo, *title, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "comparelosses:", err)
		os.Exit(1)
	}
}

func compare(out, upTo, title string, args []string) error {
	limits, err := parseLimits(upTo)
	if err != nil {
		return fmt.Errorf("-up-to: %w", err)
	}
	if len(args) < 2 {
		return errors.New("there are fewer than two runs, want NAME=FILE of each")
	}
	var runs []run
	for _, arg := range args {
		name, file, ok := strings.Cut(arg, "=")
		if !ok || name == "" {
			return fmt.Errorf("the argument %q is not of the form NAME=FILE", arg)
		}
		r, err := readRun(name, file)
		if err != nil {
			return err
		}
		runs = append(runs, r)
	}
	svg, png, err := figure(title, runs).Draw()
	if err != nil {
		return err
	}
	for _, r := range runs[1:] {
		for _, n := range limits {
			fmt.Println(difference(runs[0], r, n))
		}
	}
	return errors.Join(atomicfile.Write(out+".csv", table(runs)), atomicfile.Write(out+".svg", svg), atomicfile.Write(out+".png", png))
}
