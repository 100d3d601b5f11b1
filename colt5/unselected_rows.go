package colt5

import (
	"github.com/colt5-vulkan/colt5/pipelines"
	"github.com/colt5-vulkan/colt5/vk"
)

// unselectedRows records what the rows of y get that are no query of the heavy branch.
type unselectedRows struct {
	b        *builder
	q        *routerState
	y, x     vk.Range
	null     *Tensor // nil: 0
	dim      int
	residual bool
	first    int // the first rows of an item never get the null token

	membership block // [B, N] u32: not 0 in rows that do not get the null token
}

// needsNull tells whether rows may get the null token.
func (o *unselectedRows) needsNull() bool { return o.null != nil && o.q.hasLists }

// recordMembershipMask records the mask of the rows that do not get the null token.
func (o *unselectedRows) recordMembershipMask() {
	if !o.needsNull() {
		return
	}
	o.membership = o.b.floats(o.q.b, o.q.n)
	record(o.b, pipelines.NewMembershipMask, pipelines.MembershipMaskConfig{}, pipelines.MembershipMaskArgs{
		Indices: o.q.indices.Range, Valid: o.q.valid.Range, Y: o.membership.Range, B: o.q.b, N: o.q.n, K: o.q.k, Prefix: o.first,
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
	var nothing block
	if o.null != nil && o.q.soft { // a selected query with score 0 gets no null token either
		nothing = o.b.floats(o.q.b, o.q.k, o.dim)
		o.b.fill(nothing.Range, 0)
		a.Value, a.Indices, a.Valid, a.K = nothing.Range, o.q.indices.Range, o.q.valid.Range, o.q.k
	}
	record(o.b, pipelines.NewScatter, pipelines.ScatterConfig{C: o.dim, Add: o.residual && a.K > 0}, a)
	o.b.release(nothing)
}

func (o *unselectedRows) release() { o.b.release(o.membership) }
