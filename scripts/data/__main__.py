"""``python -m scripts.data``."""

from scripts.cli.entry_point import run_command
from scripts.data import main

run_command(main)
