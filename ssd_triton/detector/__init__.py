"""The detector: network, weights, protocol, post-processing, export, quantisation, engines."""
