package train_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/colt5-vulkan/colt5/colt5"
	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/train"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// user is what a goroutine does again and again, with the same results each time.
type user struct {
	name   string
	shares bool // modules with other users
	use    func(ctx context.Context) ([]float32, error)
	want   []float32 // results of a use without other users
}

// users are 16 users of a device: they share modules or make their own, run graphs with backward passes, and train.
type users struct {
	*testing.T
	dev    *vk.Device
	ff     *colt5.ConditionalRoutedFeedForward // shared, as is mha
	mha    *colt5.LocalMHA
	shared []interface{ Close() error } // ff, mha, and the graphs of both
	own    []interface{ Close() error }
	list   []*user
}

const (
	usersDim    = 16
	usersTokens = 24
)

func newUsers(t *testing.T) *users {
	if testing.Short() {
		t.Skip("compiles kernels for 5 s on CPU drivers; make race runs it")
	}
	gputest.Device(t) // or skip
	gputest.CountCase()
	dev, err := vk.Open(vk.Options{CacheDir: "-", Timeout: time.Minute})
	require.NoError(t, err)
	u := &users{T: t, dev: dev}
	c := colt5.Default[colt5.ConditionalRoutedFeedForwardConfig]()
	c.Dim, c.NumHeavyTokens, c.HeavyFFMult, c.LightFFMult = usersDim, 5, 2, 1
	u.ff, err = colt5.NewConditionalRoutedFeedForward(t.Context(), dev, c)
	require.NoError(t, err)
	a := colt5.Default[colt5.LocalMHAConfig]()
	a.Dim, a.DimHead, a.Heads, a.WindowSize, a.Causal, a.PreNorm = usersDim, 8, 2, 8, true, true
	u.mha, err = colt5.NewLocalMHA(t.Context(), dev, a)
	require.NoError(t, err)
	u.shared = append(u.shared, u.ff, u.mha)
	for i := range 4 {
		u.addCall(i, "feedforward", func(ctx context.Context, y, x *colt5.Tensor) error {
			return u.ff.Forward(ctx, y, x, colt5.FeedForwardOptions{})
		})
		u.addCall(i, "attention", func(ctx context.Context, y, x *colt5.Tensor) error {
			return u.mha.Forward(ctx, y, x, colt5.LocalMHAOptions{})
		})
	}
	for i := range 3 {
		u.addGraph(i)
		u.addOwnModule(i)
	}
	for i := range 2 {
		u.addTrainer(i)
	}
	require.Len(t, u.list, 16)
	for _, one := range u.list {
		one.want, err = one.use(t.Context())
		require.NoError(t, err, one.name)
		require.NotEmpty(t, one.want, one.name)
	}
	return u
}

func (u *users) tensor(seed int) *colt5.Tensor {
	data := make([]float32, usersTokens*usersDim)
	for i := range data {
		data[i] = float32((i+seed)*(i+7)%97)/32 - 1.5
	}
	x, err := colt5.FromSlice(u.Context(), u.dev, data, 1, usersTokens, usersDim)
	require.NoError(u, err)
	u.own = append(u.own, x)
	return x
}

// addCall adds a user of a shared module.
func (u *users) addCall(seed int, name string, forward func(ctx context.Context, y, x *colt5.Tensor) error) {
	x, y := u.tensor(seed), u.tensor(0)
	u.list = append(u.list, &user{name: fmt.Sprint(name, seed), shares: true, use: func(ctx context.Context) ([]float32, error) {
		if err := forward(ctx, y, x); err != nil {
			return nil, err
		}
		return y.Float32(ctx)
	}})
}

