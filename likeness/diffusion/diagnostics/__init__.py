"""A trained diffusion model looked at: its bound by gamma and by depth, its encoder, the gradients of its networks."""
