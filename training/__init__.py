"""The command lines for training, distilling, evaluating and publishing models, and their shared code."""
