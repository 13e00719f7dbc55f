"""``python -m scripts.study``."""

from scripts.cli.entry_point import run_command
from scripts.study import main

run_command(main)
