// Command shaderbuild compiles the modules of shaders/src/variants.txt to shaders/src/spv, and writes shaders/src/spv/MANIFEST,
// shaders/spv.pack, which the library embeds, and shaders/constants.go. With -check it verifies that these committed files
// match the sources. `make shaders` and
// `make check-shaders` run it in the root of the repository.
//
// shaders/constants.go has Go names for the ids of the specialisation constants. They are generated from the
// declarations layout(constant_id = N) const TYPE NAME in the GLSL of every variant; includes and conditions are
// followed.
//
// It is a Go program, not a script, so that the checks that need no compiler also run as tests: `make test` fails if a
// shader was edited without `make shaders`.
package main

import (
	"flag"
	"fmt"
	"os"
)

func main() {
	check := flag.Bool("check", false, "change nothing: compare the committed files with the sources, recompile, run spirv-val")
	all := flag.Bool("all", false, "compile every variant, not only those that changed")
	root := flag.String("root", ".", "root of the repository")
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
