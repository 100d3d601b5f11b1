// Command shaderbuild compiles shaders/variants.txt to shaders/spv and keeps shaders/spv/MANIFEST; with -check it verifies that
// the committed SPIR-V matches the sources. `make shaders` and `make check-shaders` run it, in the repository's root.
//
// It is a Go program and not a script because the work is hashing sources with their includes, comparing tables and running
// two compilers concurrently, and because the part that needs no compiler then also runs as a test of `make test`: a shader
// edited without `make shaders` fails there.
package main

import (
	"flag"
	"fmt"
	"os"
)

func main() {
	check := flag.Bool("check", false, "change nothing: compare shaders/spv with the sources, recompile, run spirv-val")
	all := flag.Bool("all", false, "compile every variant, not only what changed")
	root := flag.String("root", ".", "the repository")
	flag.Parse()
	if flag.NArg() > 0 || (*check && *all) {
		flag.Usage()
		os.Exit(2)
	}
	t := tree{root: *root}
	tools := newToolbox(*root)
	var report string
	var err error
	if *check {
		report, err = checkTree(t, tools)
	} else {
		report, err = buildTree(t, tools, *all)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "shaderbuild:", err)
		os.Exit(1)
	}
	fmt.Print(report)
}
