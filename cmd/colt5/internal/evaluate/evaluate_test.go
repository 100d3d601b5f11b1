package evaluate

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/colt5-vulkan/colt5/cmd/colt5/internal/model"
	"github.com/colt5-vulkan/colt5/cmd/colt5/internal/settings"
	"github.com/colt5-vulkan/colt5/internal/cli/commandtest"
	"github.com/colt5-vulkan/colt5/train"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestUsage(t *testing.T) {
	commandtest.New("colt5", Command).RejectsUsage(t, [][2]string{
		{"eval", "eval needs a model and files"},
		{"eval no-such-file x", "no-such-file: no such file"},
	})
}

// -held-out of a training that held nothing out says so.
func TestNothingHeldOut(t *testing.T) {
	dir := t.TempDir()
	text, documents := filepath.Join(dir, "text"), filepath.Join(dir, "documents.jsonl")
	require.NoError(t, os.WriteFile(text, []byte("some text"), 0o644))
	require.NoError(t, os.WriteFile(documents, []byte(`{"text": "a", "label": "x"}`+"\n"), 0o644))
	o := train.BatchOptions{Items: 1, Length: 4}

	var e evaluation
	whole, _, err := e.source.Config.Data.OpenCorpus([]string{text}, dir)
	require.NoError(t, err)
	e.source = model.Source{Config: settings.Config{Data: settings.Data{Fingerprint: whole.Fingerprint()}}}
	assert.ErrorIs(t, e.openText([]string{text}, dir, true, o, 0), errNothingHeldOut)
	assert.NoError(t, e.openText([]string{text}, dir, false, o, 0))

	e.source.Config.Data.TextField, e.source.Config.Data.LabelField = "text", "label"
	assert.ErrorIs(t, e.openDocuments(documents, true, o), errNothingHeldOut)
	assert.NoError(t, e.openDocuments(documents, false, o))
}
