package pipelines

import (
	"errors"
	"maps"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/shaders"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// fakeCompiler has the spills of three variants and a store of choices.
type fakeCompiler struct {
	spills  [3]uint64
	err     [3]error
	silent  bool // reports no spills
	stored  map[string]string
	failing bool // does not store
	asked   []int
}

func (f *fakeCompiler) StoredTuning(purpose string) string { return f.stored[purpose] }

func (f *fakeCompiler) StoreTuning(variants map[string]string) error {
	if f.failing {
		return errors.New("the disk is full")
	}
	maps.Copy(f.stored, variants)
	return nil
}

// The first variant without spills is chosen, and stored.
func TestChooseBySpills(t *testing.T) {
	fault := errors.New("lost")
	for name, c := range map[string]struct {
		compiler  fakeCompiler
		want      int
		asked     []int
		wantStore string
		wantErr   error
	}{
		"first fits":               {compiler: fakeCompiler{}, want: 0, asked: []int{0}, wantStore: "large"},
		"spills: the next one":     {compiler: fakeCompiler{spills: [3]uint64{7, 0, 0}}, want: 1, asked: []int{0, 1}, wantStore: "medium"},
		"stored: nothing is asked": {compiler: fakeCompiler{stored: map[string]string{"p": "small"}}, want: 2, wantStore: "small"},
		"stored is unknown":        {compiler: fakeCompiler{stored: map[string]string{"p": "huge"}}, want: 0, asked: []int{0}, wantStore: "large"},
		"all spill: the least":     {compiler: fakeCompiler{spills: [3]uint64{9, 3, 5}}, want: 1, asked: []int{0, 1, 2}, wantStore: "medium"},
		"equal: the first":         {compiler: fakeCompiler{spills: [3]uint64{3, 3, 3}}, want: 0, asked: []int{0, 1, 2}, wantStore: "large"},
		"no statistics: preset":    {compiler: fakeCompiler{silent: true}, want: 2, asked: []int{0}},
		"unsupported: the next":    {compiler: fakeCompiler{err: [3]error{vk.ErrUnsupported}}, want: 1, asked: []int{0, 1}, wantStore: "medium"},
		"preset is unsupported":    {compiler: fakeCompiler{spills: [3]uint64{1, 1}, err: [3]error{2: vk.ErrUnsupported}}, asked: []int{0, 1, 2}, wantErr: vk.ErrUnsupported},
		"fault":                    {compiler: fakeCompiler{err: [3]error{fault}}, asked: []int{0}, wantErr: fault},
		"cannot store":             {compiler: fakeCompiler{spills: [3]uint64{7}, failing: true}, want: 1, asked: []int{0, 1}},
	} {
		f := c.compiler
		if f.stored == nil {
			f.stored = map[string]string{}
		}
		got, err := chooseBySpills(&f, "p", []string{"large", "medium", "small"}, 2, func(i int) (uint64, bool, error) {
			f.asked = append(f.asked, i)
			return f.spills[i], !f.silent, f.err[i]
		})
		assert.ErrorIs(t, err, c.wantErr, name)
		assert.Equal(t, c.want, got, name)
		assert.Equal(t, c.asked, f.asked, name)
		assert.Equal(t, c.wantStore, f.stored["p"], name)
	}
}

func TestCountSpills(t *testing.T) {
	for name, c := range map[string]struct {
		stats []vk.CompilerStat
		want  uint64
		known bool
	}{
		"none":                    {nil, 0, false},
		"nvidia":                  {[]vk.CompilerStat{{Name: "Register Count", Value: 255}, {Name: "Stack Size"}}, 0, false},
		"radv":                    {[]vk.CompilerStat{{Name: "VGPRs", Value: 192}, {Name: "Spilled VGPRs", Value: 2}, {Name: "Scratch size", Value: 8}}, 10, true},
		"anv":                     {[]vk.CompilerStat{{Name: "Spills", Value: 4}, {Name: "Fills", Value: 8}, {Name: "Scratch Memory Size", Value: 64}}, 12, true},
		"turnip":                  {[]vk.CompilerStat{{Name: "Registers used", Value: 24}, {Name: "STP Count"}, {Name: "LDP Count"}}, 0, true},
		"nvk":                     {[]vk.CompilerStat{{Name: "Spills to reg", Value: 203}, {Name: "Spills to memory", Value: 121}}, 121, true},
		"nvk, an array in memory": {[]vk.CompilerStat{{Name: "Spills to memory"}, {Name: "SLM size", Value: 512}}, 512, true},
	} {
		n, known := countSpills(c.stats)
		assert.Equal(t, c.want, n, name)
		assert.Equal(t, c.known, known, name)
	}
}

// A device without statistics gets the preset variant. Where the driver has statistics, one variant is compiled in the
// end, and the next cache compiles no other.
func TestKernelCacheChoose(t *testing.T) {
	dev, err := vk.Open(vk.Options{CacheDir: t.TempDir()})
	if err != nil {
		gputest.Device(t)
	}
	require.NoError(t, err)
	defer func() { assert.NoError(t, dev.Close()) }()
	gputest.CountCase()
	variants := []kernelVariant{
		{name: "large", spv: "gather", spec: map[uint32]uint32{shaders.RowwiseColumns: 512}},
		{name: "small", spv: "gather", spec: map[uint32]uint32{shaders.RowwiseColumns: 256}},
	}
	k := kernelCache{dev: dev}
	got, err := k.choose(variants[:1], 0)
	assert.NoError(t, err)
	assert.Equal(t, 0, got)
	assert.Empty(t, k.compiled, "there is no choice")
	for range 2 {
		got, err := k.choose(variants, 1)
		assert.NoError(t, err)
		if !dev.Caps().PipelineStatistics {
			assert.Equal(t, 1, got)
		}
	}
	for i := range variants {
		kernel, err := k.kernel(variants[i])
		assert.NoError(t, err)
		assert.Equal(t, variants[i].name, kernel.Name())
	}
	assert.Len(t, k.compiled, 2)
	a, err := choicePurpose(variants)
	assert.NoError(t, err)
	variants[1].spec[shaders.RowwiseColumns] = 128
	b, err := choicePurpose(variants)
	assert.NoError(t, err)
	assert.NotEqual(t, a, b)
	assert.NoError(t, k.close())
	_, err = k.kernel(variants[0])
	assert.ErrorIs(t, err, vk.ErrClosed)
}
