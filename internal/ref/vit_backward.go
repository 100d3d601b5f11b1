package ref

import "fmt"

// ConditionalRoutedViTBackward is the gradient of [ConditionalRoutedViT]. Steps: those of the layers; the linear layers
// to_patch_embedding.2 and linear_head.2; transformer.layers.{i}.h, the input of layer i, and transformer.h, the result
// of the last.
//
//	dy [B, NumClasses]
func ConditionalRoutedViTBackward(x, dy []float32, b int, c ViTConfig, p Params, prefix string) Gradients {
	return vitBackward(convert[float64](x), convert[float64](dy), b, c, p, prefix)
}

// ConditionalRoutedViTBackward32 is [ConditionalRoutedViTBackward] in plain float32.
func ConditionalRoutedViTBackward32(x, dy []float32, b int, c ViTConfig, p Params, prefix string) GradientsOf[float32] {
	return vitBackward(x, dy, b, c, p, prefix)
}

// vitLayer is a layer of a ViT after the forward pass.
type vitLayer[T Float] struct {
	attention imageState[T]
	ff        routedFeedForwardState[T]
}

func vitBackward[T Float](x, dy []T, b int, c ViTConfig, p Params, prefix string) GradientsOf[T] {
	return runBackward("ConditionalRoutedViT", p, prefix, func(m gradientModule[T]) ([]T, map[string][]T) {
		dim, rows, columns := c.Attention.Dim, c.ImageHeight/c.PatchHeight, c.ImageWidth/c.PatchWidth
		n, inPatch := rows*columns, c.PatchHeight*c.PatchWidth*c.Channels
		patch := m.child("to_patch_embedding.")
		project := patch.linearArgs("2", patch.layerNorm("1", patchVectors(x, b, c), b*n, inPatch), b*n, inPatch, dim, true)
		embedded := linear(project)
		h, positions := patch.layerNorm("3", embedded, b*n, dim), sinCosPositions[T](rows, columns, dim)
		for i := range h {
			h[i] += positions[i%len(positions)]
		}
		c.Attention.ChannelFirst = false
		c.Router.NumTokens = c.NumHeavyFFTokens
		layers := make([]vitLayer[T], c.Depth)
		for i := range layers {
			layer, y := m.child(layerPrefix(i)), []T(nil)
			y, layers[i].attention = layer.child("0.").forwardImage(h, nil, b, rows, columns, c.Attention)
			h = addTensors(h, y)
			y, layers[i].ff = layer.child("1.").forwardRoutedFeedForward(h, nil, b, n, dim, c.Router)
			h = addTensors(h, y)
		}
		head, mean := m.child("linear_head."), meanPool(h, nil, b, n, dim)
		classes := head.linearArgs("2", head.layerNorm("1", mean, b, dim), b, dim, c.NumClasses, true)
		y := linear(classes)

		d := head.layerNormBackward("1", mean, head.linearBackward("2", classes, dy).X, b, dim)
		dh := meanPoolBackward(d, nil, b, n, dim)
		m.keep("transformer.h", dh)
		for i := c.Depth - 1; i >= 0; i-- {
			dh = addTensors(dh, layers[i].ff.backward(dh))
			dh = addTensors(dh, layers[i].attention.backward(dh))
			m.keep(layerPrefix(i)+"h", dh)
		}
		d = patch.linearBackward("2", project, patch.layerNormBackward("3", embedded, dh, b*n, dim)).X
		g := patchEmbedBackward(PatchEmbedArgs{
			Weight: patch.storedWeight("1.weight", inPatch), Bias: patch.storedWeight("1.bias", inPatch), B: b, Channels: c.Channels,
			Height: c.ImageHeight, Width: c.ImageWidth, PatchHeight: c.PatchHeight, PatchWidth: c.PatchWidth,
		}, x, d)
		patch.add("1.weight", 0, g.Weight)
		patch.add("1.bias", 0, g.Bias)
		return onlyX(y, g.X)
	})
}

// layerPrefix returns the prefix of a layer of a ViT.
func layerPrefix(i int) string { return fmt.Sprintf("transformer.layers.%d.", i) }
