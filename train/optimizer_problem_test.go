package train

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/internal/ref"
	"github.com/colt5-vulkan/colt5/pipelines"
	"github.com/colt5-vulkan/colt5/vk"
)

// problem is the minimum of labels/2 * |p - target|^2 over three parameters, whose gradient the device computes.
type problem struct {
	t          *testing.T
	dev        *vk.Device
	parameters []Parameter
	negative   []vk.Range // -target of each parameter
	optimizer  *Optimizer
	list       *vk.CommandList
}

// sizes of the parameters: only the first has a name and a shape that decay.
func problemShapes() (names []string, shapes [][]int) {
	return []string{"a.weight", "b.bias", "c.weight", "d.gamma"}, [][]int{{3, 5}, {7}, {6}, {2, 2}}
}

func normals(seed uint64, n int) []float32 {
	r := rand.New(rand.NewPCG(seed, 1))
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(r.NormFloat64())
	}
	return x
}

func (p *problem) buffer(data []float32) vk.Range {
	b, err := p.dev.NewBuffer("test", 4*uint64(len(data)))
	require.NoError(p.t, err)
	p.t.Cleanup(func() { assert.NoError(p.t, b.Close()) })
	p.upload(b.Range(), data)
	return b.Range()
}

func (p *problem) upload(r vk.Range, data []float32) {
	require.NoError(p.t, p.dev.Upload(p.t.Context(), vk.Transfer{Range: r, Data: vk.Bytes(data)}))
}

func (p *problem) download(r vk.Range) []float32 {
	data := make([]float32, r.Size()/4)
	require.NoError(p.t, p.dev.Download(p.t.Context(), vk.Transfer{Range: r, Data: vk.Bytes(data)}))
	return data
}

// newProblem records a step with one micro-batch.
func newProblem(t *testing.T, c OptimizerConfig) *problem {
	t.Helper()
	gputest.CountCase()
	p := &problem{t: t, dev: gputest.Device(t)}
	names, shapes := problemShapes()
	for i, name := range names {
		q := Parameter{Name: name, Shape: shapes[i]}
		q.Data = p.buffer(normals(uint64(i), q.elements()))
		p.parameters = append(p.parameters, q)
		p.negative = append(p.negative, p.buffer(normals(uint64(10+i), q.elements())))
	}
	var err error
	p.optimizer, err = NewOptimizer(t.Context(), p.dev, p.parameters, c)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, p.optimizer.Close()) })
	add, err := pipelines.NewAdd(p.dev, pipelines.AddConfig{})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, add.Close()) })
	p.list, err = p.dev.NewCommandList(vk.CommandListConfig{Name: "step"})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, p.list.Close()) })
	for i, q := range p.parameters {
		require.NoError(t, add.Record(p.list, pipelines.AddArgs{A: q.Data, B: p.negative[i], Y: p.optimizer.Gradient(0, i), N: q.elements()}))
	}
	require.NoError(t, p.optimizer.RecordGradients(p.list, 0))
	require.NoError(t, p.optimizer.RecordStep(p.list))
	p.loss(10, 1)
	return p
}

// loss sets the sum of losses and the count of labels. The gradients are those of labels times the mean.
func (p *problem) loss(sum, labels float32) {
	p.upload(p.optimizer.Loss(0), []float32{sum, labels})
}

func (p *problem) run(steps int) {
	p.t.Helper()
	for range steps {
		require.NoError(p.t, p.list.Run(p.t.Context()))
	}
}

// values returns all parameters and moments.
func (p *problem) values() (list []float32) {
	for _, q := range p.parameters {
		list = append(list, p.download(q.Data)...)
	}
	return append(append(list, p.download(p.optimizer.m.Range())...), p.download(p.optimizer.v.Range())...)
}

// reference is AdamW in float64, without any code of the library.
type reference struct {
	p, m, v, negative [][]float64
	decay             []bool
	t                 float64
}

func (p *problem) reference() *reference {
	r := &reference{decay: []bool{true, false, false, false}}
	for i, q := range p.parameters {
		value, negative := normals(uint64(i), q.elements()), normals(uint64(10+i), q.elements())
		r.p, r.negative = append(r.p, nil), append(r.negative, nil)
		for j := range value {
			r.p[i], r.negative[i] = append(r.p[i], float64(value[j])), append(r.negative[i], float64(negative[j]))
		}
		r.m, r.v = append(r.m, make([]float64, len(value))), append(r.v, make([]float64, len(value)))
	}
	return r
}

// step returns the norm of the gradient.
func (r *reference) step(rate, beta1, beta2, eps, decay, clip, labels float64) float64 {
	r.t++
	norm := 0.0
	for i := range r.p {
		for j := range r.p[i] {
			g := (r.p[i][j] + r.negative[i][j]) / labels
			norm += g * g
		}
	}
	norm = math.Sqrt(norm)
	factor := 1.0
	if clip > 0 {
		factor = min(1, clip/(norm+1e-6))
	}
	for i := range r.p {
		for j := range r.p[i] {
			g := (r.p[i][j] + r.negative[i][j]) / labels * factor
			if r.decay[i] {
				r.p[i][j] *= 1 - rate*decay
			}
			r.m[i][j] = beta1*r.m[i][j] + (1-beta1)*g
			r.v[i][j] = beta2*r.v[i][j] + (1-beta2)*g*g
			r.p[i][j] -= rate * (r.m[i][j] / (1 - math.Pow(beta1, r.t))) / (math.Sqrt(r.v[i][j]/(1-math.Pow(beta2, r.t))) + eps)
		}
	}
	return norm
}

func (p *problem) assertNear(r *reference) {
	p.t.Helper()
	for i, q := range p.parameters {
		assert.NoError(p.t, ref.MaxErr(p.download(q.Data), r.p[i]).Within(3e-6), q.Name)
	}
}
