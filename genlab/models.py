"""The kinds of model: name in config.json, class and configuration of each."""

from __future__ import annotations

from genlab.config import ConsistencyConfig, DDPMConfig, Kind, LatentConfig, VAEConfig
from genlab.consistency import Consistency
from genlab.ddpm import DDPM
from genlab.latent import LatentDDPM
from genlab.vae import VAE

Diffusion = DDPM | LatentDDPM | Consistency
"""A model that turns noise into pictures in steps."""
Model = Diffusion | VAE
Config = DDPMConfig | VAEConfig | LatentConfig | ConsistencyConfig
KINDS: dict[Kind, tuple[type[Model], type[Config]]] = {
    "ddpm": (DDPM, DDPMConfig),
    "vae": (VAE, VAEConfig),
    "latent-ddpm": (LatentDDPM, LatentConfig),
    "consistency": (Consistency, ConsistencyConfig),
}
"""`kind` of a model → class of the model, class of its configuration."""
