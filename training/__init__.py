"""Training scripts: two twins, `train_vae.py` and `train_ddpm.py`, and what they share."""
