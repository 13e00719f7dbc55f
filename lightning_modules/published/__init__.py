"""Models that the papers' authors published, as this project's."""

from lightning_modules.published.close_dist import close_dist_classifier
from lightning_modules.published.diffusion import load_published_diffusion

__all__ = ["close_dist_classifier", "load_published_diffusion"]
