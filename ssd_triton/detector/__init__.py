"""The detector: network, weights, post-processing, exports, quantisation, engines."""
