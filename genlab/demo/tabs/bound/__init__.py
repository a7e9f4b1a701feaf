"""The Bound tab: the bound of a diffusion model, term by term, and one pixel's two Gaussians at one step (notes 1.5)."""
