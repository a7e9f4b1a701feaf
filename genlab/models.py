"""The kinds of model: what each is called in config.json, its class and its configuration."""

from __future__ import annotations

from genlab.config import ConsistencyConfig, DDPMConfig, Kind, LatentConfig, VAEConfig
from genlab.consistency import Consistency
from genlab.ddpm import DDPM
from genlab.latent import LatentDDPM
from genlab.vae import VAE

Diffusion = DDPM | LatentDDPM | Consistency
"""A model that makes pictures of noise in steps."""
Model = Diffusion | VAE
Config = DDPMConfig | VAEConfig | LatentConfig | ConsistencyConfig
KINDS: dict[Kind, tuple[type[Model], type[Config]]] = {
    "ddpm": (DDPM, DDPMConfig),
    "vae": (VAE, VAEConfig),
    "latent-ddpm": (LatentDDPM, LatentConfig),
    "consistency": (Consistency, ConsistencyConfig),
}
"""`kind` of a model → its class, and the class of its configuration."""
