"""The VAE tab: one picture's way through a VAE, and what its bound is made of (docs/notes.md#n1-4)."""
