"""The kinds of model: name in config.json, class and configuration of each."""

from __future__ import annotations

from genlab.config import ConsistencyConfig, DDPMConfig, Kind, LatentConfig, MixtureConfig, VAEConfig
from genlab.consistency import Consistency
from genlab.ddpm import DDPM
from genlab.latent import LatentDDPM
from genlab.mixture import MixtureVAE
from genlab.vae import VAE

Diffusion = DDPM | LatentDDPM | Consistency
"""A model that turns noise into pictures in steps."""
Decoding = VAE | MixtureVAE
"""A model that decodes a draw of its prior into a picture."""
Model = Diffusion | Decoding
Config = DDPMConfig | VAEConfig | LatentConfig | MixtureConfig | ConsistencyConfig
KINDS: dict[Kind, tuple[type[Model], type[Config]]] = {
    "ddpm": (DDPM, DDPMConfig),
    "vae": (VAE, VAEConfig),
    "latent-ddpm": (LatentDDPM, LatentConfig),
    "mixture-vae": (MixtureVAE, MixtureConfig),
    "consistency": (Consistency, ConsistencyConfig),
}
"""`kind` of a model → class of the model, class of its configuration."""
