package training

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"

	"github.com/colt5-vulkan/colt5/cmd/colt5/internal/model"
	"github.com/colt5-vulkan/colt5/cmd/colt5/internal/settings"
	"github.com/colt5-vulkan/colt5/internal/cli/command"
	"github.com/colt5-vulkan/colt5/internal/cli/table"
	"github.com/colt5-vulkan/colt5/train"
)

// data is what a run trains and is evaluated with.
type data struct {
	batches train.Batches
	pass    model.Pass // of the held-out part; nil: there is none
	most    int64      // batches of the pass in an evaluation; 0: all
	text    []byte     // the start of the held-out part, else of the training part: for samples and routing
	about   string
}

// nothingHeldOut is said where the hash of -held-out takes none of a few files.
const nothingHeldOut = " (by chance none of so few: a smaller -held-out holds out more)"

// openText opens the files of a language model, and sets the fingerprint of the configuration.
func openText(c *settings.Config, names []string, out string) (data, error) {
	training, heldOut, err := c.Data.OpenCorpus(names, out)
	if err != nil {
		return data{}, err
	}
	c.Data.Fingerprint = training.Fingerprint()
	d := data{most: most(*c), about: fmt.Sprintf("%s of %s to train with, %s of %v held out", command.Count(len(training.Files()), "file"), table.Size(training.Size()),
		command.Count(len(heldOut.Files()), "file"), table.Size(heldOut.Size()))}
	if c.Data.HeldOut > 0 && heldOut.Size() == 0 {
		d.about += nothingHeldOut
	}
	o := train.BatchOptions{Items: c.Batch, Length: c.Length, Seed: c.Seed}
	if d.batches, err = train.NewRandomBatches(training, o); err != nil {
		return d, err
	}
	source := training
	if heldOut.Size() > 1 {
		source = heldOut
		windows, err := train.NewWindows(heldOut, o, 0)
		if err != nil {
			return d, err
		}
		d.pass = windows
	}
	d.text = make([]byte, min(source.Size(), int64(max(c.Run.RoutingLength, c.Run.SamplePrompt))))
	_, err = source.ReadAt(d.text, 0)
	if err == io.EOF {
		err = nil
	}
	return d, err
}

// openDocuments opens the documents of a classifier, and sets the classes and the fingerprint of the configuration.
func openDocuments(c *settings.Config, name string) (data, error) {
	training, heldOut, err := c.Data.OpenDocuments(name, c.Classes)
	if err != nil {
		return data{}, err
	}
	c.Classes = training.Classes()
	if c.Data.Fingerprint, err = hashOf(name); err != nil {
		return data{}, err
	}
	d := data{most: most(*c), about: fmt.Sprintf("%s to train with, %d held out, %s", command.Count(training.Len(), "document"), heldOut.Len(),
		map[bool]string{true: "1 class", false: fmt.Sprintf("%d classes", len(c.Classes))}[len(c.Classes) == 1])}
	if c.Data.HeldOut > 0 && heldOut.Len() == 0 {
		d.about += nothingHeldOut
	}
	o := train.BatchOptions{Items: c.Batch, Length: c.Length, Seed: c.Seed}
	if d.batches, err = train.NewDocumentBatches(training, o); err != nil {
		return d, err
	}
	source := training
	if heldOut.Len() > 0 {
		source = heldOut
		if d.pass, err = train.NewDocumentPass(heldOut, o); err != nil {
			return d, err
		}
	}
	text, _, err := source.Document(0)
	d.text = []byte(text)[:min(len(text), c.Run.RoutingLength)]
	return d, err
}

// most is the batches of an evaluation; 0: all.
func most(c settings.Config) int64 {
	if c.Run.HeldOutBytes == 0 {
		return 0
	}
	return int64(max(c.Run.HeldOutBytes/(c.Batch*c.Length), 1))
}

// hashOf is the SHA-256 of a file.
func hashOf(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
