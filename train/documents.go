package train

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/colt5-vulkan/colt5/internal/errtext"
)

// Documents are labelled texts of a JSONL file: one JSON object per line. Positions and labels are in memory; the texts
// are read from the file. They may be used by several goroutines.
type Documents struct {
	name     string
	field    string // of the text
	size     int64
	modified time.Time
	classes  []string
	list     []document
}

type document struct {
	start, bytes int64 // of the line
	label        int32
}

// DocumentOptions name the fields of the objects.
type DocumentOptions struct {
	TextField  string   // a string; "": "text"
	LabelField string   // a string, or a whole number of at least 0; "": "label"
	KeyField   string   // a string, the key for the function HeldOut; "": the text is the key
	HeldOut    uint32   // the n of the function HeldOut; 0: nothing is held out
	Classes    []string // the labels in the order of their numbers; nil: those of the file, numbers or sorted strings
}

// OpenDocuments reads a JSONL file once, and returns the documents to train with and those that are held out. Both have
// the same classes. Empty lines are left out; other fields are ignored. A line that is no object, or lacks a field, is
// an error with the number of the line.
//
// If all labels are whole numbers and Classes is nil, they are the numbers of the classes, from 0 to the largest.
// Otherwise the label of a document is the position of its string, or of the digits of its number, in Classes.
//
// A file that changes or vanishes later is an error when a text is read.
func OpenDocuments(name string, o DocumentOptions) (training, heldOut *Documents, err error) {
	if o.TextField == "" {
		o.TextField = "text"
	}
	if o.LabelField == "" {
		o.LabelField = "label"
	}
	training, heldOut, err = openDocuments(name, o)
	if err != nil {
		return nil, nil, fmt.Errorf("train: OpenDocuments: %w", err)
	}
	return training, heldOut, nil
}

// labelled is a document whose label is not a number yet.
type labelled struct {
	document
	label   string
	heldOut bool
}

func openDocuments(name string, o DocumentOptions) (training, heldOut *Documents, err error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, nil, err
	}
	defer file.Close()
	before, err := file.Stat()
	if err != nil {
		return nil, nil, err
	}
	list, numbers, err := o.scan(file)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", errtext.Name(name), err)
	}
	after, err := file.Stat()
	if err != nil {
		return nil, nil, err
	}
	if err := unchanged(name, after, before.Size(), before.ModTime()); err != nil {
		return nil, nil, err
	}
	classes, err := o.classes(list, numbers)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", errtext.Name(name), err)
	}
	index := make(map[string]int32, len(classes))
	for i, c := range classes {
		index[c] = int32(i)
	}
	training = &Documents{name: name, field: o.TextField, size: before.Size(), modified: before.ModTime(), classes: classes}
	copied := *training
	heldOut = &copied
	for _, d := range list {
		label, ok := index[d.label]
		if !ok {
			return nil, nil, fmt.Errorf("%s: label %s of the line at byte %d is none of the %d Classes",
				errtext.Name(name), errtext.Quote(d.label), d.start, len(classes))
		}
		d.document.label = label
		part := training
		if d.heldOut {
			part = heldOut
		}
		part.list = append(part.list, d.document)
	}
	return training, heldOut, nil
}

// scan reads all lines. numbers reports whether all labels are whole numbers.
func (o DocumentOptions) scan(r io.Reader) (list []labelled, numbers bool, err error) {
	lines, start := bufio.NewReaderSize(r, 1<<20), int64(0)
	numbers = true
	for number := 1; ; number++ {
		line, err := lines.ReadBytes('\n')
		if err != nil && err != io.EOF {
			return nil, false, err
		}
		if len(bytes.TrimSpace(line)) > 0 {
			d, isNumber, problem := o.parse(line)
			if problem != nil {
				return nil, false, fmt.Errorf("line %d: %w", number, problem)
			}
			d.start, d.bytes = start, int64(len(line))
			list = append(list, d)
			numbers = numbers && isNumber
		}
		start += int64(len(line))
		if err == io.EOF {
			break
		}
	}
	if len(list) == 0 {
		return nil, false, errors.New("there is no document, want at least one line")
	}
	return list, numbers, nil
}

// parse reads a line. isNumber reports whether the label is a whole number.
func (o DocumentOptions) parse(line []byte) (d labelled, isNumber bool, err error) {
	var object map[string]json.RawMessage
	if err := json.Unmarshal(line, &object); err != nil {
		return d, false, fmt.Errorf("want a JSON object: %w", err)
	}
	text, err := stringField(object, o.TextField)
	if err != nil {
		return d, false, err
	}
	key := text
	if o.KeyField != "" {
		if key, err = stringField(object, o.KeyField); err != nil {
			return d, false, err
		}
	}
	d.heldOut = HeldOut(key, o.HeldOut)
	raw, ok := object[o.LabelField]
	if !ok {
		return d, false, fmt.Errorf("field %s is missing, want a string or a number", errtext.Quote(o.LabelField))
	}
	if json.Unmarshal(raw, &d.label) == nil && raw[0] == '"' {
		return d, false, nil
	}
	n, err := strconv.ParseInt(string(raw), 10, 32)
	if err != nil || n < 0 {
		return d, false, fmt.Errorf("field %s is %s, want a string or a whole number of at least 0",
			errtext.Quote(o.LabelField), errtext.Quote(string(raw)))
	}
	d.label = strconv.FormatInt(n, 10)
	return d, true, nil
}

