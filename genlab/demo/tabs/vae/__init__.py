"""The VAE tab: one picture's way through a VAE, and what its bound is made of (notes 1.4, figures 2, 3 and 4)."""
