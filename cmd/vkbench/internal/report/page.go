package report

import (
	_ "embed"
	"html/template"
	"io"
	"slices"
	"time"

	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/deviceinfo"
	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/measure"
	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/results"
	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/table"
	"github.com/colt5-vulkan/colt5/vk"
)

//go:embed report.html
var pageTemplate string

// page is the data of report.html.
type page struct {
	Device, Date, Command string
	CPU                   bool
	Remarks, Failed       []string
	Properties            [][2]string
	Tables                []tableOfRows
	Plots                 []drawing
}

// newPage makes a page of the given rows.
func newPage(i vk.Info, command string, now time.Time, remarks []string, rows []results.Row, plots []drawing) page {
	p := page{
		Device: i.Name, Date: now.Format("2006-01-02"), Command: command, CPU: i.Caps.CPU, Plots: plots,
		Remarks: slices.DeleteFunc(slices.Clone(remarks), func(s string) bool { return s == measure.CPUDriverRemark }),
	}
	for _, x := range deviceinfo.Properties(i) {
		p.Properties = append(p.Properties, [2]string{x.Name, table.Markdown(x.Value)})
	}
	p.Tables = tablesOf(rows)
	return p
}

func (p page) write(w io.Writer) error {
	t, err := template.New("report").Parse(pageTemplate)
	if err != nil {
		return err
	}
	return t.Execute(w, p)
}