func stringField(object map[string]json.RawMessage, name string) (string, error) {
	raw, ok := object[name]
	if !ok {
		return "", fmt.Errorf("field %s is missing, want a string", errtext.Quote(name))
	}
	var s *string
	if err := json.Unmarshal(raw, &s); err != nil || s == nil {
		return "", fmt.Errorf("field %s is %s, want a string", errtext.Quote(name), errtext.Quote(string(raw)))
	}
	return *s, nil
}

const maxClasses = 1 << 20

// classes returns the names of the classes in the order of their numbers.
func (o DocumentOptions) classes(list []labelled, numbers bool) ([]string, error) {
	if o.Classes != nil {
		if sorted := slices.Sorted(slices.Values(o.Classes)); len(slices.Compact(sorted)) != len(o.Classes) {
			return nil, fmt.Errorf("Classes has a label twice, want different ones")
		}
		return slices.Clone(o.Classes), nil
	}
	if numbers {
		largest := 0
		for _, d := range list {
			n, err := strconv.Atoi(d.label)
			if err != nil {
				return nil, err
			}
			largest = max(largest, n)
		}
		if largest >= maxClasses {
			return nil, fmt.Errorf("the largest label is %d, want less than %d", largest, maxClasses)
		}
		classes := make([]string, largest+1)
		for i := range classes {
			classes[i] = strconv.Itoa(i)
		}
		return classes, nil
	}
	var classes []string
	for _, d := range list {
		classes = append(classes, d.label)
	}
	slices.Sort(classes)
	return slices.Compact(classes), nil
}

// Len is the number of documents.
func (d *Documents) Len() int { return len(d.list) }

// Classes returns the names of the classes in the order of their numbers.
func (d *Documents) Classes() []string { return slices.Clone(d.classes) }

// Document returns the text and the label of document i, from 0 on in the order of the file.
func (d *Documents) Document(i int) (text string, label int32, err error) {
	if i < 0 || i >= len(d.list) {
		return "", 0, fmt.Errorf("train: Document: i is %d, want 0 to %d", i, len(d.list)-1)
	}
	text, err = d.text(d.list[i])
	if err != nil {
		return "", 0, fmt.Errorf("train: Document %d: %w", i, err)
	}
	return text, d.list[i].label, nil
}

func (d *Documents) text(doc document) (string, error) {
	line := make([]byte, doc.bytes)
	if err := (CorpusFile{Name: d.name, Size: d.size, modified: d.modified}).read(line, doc.start); err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	var object map[string]json.RawMessage
	if err := json.Unmarshal(line, &object); err != nil {
		return "", fmt.Errorf("%s: %w", errtext.Name(d.name), err)
	}
	return stringField(object, d.field)
}

// DocumentBatches are batches of documents: their first Length bytes, padded and masked to Length, with one label each.
type DocumentBatches struct {
	documents *Documents
	options   BatchOptions
	random    bool
}

// NewDocumentBatches makes random batches. Item b of step t is document
//
//	SplitMix64(Seed * 2^32 + t * Items + b) mod number of documents
func NewDocumentBatches(d *Documents, o BatchOptions) (*DocumentBatches, error) {
	return newDocumentBatches("NewDocumentBatches", d, o, true)
}

// NewDocumentPass makes batches with every document once, in order. The last batch is padded with items without a byte,
// whose label is IgnoreLabel. Seed has no effect.
func NewDocumentPass(d *Documents, o BatchOptions) (*DocumentBatches, error) {
	return newDocumentBatches("NewDocumentPass", d, o, false)
}

func newDocumentBatches(op string, d *Documents, o BatchOptions, random bool) (*DocumentBatches, error) {
	if err := o.check(op); err != nil {
		return nil, err
	}
	if d.Len() == 0 {
		return nil, fmt.Errorf("train: %s: there are 0 documents, want at least 1", op)
	}
	return &DocumentBatches{d, o, random}, nil
}

// Steps is the number of batches: of random batches [math.MaxInt64].
func (d *DocumentBatches) Steps() int64 {
	if d.random {
		return math.MaxInt64
	}
	return int64((d.documents.Len() + d.options.Items - 1) / d.options.Items)
}

// Batch implements Batches, for steps 0 to Steps - 1.
func (d *DocumentBatches) Batch(ctx context.Context, step int64, b *Batch) error {
	o, n := d.options, d.documents.Len()
	if step < 0 || step >= d.Steps() {
		return fmt.Errorf("train: DocumentBatches.Batch: step is %d, want 0 to %d", step, d.Steps()-1)
	}
	b.reset(o.Items, o.Length, o.Items, true)
	clear(b.IDs)
	clear(b.Mask)
	for item := range o.Items {
		if err := ctx.Err(); err != nil {
			return err
		}
		i := int(step)*o.Items + item
		if d.random {
			i = int(randomIndex(o.Seed, step, o.Items, item, uint64(n)))
		}
		b.Labels[item] = IgnoreLabel
		if i >= n {
			continue
		}
		text, label, err := d.documents.Document(i)
		if err != nil {
			return err
		}
		b.Labels[item] = label
		first := item * o.Length
		for j := range copy(b.IDs[first:first+o.Length], text) {
			b.Mask[first+j] = 1
		}
	}
	return nil
}
