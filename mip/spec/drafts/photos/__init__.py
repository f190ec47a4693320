"""Which columns name photos, how their cells become the paths of files, and what the photos are."""
