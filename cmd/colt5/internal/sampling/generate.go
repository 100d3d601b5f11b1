package sampling

import "context"

// Model computes the logits of the token after a sequence, which Append extends: a colt5.Generator.
type Model interface {
	Append(ctx context.Context, ids ...int) ([]float32, error)
}

// Generate chooses so many tokens after a prompt of bytes, of at least one, and calls next with each. It ends with an
// error of ctx before the token that is not chosen any more.
func Generate(ctx context.Context, m Model, prompt []byte, length int, o Options, next func(token int) error) error {
	ids := make([]int, len(prompt))
	for i, b := range prompt {
		ids[i] = int(b)
	}
	work := context.WithoutCancel(ctx)
	for i := range length {
		if err := ctx.Err(); err != nil {
			return err
		}
		logits, err := m.Append(work, ids...)
		if err != nil {
			return err
		}
		token, err := o.Choose(logits, uint64(len(prompt)+i))
		if err != nil {
			return err
		}
		if err := next(token); err != nil {
			return err
		}
		ids = append(ids[:0], token)
	}
	return nil
}
