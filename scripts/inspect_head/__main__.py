"""``python -m scripts.inspect_head``."""

from scripts.cli.entry_point import run_command
from scripts.inspect_head import main

run_command(main)
