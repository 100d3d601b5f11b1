package train_test

import (
	"bytes"
	"context"
	"fmt"

	"github.com/colt5-vulkan/colt5/colt5"
	"github.com/colt5-vulkan/colt5/train"
	"github.com/colt5-vulkan/colt5/vk"
)

// fit trains a model on batches, and returns what happened in each step.
func fit(ctx context.Context, dev *vk.Device, model *colt5.AutoregressiveTransformer, batches train.Batches, steps int) ([]train.Record, error) {
	g := colt5.NewGraph(dev)
	defer g.Close()
	logits := g.Value("logits")
	if err := model.Forward(ctx, logits, g.Input("ids", colt5.U8, 0, 0), colt5.AutoregressiveOptions{}); err != nil {
		return nil, err
	}
	g.Output("loss", g.CrossEntropy(logits, g.Input("labels", colt5.I32, 0, 0)))
	trainer, err := train.NewTrainer(ctx, g, model.Parameters(), train.OptimizerConfig{AdamW: train.AdamW{Rate: 0.02}, Clip: 1})
	if err != nil {
		return nil, err
	}
	defer trainer.Close()
	loader := train.NewLoader(ctx, batches, 0, 0)
	defer loader.Close()
	for range steps {
		batch, err := loader.Next(ctx)
		if err != nil {
			return nil, err
		}
		if err := trainer.Step(ctx, batch); err != nil {
			return nil, err
		}
	}
	return trainer.Optimizer().Records(ctx, 0)
}

// A small language model over bytes learns a sentence.
func ExampleTrainer() {
	if err := learnSentence(context.Background()); err != nil {
		fmt.Println(err)
	}
	// Output:
	// the loss fell to less than half
}

func learnSentence(ctx context.Context) error {
	dev, err := vk.Open(vk.Options{})
	if err != nil {
		return err
	}
	defer dev.Close()
	config := colt5.Default[colt5.AutoregressiveTransformerConfig]()
	config.Depth, config.Dim, config.CausalQueryRouting = 1, 16, true
	config.LightHeads, config.LightDimHead, config.HeavyHeads, config.HeavyDimHead = 2, 8, 2, 8
	config.LightWindowSize, config.NumHeavyTokensQ, config.NumHeavyTokensKV = 8, 2, 8
	model, err := colt5.NewAutoregressiveTransformer(ctx, dev, config)
	if err != nil {
		return err
	}
	defer model.Close()
	text := bytes.NewReader(bytes.Repeat([]byte("to be or not to be, "), 20))
	batches, err := train.NewRandomBatches(text, train.BatchOptions{Items: 4, Length: 32})
	if err != nil {
		return err
	}
	records, err := fit(ctx, dev, model, batches, 40)
	if err != nil {
		return err
	}
	if first, last := records[0].Loss, records[len(records)-1].Loss; last < first/2 {
		fmt.Println("the loss fell to less than half")
	} else {
		fmt.Printf("the loss fell from %.2f to %.2f\n", first, last)
	}
	return nil
}
