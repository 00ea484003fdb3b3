"""Images of components: built without a daemon onto a digest-pinned base, pushed by digest, written to images.lock."""
