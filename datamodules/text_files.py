"""How files of texts are written, under the name that data configurations and scripts give it."""

from likeness.files.text_files import TableFormat as TableFormat
