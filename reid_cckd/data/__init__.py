"""Images on disk: layouts, decoding, augmentation, caching, checking and synthetic pedestrians."""
