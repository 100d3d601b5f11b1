package train_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/colt5-vulkan/colt5/train"
)

// A run over the files of a folder that resumes from its last checkpoint. The training itself is left out.
func Example() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "colt5")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.WriteFile(filepath.Join(dir, "text.txt"), []byte("A folder with one short file."), 0o666); err != nil {
		log.Fatal(err)
	}
	for range 2 {
		if err := run(ctx, filepath.Join(dir, "text.txt"), filepath.Join(dir, "checkpoints"), 3); err != nil {
			log.Fatal(err)
		}
	}
	// Output:
	// step 0: "r with one" "der with o"
	// step 1: "lder with " "with one s"
	// step 2: "lder with " " with one "
	// step 3: "one short " "older with"
	// step 4: "lder with " "lder with "
	// step 5: "ith one sh" "older with"
}

// run does some steps and saves a checkpoint.
func run(ctx context.Context, data, dir string, steps int64) error {
	training, _, err := train.OpenCorpus(train.CorpusOptions{}, data)
	if err != nil {
		return err
	}
	batches, err := train.NewRandomBatches(training, train.BatchOptions{Items: 2, Length: 10})
	if err != nil {
		return err
	}
	config := map[string]any{"data": training.Fingerprint(), "length": 10}
	checkpoints, err := train.OpenCheckpoints(dir, train.CheckpointOptions{Config: config})
	if err != nil {
		return err
	}
	defer checkpoints.Close()
	first := int64(0)
	switch last, err := checkpoints.Latest(); {
	case err == nil:
		first = last.Step // and load model and optimiser from last.File
	case !errors.Is(err, train.ErrNoCheckpoint):
		return err
	}
	loader := train.NewLoader(ctx, batches, first, 0)
	defer loader.Close()
	for step := first; step < first+steps; step++ {
		b, err := loader.Next(ctx)
		if err != nil {
			return err
		}
		fmt.Printf("step %d: %q %q\n", step, b.IDs[:10], b.IDs[10:])
	}
	return checkpoints.Save(first+steps, nil, func(dir string) error {
		return os.WriteFile(filepath.Join(dir, "notes.txt"), []byte("model and optimiser"), 0o666)
	})
}
