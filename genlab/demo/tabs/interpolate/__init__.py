"""The Interpolate tab: from picture to picture, by a VAE's latents and a DDPM's noise (docs/notes.md#n1-4 and #n1-5)."""
