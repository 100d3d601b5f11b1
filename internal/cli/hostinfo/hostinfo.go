// Package hostinfo describes the program and the machine that it runs on, so that measurements can be told apart.
package hostinfo

import (
	"fmt"
	"os"
	"regexp"
	"runtime"
	"runtime/debug"
	"strings"
)

// Info describes a program and a machine. Nothing in it identifies the machine.
type Info struct {
	Version string // of the module; "devel" for a build in a checkout that does not record its commit
	Commit  string // 12 hexadecimal digits, with "+modified" after changes; "unknown": go run does not record it
	Go      string // version of the compiler
	OS      string // operating system and architecture as Go names them, and the distribution
	CPU     string // model, and number of logical CPUs
}

// Read describes this program and this machine.
func Read() Info {
	build, ok := debug.ReadBuildInfo()
	if !ok {
		build = &debug.BuildInfo{}
	}
	i := Info{Go: runtime.Version(), OS: runtime.GOOS + "/" + runtime.GOARCH}
	i.Version, i.Commit = versionOf(build)
	if name := field(readText("/etc/os-release"), "PRETTY_NAME", "="); name != "" {
		i.OS += ", " + strings.Trim(name, `"'`)
	}
	model := field(readText("/proc/cpuinfo"), "model name", ":")
	if model == "" {
		model = os.Getenv("PROCESSOR_IDENTIFIER") // on Windows
	}
	if model == "" {
		model = runtime.GOARCH
	}
	i.CPU = fmt.Sprintf("%s, %d logical CPUs", model, runtime.NumCPU())
	return i
}

// pseudoVersion matches versions that Go derives from a commit, as v0.0.0-20261130061513-13d7ac9abcde.
var pseudoVersion = regexp.MustCompile(`[-.]\d{14}-([0-9a-f]{12})(\+|$)`)

// versionOf returns the version and the commit of a build.
func versionOf(b *debug.BuildInfo) (version, commit string) {
	version, commit = strings.Trim(b.Main.Version, "()"), "unknown"
	if version == "" {
		version = "devel"
	}
	modified := ""
	for _, s := range b.Settings {
		switch {
		case s.Key == "vcs.revision":
			commit = s.Value[:min(len(s.Value), 12)]
		case s.Key == "vcs.modified" && s.Value == "true":
			modified = "+modified"
		}
	}
	if m := pseudoVersion.FindStringSubmatch(version); m != nil && commit == "unknown" {
		commit = m[1]
	}
	return version, commit + modified
}

// readText returns the contents of a file, or nothing if it cannot be read.
func readText(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return string(text)
}

// field returns the first value of a key in lines of keys and values.
func field(text, key, separator string) string {
	for line := range strings.Lines(text) {
		if k, value, ok := strings.Cut(line, separator); ok && strings.TrimSpace(k) == key {
			return strings.TrimSpace(value)
		}
	}
	return ""
}
