package ref

import (
	"fmt"
	"math"
)

// ViTConfig is the config of [ConditionalRoutedViT].
type ViTConfig struct {
	ImageHeight, ImageWidth int
	PatchHeight, PatchWidth int
	Channels                int
	Depth                   int
	NumClasses              int
	Attention               ImageAttentionConfig // its x is [B, patch rows, patch columns, C]
	NumHeavyFFTokens        int
	Router                  RouterConfig // of the feedforward layers; NumTokens is ignored
}

// ConditionalRoutedViT is an image classifier.
//
//	x [B, Channels, ImageHeight, ImageWidth]    y [B, NumClasses]
//	h = layernorm(linear(layernorm(patches))) + positions, a patch having the layout (p1 p2 c)
//	Depth times: h += attention(h); h += feedforward(h)
//	y = linear(layernorm(mean over patches of h))
func ConditionalRoutedViT(x []float32, b int, c ViTConfig, p Params, prefix string) Result {
	return vit(convert[float64](x), b, c, p, prefix)
}

// ConditionalRoutedViT32 is [ConditionalRoutedViT] in plain float32.
func ConditionalRoutedViT32(x []float32, b int, c ViTConfig, p Params, prefix string) ResultOf[float32] {
	return vit(x, b, c, p, prefix)
}

func vit[T Float](x []T, b int, c ViTConfig, p Params, prefix string) ResultOf[T] {
	return runModule("ConditionalRoutedViT", p, prefix, func(m module[T]) []T {
		checkLen(m.name, "x", len(x), b*c.Channels*c.ImageHeight*c.ImageWidth)
		dim, rows, columns := c.Attention.Dim, c.ImageHeight/c.PatchHeight, c.ImageWidth/c.PatchWidth
		n, inPatch := rows*columns, c.PatchHeight*c.PatchWidth*c.Channels
		embedding := m.child("to_patch_embedding.")
		h := embedding.layerNorm("1", patchVectors(x, b, c), b*n, inPatch)
		h = embedding.layerNorm("3", embedding.linearBias("2", h, b*n, inPatch, dim), b*n, dim)
		for i := range b {
			copy(h[i*n*dim:], addTensors(h[i*n*dim:(i+1)*n*dim], sinCosPositions[T](rows, columns, dim)))
		}
		c.Attention.ChannelFirst = false
		c.Router.NumTokens = c.NumHeavyFFTokens
		for i := range c.Depth {
			layer := m.child(fmt.Sprintf("transformer.layers.%d.", i))
			h = addTensors(h, layer.child("0.").image(h, nil, b, rows, columns, c.Attention))
			h = addTensors(h, layer.child("1.").routedFeedForward(h, nil, b, n, dim, c.Router))
		}
		mean := make([]T, b*dim)
		for i, v := range h {
			mean[i/(n*dim)*dim+i%dim] += v / T(n)
		}
		head := m.child("linear_head.")
		return head.linearBias("2", head.layerNorm("1", mean, b, dim), b, dim, c.NumClasses)
	})
}

// patchVectors returns [B, patches, p1 * p2 * channels] of [B, channels, height, width].
func patchVectors[T Float](x []T, b int, c ViTConfig) []T {
	var y []T
	for item := range b {
		for row := 0; row < c.ImageHeight; row += c.PatchHeight {
			for column := 0; column < c.ImageWidth; column += c.PatchWidth {
				for pixel := range c.PatchHeight * c.PatchWidth {
					i, j := row+pixel/c.PatchWidth, column+pixel%c.PatchWidth
					for channel := range c.Channels {
						y = append(y, x[((item*c.Channels+channel)*c.ImageHeight+i)*c.ImageWidth+j])
					}
				}
			}
		}
	}
	return y
}

// sinCosPositions returns the 2D sin-cos position embedding [rows, columns, C]: sin(x w), cos(x w), sin(y w), cos(y w),
// a quarter of C each, for column x, row y and decreasing frequencies w.
func sinCosPositions[T Float](rows, columns, c int) []T {
	y, quarter := make([]T, rows*columns*c), c/4
	for patch := range rows * columns {
		for i := range quarter {
			omega := math.Pow(10000, -float64(i)/float64(quarter-1))
			for axis, place := range []int{patch % columns, patch / columns} {
				sin, cos := math.Sincos(float64(place) * omega)
				at := patch*c + 2*axis*quarter + i
				y[at], y[at+quarter] = T(sin), T(cos)
			}
		}
	}
	return y
}
