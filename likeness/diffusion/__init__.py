"""Variational diffusion models as hierarchical VAEs: schedules, encoders of the mean, ELBO terms, samplers."""
