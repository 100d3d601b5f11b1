package hostinfo

import (
	"runtime"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestRead(t *testing.T) {
	i := Read()
	assert.Equal(t, runtime.Version(), i.Go)
	assert.True(t, strings.HasPrefix(i.OS, runtime.GOOS+"/"+runtime.GOARCH), i.OS)
	assert.Regexp(t, `.+, \d+ logical CPUs$`, i.CPU)
	assert.NotEmpty(t, i.Version)
	assert.NotEmpty(t, i.Commit)
}

func TestVersionOf(t *testing.T) {
	const revision = "13d7ac9f0123456789abcdef0123456789abcdef"
	for _, test := range []struct {
		version, revision, modified string
		wantVersion, wantCommit     string
	}{
		{"", "", "", "devel", "unknown"},
		{"(devel)", "", "", "devel", "unknown"},
		{"(devel)", revision, "false", "devel", "13d7ac9f0123"},
		{"(devel)", revision, "true", "devel", "13d7ac9f0123+modified"},
		{"v1.2.3", "", "", "v1.2.3", "unknown"},
		{"v0.0.0-20261130061513-13d7ac9abcde", "", "", "v0.0.0-20261130061513-13d7ac9abcde", "13d7ac9abcde"},
		{"v1.2.4-0.20261130061513-13d7ac9abcde+dirty", "", "", "v1.2.4-0.20261130061513-13d7ac9abcde+dirty", "13d7ac9abcde"},
		{"v1.2.3-rc.1", "", "", "v1.2.3-rc.1", "unknown"},
	} {
		b := &debug.BuildInfo{Main: debug.Module{Version: test.version}}
		if test.revision != "" {
			b.Settings = []debug.BuildSetting{{Key: "vcs.revision", Value: test.revision}, {Key: "vcs.modified", Value: test.modified}}
		}
		version, commit := versionOf(b)
		assert.Equal(t, test.wantVersion, version)
		assert.Equal(t, test.wantCommit, commit, test)
	}
}

func TestField(t *testing.T) {
	const text = "processor\t: 0\nmodel name\t: Xeon : fast\nmodel name\t: other\nNAME=\"x\"\n"
	assert.Equal(t, "Xeon : fast", field(text, "model name", ":"))
	assert.Equal(t, `"x"`, field(text, "NAME", "="))
	assert.Empty(t, field(text, "none", ":"))
	assert.Empty(t, field("", "none", ":"))
}
