"""The KL tab: one Gaussian fitted under each direction of the KL divergence, and codes (docs/notes.md#fig-1)."""