// addGraph adds a user with a graph of the shared modules, forward and backward.
func (u *users) addGraph(seed int) {
	g := colt5.NewGraph(u.dev)
	u.shared = append(u.shared, g)
	in, h, out := g.Input("x", colt5.F32, 0, 0, usersDim), g.Value("h"), g.Value("y")
	require.NoError(u, u.mha.Forward(u.Context(), h, in, colt5.LocalMHAOptions{}))
	require.NoError(u, u.ff.Forward(u.Context(), out, g.Add(in, h), colt5.FeedForwardOptions{}))
	g.Output("y", out)
	x, y, dy, dx := u.tensor(seed), u.tensor(0), u.tensor(seed+9), u.tensor(0)
	parameters, err := colt5.NewGradients(u.dev, u.ff.Parameters())
	require.NoError(u, err)
	u.own = append(u.own, parameters)
	back := &colt5.Backward{Upstream: map[string]*colt5.Tensor{"y": dy}, Inputs: map[string]*colt5.Tensor{"x": dx}, Parameters: parameters}
	u.list = append(u.list, &user{name: fmt.Sprint("graph", seed), shares: true, use: func(ctx context.Context) ([]float32, error) {
		if err := g.Run(ctx, map[string]*colt5.Tensor{"x": x, "y": y}, colt5.GraphOptions{Backward: back}); err != nil {
			return nil, err
		}
		tensors := []*colt5.Tensor{y, dx}
		for _, p := range parameters.List() {
			tensors = append(tensors, p.Tensor)
		}
		return readAll(ctx, tensors)
	}})
}

// addOwnModule adds a user that makes a module for each use.
func (u *users) addOwnModule(seed int) {
	x, y := u.tensor(seed), u.tensor(0)
	u.list = append(u.list, &user{name: fmt.Sprint("own module", seed), use: func(ctx context.Context) (result []float32, err error) {
		m, err := colt5.NewFeedForward(ctx, u.dev, colt5.FeedForwardConfig{Dim: usersDim, Mult: 2})
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, m.Close()) }()
		if err := errors.Join(m.Init(ctx, uint64(seed)), m.Forward(ctx, y, x, colt5.CallOptions{})); err != nil {
			return nil, err
		}
		return y.Float32(ctx)
	}})
}

// addTrainer adds a user that trains a model of its own for two steps, saves it, and trains it from the file.
func (u *users) addTrainer(seed int) {
	dir := u.TempDir()
	batch := &train.Batch{Items: 2, Length: usersTokens}
	for i := range 2 * usersTokens {
		batch.IDs, batch.Labels = append(batch.IDs, uint8(i*(i+seed))), append(batch.Labels, int32(i*i%256))
	}
	u.list = append(u.list, &user{name: fmt.Sprint("trainer", seed), use: func(ctx context.Context) (result []float32, err error) {
		var open []interface{ Close() error }
		defer func() {
			for _, o := range slices.Backward(open) {
				err = errors.Join(err, o.Close())
			}
		}()
		e, err := colt5.NewEmbedding(ctx, u.dev, colt5.EmbeddingConfig{NumTokens: 256, Dim: usersDim})
		if err != nil {
			return nil, err
		}
		open = append(open, e)
		l, err := colt5.NewLinear(ctx, u.dev, colt5.LinearConfig{In: usersDim, Out: 256})
		if err != nil {
			return nil, err
		}
		g := colt5.NewGraph(u.dev)
		open = append(open, l, g)
		x, logits := g.Value("x"), g.Value("logits")
		if err := errors.Join(
			e.Forward(ctx, x, g.Input("ids", colt5.U8, 0, 0), colt5.CallOptions{}),
			l.Forward(ctx, logits, x, colt5.CallOptions{}),
		); err != nil {
			return nil, err
		}
		g.Output("loss", g.CrossEntropy(logits, g.Input("labels", colt5.I32, 0, 0)))
		parameters := append(e.Parameters(), l.Parameters()...)
		for i := range parameters {
			parameters[i].Name = fmt.Sprint(i)
		}
		trainer, err := train.NewTrainer(ctx, g, parameters, train.OptimizerConfig{AdamW: train.AdamW{Rate: 0.01}})
		if err != nil {
			return nil, err
		}
		open = append(open, trainer)
		file := filepath.Join(dir, "optimizer")
		if err := trainer.Step(ctx, batch); err != nil {
			return nil, err
		}
		if err := trainer.Optimizer().Save(ctx, file); err != nil {
			return nil, err
		}
		if err := trainer.Load(ctx, file); err != nil {
			return nil, err
		}
		if err := errors.Join(trainer.Step(ctx, batch), trainer.Wait(ctx)); err != nil {
			return nil, err
		}
		return readAll(ctx, []*colt5.Tensor{e.Parameters()[0].Tensor, l.Parameters()[0].Tensor})
	}})
}

