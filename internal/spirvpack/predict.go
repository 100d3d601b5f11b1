package spirvpack

const (
	maxID     = 1 << 16 // larger ids are predicted like ids that have not been seen
	near      = 64      // how far from an id a known one is searched
	tableBits = 16      // of the hash tables of contexts
)

// contexts hash the first words of the last 16 and 4 instructions: with each word a hash moves up by so many of its 64 bits.
// An earlier instruction after the same words is found by the first of them that knows one.
var contexts = [...]int{4, 16}

// place is where an instruction starts.
type place struct {
	module, at uint32 // at 0: nowhere
	result     uint32 // the last result before it
}

// predictor knows all words so far. It follows earlier instructions as long as they have the same first words as those that
// are coded.
type predictor struct {
	modules [][]uint32
	hashes  [len(contexts)]uint64
	places  [len(contexts)][]place // by the highest bits of the hash
	follow  place
	ids     []uint32   // the last module's ids by those of the module that is followed; 0: unknown
	tables  [][]uint32 // ids by module
	learned []bool     // tables that are not empty
}

func newPredictor() *predictor {
	p := &predictor{}
	for i := range p.places {
		p.places[i] = make([]place, 1<<tableBits)
	}
	return p
}

// add adds a module.
func (p *predictor) add(code []uint32) {
	for m, some := range p.learned {
		if some {
			clear(p.tables[m])
		}
		p.learned[m] = false
	}
	p.modules, p.tables, p.learned = append(p.modules, code), append(p.tables, nil), append(p.learned, false)
	p.hashes, p.follow = [len(contexts)]uint64{}, place{}
}

// earlier returns the instruction that predicts the one at a place, or nil.
func (p *predictor) earlier(here place) []uint32 {
	for i, hash := range p.hashes {
		last := &p.places[i][hash>>(64-tableBits)]
		if p.follow.at == 0 && last.at > 0 {
			p.start(*last)
		}
		*last = here
	}
	if p.follow.at == 0 {
		return nil
	}
	code := p.modules[p.follow.module][p.follow.at:]
	return code[:code[0]>>16]
}

// start follows the instructions from a place on.
func (p *predictor) start(at place) {
	p.follow = at
	if p.tables[at.module] == nil {
		p.tables[at.module] = make([]uint32, min(p.modules[at.module][bound], maxID))
	}
	p.ids, p.learned[at.module] = p.tables[at.module], true
}

// step goes on behind an instruction with this first word, which was that of the earlier one or not.
func (p *predictor) step(first uint32, same bool) {
	for i, bits := range contexts {
		p.hashes[i] = p.hashes[i]<<bits + uint64(first)*0x9e3779b97f4a7c15
	}
	p.follow.at += first >> 16
	if !same || int(p.follow.at) >= len(p.modules[p.follow.module]) {
		p.follow = place{}
	}
}

// id predicts an id from the one of the instruction that is followed, and from the last result before. An id that is new here,
// such as a label, is as far from a neighbour as there; one that is a result is as far from the last result.
func (p *predictor) id(id, result uint32, neighbours bool) uint32 {
	if v := p.known(id); v > 0 {
		return v
	}
	if neighbours {
		for d := uint32(1); d < min(near, id); d++ {
			if v := p.known(id - d); v > 0 {
				return v + d
			}
			if v := p.known(id + d); v > 0 {
				return v - d
			}
		}
	}
	return result + id - p.follow.result
}

func (p *predictor) known(id uint32) uint32 {
	if id < uint32(len(p.ids)) {
		return p.ids[id]
	}
	return 0
}

// learn keeps that code has its ids where the earlier instruction has others.
func (p *predictor) learn(earlier, code []uint32, literals uint32, resultAt int) {
	for i := 1; i < len(code); i++ {
		if id := earlier[i]; literals>>min(i, 31)&1 == 0 && id < uint32(len(p.ids)) {
			p.ids[id] = code[i]
		}
	}
	if resultAt > 0 {
		p.follow.result = earlier[resultAt]
	}
}
