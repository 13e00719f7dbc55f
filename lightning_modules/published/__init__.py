"""Models that the papers' authors published, as this project's."""

from lightning_modules.published.close_dist import close_dist_classifier

__all__ = ["close_dist_classifier"]
