"""One file a modality: from a raw file to stored bytes, and from those to the model's input."""
