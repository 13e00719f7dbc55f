"""Texts as token files: how they are made, read, and divided into windows for language models."""
