package colt5

// config is a configuration of a module.
type config interface {
	check(k checker) error
	precision() DType
	build(w *weights) layer // adds the weights
}

// Default returns the default configuration of a module, or the default RouterSettings. The values are
// those of the colt5-attention package, except that RouteScope is RouteScopeImage. Fields without a default, such as
// Dim, are 0.
func Default[C defaults]() C {
	var c C
	any(&c).(interface{ setDefaults() }).setDefaults()
	return c
}

type defaults interface {
	ConditionalRoutedFeedForwardConfig | ConditionalRoutedAttentionConfig | ConditionalRoutedTransformerBlockConfig |
		ConditionalRoutedCrossAttentionConfig | ConditionalRoutedAutoregressiveAttentionConfig | ConditionalRoutedImageAttentionConfig |
		ConditionalRoutedViTConfig | EncoderConfig | AutoregressiveTransformerConfig | CoordinateDescentConfig | TopKConfig | RouterConfig |
		LinearConfig | EmbeddingConfig |
		RouterSettings | LocalMHAConfig | FeedForwardConfig | RMSNormConfig
}