func readAll(ctx context.Context, list []*colt5.Tensor) (all []float32, err error) {
	for _, x := range list {
		data, err := x.Float32(ctx)
		if err != nil {
			return nil, err
		}
		all = append(all, data...)
	}
	return all, nil
}

// run runs all users at once, each so many times, or until it gets an error. When each has been used once, and goes on,
// meanwhile is called. It returns the errors by user.
func (u *users) run(times int, meanwhile func()) map[*user]error {
	ctx, cancel := context.WithTimeout(u.Context(), 4*time.Minute)
	defer cancel()
	var used, done sync.WaitGroup
	errs := make([]error, len(u.list))
	for i, one := range u.list {
		used.Add(1)
		done.Add(1)
		go func() {
			defer done.Done()
			for n := range times {
				got, err := one.use(ctx)
				if err == nil && !slices.Equal(one.want, got) {
					err = errors.New("other bits than alone")
				}
				if n == 0 {
					used.Done()
				}
				if errs[i] = err; err != nil {
					return
				}
				if i == 0 {
					runtime.GC()
				}
			}
		}()
	}
	used.Wait()
	meanwhile()
	done.Wait()
	failed := map[*user]error{}
	for i, err := range errs {
		if err != nil {
			failed[u.list[i]] = err
		}
	}
	return failed
}

// close closes what is open, and requires that nothing else is.
func (u *users) close() {
	for _, o := range slices.Backward(append(u.own, u.shared...)) {
		assert.NoError(u, o.Close())
	}
	assert.NoError(u, u.dev.Close())
}

// rounds is how often each user does its work.
const rounds = 10

// TestConcurrentUse: 16 goroutines on one device, inference and training, get the bits that each gets alone.
func TestConcurrentUse(t *testing.T) {
	u := newUsers(t)
	for one, err := range u.run(rounds, func() {}) {
		t.Errorf("%s: %v", one.name, err)
	}
	u.close()
}

// TestCloseModulesDuringUse closes modules and graphs while others use them: a use has its bits or an error that says what is
// closed, the users of other modules do not notice, and nothing is left.
func TestCloseModulesDuringUse(t *testing.T) {
	u := newUsers(t)
	const forever = 1 << 30
	var sharing sync.WaitGroup
	for _, one := range u.list {
		use, failed, once := one.use, false, sync.Once{}
		if one.shares {
			sharing.Add(1)
			one.use = func(ctx context.Context) ([]float32, error) {
				got, err := use(ctx)
				if err != nil {
					once.Do(sharing.Done)
				}
				return got, err
			}
			continue
		}
		left := make(chan struct{})
		go func() { sharing.Wait(); close(left) }()
		one.use = func(ctx context.Context) ([]float32, error) { // once more after the last of the users that share
			select {
			case <-left:
				if failed {
					return nil, errEnd
				}
				failed = true
			default:
			}
			return use(ctx)
		}
	}
	failed := u.run(forever, func() {
		var closes sync.WaitGroup
		for _, o := range u.shared {
			closes.Add(1)
			go func() { defer closes.Done(); assert.NoError(t, o.Close()) }()
		}
		closes.Wait()
	})
	for _, one := range u.list {
		if !one.shares {
			assert.Equal(t, errEnd, failed[one], one.name)
			continue
		}
		assert.ErrorIs(t, failed[one], vk.ErrClosed, one.name)
		assert.Regexp(t, `^colt5: (ConditionalRoutedFeedForward\.Forward: the module is|LocalMHA\.Forward: the module is|Graph\.Run: the (graph|module \w+) is) closed$`,
			failed[one].Error(), one.name)
	}
	u.close()
}

var errEnd = errors.New("end")

// TestCloseDeviceDuringUse closes the device while all use it: they have their bits, or errors that say that it is closed.
// What is open can be closed afterwards.
func TestCloseDeviceDuringUse(t *testing.T) {
	u := newUsers(t)
	failed := u.run(1<<30, func() {
		assert.ErrorContains(t, u.dev.Close(), "left open: ")
	})
	for _, one := range u.list {
		assert.ErrorIs(t, failed[one], vk.ErrClosed, one.name)
		assert.ErrorContains(t, failed[one], "the device is closed", one.name)
	}
	u.close()
}
