// Package train has what a training run needs beside a model: the optimiser, data, and checkpoints.
//
// # Optimiser
//
// [Optimizer] has the memory of the gradients and updates parameters by AdamW (arXiv 1711.05101), with clipping by the
// global norm, a schedule of the learning rate, and a loss scale for float16. It is recorded into a command list behind
// the backward pass. Loss, norm, rate and loss scale of every step stay on the device until [Optimizer.Records] reads
// them, so that the host waits for nothing between steps.
//
// # Data
//
// [OpenCorpus] lists files and folders, [OpenDocuments] the labelled texts of a JSONL file; both divide them into a
// part to train with and a part that is held out, by a hash of names. Neither holds the data in memory.
// [NewRandomBatches], [NewWindows], [NewDocumentBatches] and [NewDocumentPass] make batches, which depend on the seed
// and the number of the step only. [Loader] prepares them while steps run:
//
//	training, heldOut, err := train.OpenCorpus(train.CorpusOptions{HeldOut: 20}, "go/src")
//	batches, err := train.NewRandomBatches(training, train.BatchOptions{Items: 8, Length: 2048})
//	loader := train.NewLoader(ctx, batches, firstStep, 0)
//	defer loader.Close()
//	batch, err := loader.Next(ctx)
//
// # Checkpoints
//
// [Checkpoints] writes directories that survive a killed process and a power failure as a whole or not at all, and
// keeps the last ones:
//
//	checkpoints, err := train.OpenCheckpoints(dir, train.CheckpointOptions{Config: config})
//	defer checkpoints.Close()
//	err = checkpoints.Save(step, nil, func(dir string) error {
//		return errors.Join(model.Save(ctx, filepath.Join(dir, "model.safetensors")),
//			trainer.Optimizer().Save(ctx, filepath.Join(dir, "optimizer.safetensors")))
//	})
//
//	last, err := checkpoints.Latest() // train.ErrNoCheckpoint: the run starts
//	err = model.Load(ctx, last.File("model.safetensors"))
//	err = trainer.Load(ctx, last.File("optimizer.safetensors"))
//	loader := train.NewLoader(ctx, batches, last.Step, 0)
//
// A run that resumes so has the bits of one that was not interrupted.
package train
