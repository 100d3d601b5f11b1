package spirv

import "fmt"

// MatrixProduct is a product A [M, K] x B [K, N] + C [M, N] of cooperative matrices, by OpCooperativeMatrixMulAddKHR.
type MatrixProduct struct {
	M, N, K         uint32
	A, B, C, Result uint32 // VkComponentTypeKHR
	Saturating      bool
	Scope           uint32 // VkScopeKHR
}

// matrix is a cooperative matrix type.
type matrix struct {
	component  *typ
	scope      uint32
	rows, cols uint32
	err        error // reason why the shape is unknown
}

// addMatrixType reads OpTypeCooperativeMatrixKHR.
func (r *reader) addMatrixType(in *instruction) {
	m := &matrix{component: r.typeOf(in.args[1])}
	r.matrices[in.args[0]] = m
	for i, to := range []*uint32{&m.scope, &m.rows, &m.cols} {
		c, err := r.integer(in.args[2+i])
		switch {
		case err != nil:
			m.err = fmt.Errorf("cooperative matrix type %%%d: %w", in.args[0], err)
			return
		case len(c.words) != 1 || c.words[0] == 0 || c.words[0] > 1<<32-1:
			m.err = fmt.Errorf("cooperative matrix type %%%d: %d is not a size", in.args[0], c.words)
			return
		}
		*to = uint32(c.words[0])
	}
}

// setProducts sets MatrixProducts. It runs last, because a phi may use a value that is defined later.
func (r *reader) setProducts() error {
	for _, in := range r.products {
		if err := r.addProduct(in); err != nil {
			return fmt.Errorf("word %d: %w", in.word, err)
		}
	}
	return nil
}

// addProduct reads OpCooperativeMatrixMulAddKHR: result type, result, A, B, C, and flags.
func (r *reader) addProduct(in *instruction) error {
	const signedA, signedB, signedC, signedResult, saturating = 1, 2, 4, 8, 16
	flags := uint32(0)
	if len(in.args) > 5 {
		flags = in.args[5]
	}
	var m [4]*matrix
	for i, id := range []uint32{r.values[in.args[2]], r.values[in.args[3]], r.values[in.args[4]], in.args[0]} {
		if m[i] = r.matrices[id]; m[i] == nil {
			return fmt.Errorf("operand %d of a matrix product has no matrix type", i)
		}
		if m[i].err != nil {
			return m[i].err
		}
	}
	a, b, c, result := m[0], m[1], m[2], m[3]
	if b.rows != a.cols || c.rows != a.rows || c.cols != b.cols || result.rows != a.rows || result.cols != b.cols {
		return fmt.Errorf("a matrix product of [%d, %d] x [%d, %d] + [%d, %d]", a.rows, a.cols, b.rows, b.cols, c.rows, c.cols)
	}
	p := MatrixProduct{
		M: a.rows, N: b.cols, K: a.cols, Saturating: flags&saturating != 0, Scope: result.scope,
		A: a.component.component(flags&signedA != 0), B: b.component.component(flags&signedB != 0),
		C: c.component.component(flags&signedC != 0), Result: result.component.component(flags&signedResult != 0),
	}
	for _, known := range r.MatrixProducts {
		if known == p {
			return nil
		}
	}
	r.MatrixProducts = append(r.MatrixProducts, p)
	return nil
}

// UnknownComponent is the component type of a matrix whose elements have no VkComponentTypeKHR that this package knows.
const UnknownComponent = 1<<31 - 1

// component returns the VkComponentTypeKHR of a type. Whether an integer is signed is a property of the operation.
func (t *typ) component(signed bool) uint32 {
	const bfloat16, bf16Encoding = 1000141000, 1
	var known map[uint32]uint32 // by width
	switch {
	case t.op == opTypeFloat && t.encoding == bf16Encoding:
		known = map[uint32]uint32{16: bfloat16}
	case t.op == opTypeFloat && t.encoding == 0:
		known = map[uint32]uint32{16: 0, 32: 1, 64: 2}
	case t.op == opTypeInt && signed:
		known = map[uint32]uint32{8: 3, 16: 4, 32: 5, 64: 6}
	case t.op == opTypeInt:
		known = map[uint32]uint32{8: 7, 16: 8, 32: 9, 64: 10}
	}
	if c, ok := known[t.width]; ok {
		return c
	}
	return UnknownComponent
}
