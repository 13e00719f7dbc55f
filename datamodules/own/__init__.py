"""Data that somebody brings: folders of pictures, arrays in files, and Hugging Face data sets.

``datamodule`` is what the three have in common, ``samples`` how a sample is read and augmented when its batch asks for
it, ``pictures`` how an encoded picture becomes numbers.
"""
