package colt5

import (
	"github.com/colt5-vulkan/colt5/pipelines"
	"github.com/colt5-vulkan/colt5/vk"
)

// unselectedRows handles the rows of y that are not queries of the heavy branch: they get the null query token or 0.
type unselectedRows struct {
	b        *builder
	q        *routerState
	y, x     vk.Range
	null     *Tensor // nil: 0
	dim      int
	residual bool
	prefix   int // rows at the start of each item that never get the null token

	membership allocation // [B, N] u32: not 0 in rows that do not get the null token
}

// needsNull reports whether rows may get the null token.
func (o *unselectedRows) needsNull() bool { return o.null != nil && o.q.hasLists }

// recordMembershipMask records the mask of the rows that do not get the null token.
func (o *unselectedRows) recordMembershipMask() {
	if !o.needsNull() {
		return
	}
	o.membership = o.b.floats(o.q.b, o.q.n)
	record(o.b, pipelines.NewMembershipMask, pipelines.MembershipMaskConfig{}, pipelines.MembershipMaskArgs{
		Indices: o.q.indices.Range, Valid: o.q.valid.Range, Y: o.membership.Range, B: o.q.b, N: o.q.n, K: o.q.k, Prefix: o.prefix,
	})
}

// lightOutput makes the light branch write all rows and add the null token where it belongs.
func (o *unselectedRows) lightOutput() lightOutput {
	l := lightOutput{b: o.b, x: o.x, y: o.y, residual: o.residual, membership: &o.membership}
	if o.needsNull() {
		l.null = o.null
	}
	return l
}

// recordWithoutLight writes all rows of a module without a light branch, after the queries are selected. The heavy
// output then replaces the rows of the queries.
func (o *unselectedRows) recordWithoutLight() {
	o.release()
	if !o.q.hasLists {
		return
	}
	if o.null == nil && !o.residual {
		o.b.fill(o.y, 0)
		return
	}
	a := pipelines.ScatterArgs{Y: o.y, B: o.q.b, N: o.q.n}
	if o.null != nil {
		a.Row = o.null.memory
	}
	if o.residual {
		a.Base = o.x
	}
	var zeros allocation
	if o.null != nil && o.q.usesSoftScores { // a selected query with score 0 gets no null token either
		zeros = o.b.floats(o.q.b, o.q.k, o.dim)
		o.b.fill(zeros.Range, 0)
		a.Value, a.Indices, a.Valid, a.K = zeros.Range, o.q.indices.Range, o.q.valid.Range, o.q.k
	}
	record(o.b, pipelines.NewScatter, pipelines.ScatterConfig{C: o.dim, Add: o.residual && a.K > 0}, a)
	o.b.release(zeros)
}

func (o *unselectedRows) release() { o.b.release(o.membership) }
