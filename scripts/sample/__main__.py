"""``python -m scripts.sample``."""

from scripts.cli.entry_point import run_command
from scripts.sample import main

run_command(main)
