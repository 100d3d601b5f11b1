package safetensors

import "strings"

// Source is a set of named tensors from which a model can be loaded. *File is one. An own type can generate, convert or
// combine weights.
type Source interface {
	// Names returns the names of the tensors, in the order in which they are best read.
	Names() []string
	// Info returns the description of a tensor, and false if there is no tensor of that name.
	Info(name string) (Info, bool)
	// ReadFloat32 returns the elements of a tensor as float32 in row-major order.
	ReadFloat32(name string) ([]float32, error)
}

// LoadOptions says how the tensors of a Source correspond to the parameters of a model. The LoadFrom methods of package
// colt5 take it. The zero value: every tensor has the name of a parameter, and every parameter has a tensor.
//
// The name of a tensor is changed in this order: Prefix is removed, AddPrefix is added, Rename is called.
type LoadOptions struct {
	// Prefix selects the tensors whose names begin with it, and is removed from their names; the others are ignored.
	// "module." reads what PyTorch's DataParallel saved, "encoder." one part of a larger model.
	Prefix string
	// AddPrefix is put before the names: "layers." for the state dict of a ModuleList that is the layers of a model.
	AddPrefix string
	// Rename returns the parameter's name for a tensor's, or "" to ignore the tensor. nil: the name stays.
	Rename func(name string) string

	AllowMissing   bool // parameters without a tensor keep their values; at least one must have a tensor
	AllowExtra     bool // tensors that are no parameters are ignored
	AllowNonFinite bool // NaN and infinities are values like any other; false: they are an error
}

// Name returns the parameter's name for the name of a tensor, and false if the tensor is ignored.
func (o LoadOptions) Name(tensor string) (string, bool) {
	name, selected := strings.CutPrefix(tensor, o.Prefix)
	if !selected {
		return "", false
	}
	name = o.AddPrefix + name
	if o.Rename != nil {
		name = o.Rename(name)
		return name, name != ""
	}
	return name, true
}
