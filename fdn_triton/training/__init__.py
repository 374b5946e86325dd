"""Training of the network's weights: classification of images, then multi-domain training (paper 3.3)."""
