"""The Interpolate tab: from picture to picture, by a VAE's latents and a DDPM's noise (notes 1.4 and 1.5)."""
