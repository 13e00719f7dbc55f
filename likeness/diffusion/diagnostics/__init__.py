"""A trained model looked at: its bound by gamma and by depth, its encoder and gradients, and the least of baselines."""
