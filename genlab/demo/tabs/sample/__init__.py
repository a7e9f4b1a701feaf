"""The Sample tab: new pictures, step by step (notes 1.1 and 1.5)."""
