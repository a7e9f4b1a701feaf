"""The Diffusion tab: the forward and the reverse process on one picture, step by step (docs/notes.md#fig-5)."""
