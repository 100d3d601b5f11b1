package report

import (
	_ "embed"
	"io"
	"slices"
	"time"

	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/measure"
	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/results"
	"github.com/colt5-vulkan/colt5/internal/cli/command"
	"github.com/colt5-vulkan/colt5/internal/cli/deviceinfo"
	"github.com/colt5-vulkan/colt5/internal/cli/table"
	"github.com/colt5-vulkan/colt5/internal/cli/webpage"
	"github.com/colt5-vulkan/colt5/vk"
)

//go:embed report.html
var pageTemplate string

// page is the data of report.html.
type page struct {
	Device, Lead, Command string
	CPU                   bool
	Facts                 []fact
	Remarks, Failed       []string
	Properties            [][2]string
	Tables                []tableOfRows
	Plots                 []drawing
}

// newPage makes a page of the given rows.
func newPage(i vk.Info, command string, now time.Time, remarks []string, rows []results.Row, plots []drawing) page {
	p := page{
		Device: i.Name, Lead: lead(i, now.Format("2006-01-02"), rows), Command: command, CPU: i.Caps.CPU, Facts: facts(rows), Plots: plots,
		Remarks: slices.DeleteFunc(slices.Clone(remarks), func(s string) bool { return s == measure.CPUDriverRemark }),
	}
	for _, x := range deviceinfo.Properties(i) {
		p.Properties = append(p.Properties, [2]string{x.Name, table.Markdown(x.Value)})
	}
	p.Tables = tablesOf(rows)
	return p
}

// Failures counts the failures.
func (p page) Failures() string { return command.Count(len(p.Failed), "failure") }

func (p page) write(w io.Writer) error {
	t, err := webpage.New("report", pageTemplate)
	if err != nil {
		return err
	}
	return t.Execute(w, p)
}
