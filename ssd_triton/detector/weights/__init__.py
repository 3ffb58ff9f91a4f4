"""Files of network weights: reading, writing and downloading them."""
