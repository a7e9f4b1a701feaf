"""The Bound tab: the bound of a diffusion model, term by term, and one pixel's two Gaussians (docs/notes.md#n1-5-bound)."""
