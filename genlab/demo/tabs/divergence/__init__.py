"""The KL tab: one Gaussian fitted under each direction of the KL divergence, and codes (notes 1.2 and 1.3, figure 1)."""
