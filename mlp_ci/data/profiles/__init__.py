"""The shape of data in constant size, and how far two shapes lie apart."""
