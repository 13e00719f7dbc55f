"""``python -m scripts.hubness``."""

from scripts.cli.entry_point import run_command
from scripts.hubness import main

run_command(main)
