"""``python -m scripts.doctor``."""

from scripts.cli.entry_point import run_command
from scripts.doctor import main

run_command(main)
