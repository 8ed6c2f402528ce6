"""From raw media to prepared samples on disk, and the only reader of them."""
