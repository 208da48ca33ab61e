"""What the HTML pages have in common: one style, one way to fill a template with hostile names, axes and outlines."""
