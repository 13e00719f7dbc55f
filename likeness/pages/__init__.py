"""Pages that show results: one HTML file that needs nothing else, and its figures beside it."""
