"""The Diffusion tab: the forward and the reverse process on one picture, step by step (notes 1.5, figure 5)."""
